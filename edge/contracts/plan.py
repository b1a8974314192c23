"""The plan of a pipeline: a deployment and a device config, checked and resolved to one value.

`edge.deployment` makes it; the daemon reads its deadlines and grants; the worker receives it whole
and builds the frame path from it, and from nothing else.
"""

from enum import StrEnum
from typing import Any, Final

import msgspec

from edge.contracts.abi import MAX_STATE_BYTES
from edge.contracts.frame import PixelFormat
from edge.contracts.verdict import DeploymentRef, Kind

MAX_MODEL_BYTES: Final = 512 << 20
"""Largest model file that is read: protobuf ends at 2 GiB, these boxes well before."""

MAX_IMAGE_BYTES: Final = 256 << 20
"""Largest image decoded: the probe frame crosses to a worker in one packet of its size."""


class Overflow(StrEnum):
    """What gives way when frames come faster than they are judged; each loss is a verdict."""

    LATEST = "latest"
    """A camera that runs on: the oldest waiting frame yields."""
    QUEUE = "queue"
    """One frame a part: a frame that finds the queue full yields."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A model input or output: NumPy dtype name and static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def rows(self, count: int) -> "TensorSpec":
        """The same with another first dimension, such as one row of a batch."""
        return TensorSpec(self.name, self.dtype, (count, *self.shape[1:]))


class PluginPlan(msgspec.Struct, frozen=True):
    """An execution provider that is a library of its own beside ONNX Runtime.

    Attributes:
        library: Absolute path of the shared library.
        device: Kind of hardware that it shall use: `cpu`, `gpu`, `npu`; empty: the first it offers.
    """

    library: str
    device: str = ""


class ModelPlan(msgspec.Struct, frozen=True):
    """The model and how it must run.

    Attributes:
        path: Absolute path of the ONNX file; its sha256 was checked when the plan was made.
        provider: Execution provider by its short name (`cpu`, `cuda`, `tensorrt`, `openvino`, or
            that of the plug-in).
        require: Whether any other provider than that means not READY.
        options: Provider options, as ONNX Runtime takes them.
        threads: Intra-op threads, at least 1.
        spinning: Whether they spin between frames, and so burn a core to be awake at once.
        plugin: Where the provider is a plug-in; None: it is part of ONNX Runtime.
        engines: Absolute path of the folder for engines that a provider compiles; empty: none kept.
    """

    path: str
    sha256: str
    classes: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provider: str = "cpu"
    require: bool = True
    options: dict[str, str] = {}
    threads: int = 1
    spinning: bool = False
    plugin: PluginPlan | None = None
    engines: str = ""


class GuestPlan(msgspec.Struct, frozen=True):
    """A guest, and what is granted to it.

    Attributes:
        path: Absolute path of the Wasm file; its sha256 was checked when the plan was made.
        memory_mib: The most memory that the module may declare.
        call_ms: The longest that one call may take before it is interrupted.
        fuel: Instructions that one call may take, roughly; 0: they are not counted.
        fresh: Whether each frame gets a new instance.
        state_bytes: The largest state that the policy may save; 0: none is kept.
        log_lines_per_minute: Lines that it may log.
        parameters: Handed to `edge_configure`, with the names around them.
    """

    path: str
    sha256: str
    memory_mib: int
    call_ms: int
    parameters: dict[str, Any] = {}
    fuel: int = 0
    fresh: bool = False
    state_bytes: int = MAX_STATE_BYTES
    log_lines_per_minute: int = 0


class SignalGrant(msgspec.Struct, frozen=True):
    """A signal that the policy may read; older than `max_age_ms` at capture, it is stale."""

    name: str
    max_age_ms: int


class ActionGrant(msgspec.Struct, frozen=True):
    """An action that the policy may cause, at most so often and so long.

    Attributes:
        revert: What the daemon publishes when the time to live is over; None: nothing.
    """

    name: str
    max_per_minute: int
    max_ttl_ms: int
    revert: float | None = None


class ImagePlan(msgspec.Struct, frozen=True):
    """What the pipeline decodes frames to, and the most it takes."""

    pixel_format: PixelFormat
    max_width: int
    max_height: int

    @property
    def max_bytes(self) -> int:
        """Size of the largest decoded image."""
        return self.max_width * self.max_height * self.pixel_format.channels


class CropPlan(msgspec.Struct, frozen=True):
    """What is cut out around a finding, to be shown to the second model of a cascade.

    Attributes:
        margin: Added on each side, as a share of the box's side.
        min_side_px: The least width and height of a crop, where the frame is as large.
        square: Whether the shorter side grows to the longer.
    """

    margin: float
    min_side_px: int
    square: bool


class ScoreOf(StrEnum):
    """Whose confidence a refined finding carries."""

    CLASSIFIER = "classifier"
    DETECTOR = "detector"
    PRODUCT = "product"


class RefinePlan(msgspec.Struct, frozen=True):
    """The second model of a cascade: it looks at a crop around each finding of the first.

    Attributes:
        model: Its tensors' first dimension is the batch: the crops of one run.
        preprocess: Makes one row of the batch from one crop.
        postprocess: Reads one row of the outputs; the strongest of its findings is the answer.
        crop: What is cut out.
        max_crops: Findings that are looked at, the strongest; others keep the detector's word.
        score: Of a refined finding.
        drop: Classes of this model whose answer removes the finding.
        min_score: Findings whose score is lower then are left out.
        drop_unnamed: Whether a crop of which `postprocess` finds nothing removes it, too; else it
            keeps the detector's word.
    """

    model: ModelPlan
    preprocess: GuestPlan
    postprocess: GuestPlan
    crop: CropPlan
    max_crops: int
    score: ScoreOf = ScoreOf.CLASSIFIER
    drop: tuple[str, ...] = ()
    min_score: float = 0.0
    drop_unnamed: bool = False

    @property
    def batch(self) -> int:
        """Crops of one run at the most."""
        return self.model.inputs[0].shape[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides on a verdict beside models and guests, in JSON's words."""
        settings: dict[str, Any] = msgspec.to_builtins(
            {
                "crop": self.crop,
                "max_crops": self.max_crops,
                "score": self.score,
                "drop": self.drop,
                "min_score": self.min_score,
                "unnamed": "drop" if self.drop_unnamed else "keep",
            }
        )
        return settings


class DriftPlan(msgspec.Struct, frozen=True):
    """How a pipeline is watched for drift.

    Attributes:
        learn_frames: Looked at while a reference is learnt; 0: it is not watched.
        window_frames: The newest ones, compared with the reference.
        every_ms: At most one frame in so many milliseconds is looked at; 0: each.
        max_distance: How far the window's median may lie from the reference's, in spreads.
        max_psi: The population stability index that verdicts may have.
    """

    learn_frames: int = 0
    window_frames: int = 300
    every_ms: int = 3_000
    max_distance: float = 3.0
    max_psi: float = 0.1


class PipelinePlan(msgspec.Struct, frozen=True):
    """Everything about one pipeline of one deployment.

    Attributes:
        source: Logical name of its camera, e.g. `camera.top`.
        reference: Logical name of its reference images; empty where it uses none.
        reference_slots: Decoded references kept in guest memory.
        budget_ms: From capture to publication of the verdict.
        fail_safe: The verdict of a frame that could not be judged.
        queue_frames: Frames that may wait for the worker.
        preprocess: The guest of that role; where `graph` is set, a program.
        postprocess: Likewise, and then the same program.
        graph: Name under which a wasi-nn program finds the model; empty: the roles are guests'.
        refine: The second model, where the pipeline is a cascade; None: it has one model.
        drift: How it is watched.
    """

    name: str
    deployment: DeploymentRef
    source: str
    reference: str
    reference_slots: int
    budget_ms: int
    fail_safe: Kind
    overflow: Overflow
    queue_frames: int
    image: ImagePlan
    model: ModelPlan
    preprocess: GuestPlan
    postprocess: GuestPlan
    decide: GuestPlan
    signals: tuple[SignalGrant, ...] = ()
    actions: tuple[ActionGrant, ...] = ()
    graph: str = ""
    refine: RefinePlan | None = None
    drift: DriftPlan = DriftPlan()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that findings may have when the policy sees them, in the order of labels."""
        first = self.model.classes
        return (
            first
            if self.refine is None
            else merged_classes(first, self.refine.model.classes, self.refine.drop)
        )

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        """The models, in the order a frame meets them."""
        return (self.model,) if self.refine is None else (self.model, self.refine.model)

    @property
    def guests(self) -> tuple[tuple[str, GuestPlan], ...]:
        """The guests with the names of their stages; a program stands in two of them."""
        first = (("preprocess", self.preprocess), ("postprocess", self.postprocess))
        last = ("decide", self.decide)
        if self.refine is None:
            return (*first, last)
        return (
            *first,
            ("refine_preprocess", self.refine.preprocess),
            ("refine_postprocess", self.refine.postprocess),
            last,
        )


def merged_classes(
    detector: tuple[str, ...], classifier: tuple[str, ...], drop: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the classes of a cascade: the detector's, then what the classifier alone can say."""
    return (
        *detector,
        *(name for name in classifier if name not in detector and name not in drop),
    )
