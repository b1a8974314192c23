"""The manifest `manifest.toml`: which pipelines a deployment runs, from which pinned files.

Logical names (`camera.top`) are bound to topics by the device config, so that one deployment
serves many lines. Every file is pinned by its SHA-256; a model's file is pinned by its card.
"""

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from edge.contracts.abi import MAX_DEFECTS, MAX_STATE_BYTES
from edge.contracts.frame import MAX_SIDE_PX, PixelFormat
from edge.contracts.plan import MAX_IMAGE_BYTES
from edge.contracts.program import MAGIC as PROGRAM_FORMATS
from edge.deployment.rules import CanaryRule, DriftRule, Golden, ProbationRule, ShadowRule, Share
from edge.deployment.schema import Name, Pinned, Strict

MAX_PARAMETER_BYTES: Final = 16 << 10
"""Of one guest, as JSON: a table of settings, not a way to ship data."""
MAX_PARAMETER_DEPTH: Final = 8
MIB: Final = 1 << 20

_LOGICAL = r"^{}\.[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}$"
CameraName = Annotated[str, Field(pattern=_LOGICAL.format("camera"))]
ReferenceName = Annotated[str, Field(pattern=_LOGICAL.format("reference"))]
SignalName = Annotated[str, Field(pattern=_LOGICAL.format("signal"))]
ActionName = Annotated[str, Field(pattern=_LOGICAL.format("action"))]


class DeploymentSection(Strict):
    """Who the deployment is."""

    name: Name
    revision: int = Field(ge=1, le=2**53, description="Raised with every change.")
    abi: str = Field(
        pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$", description="The least guest ABI version it needs."
    )
    description: str = Field("", max_length=2_000)

    @property
    def abi_version(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = self.abi.split(".")
        return int(major), int(minor)


class Image(Strict):
    """What frames and references are decoded to, and the most that is taken."""

    format: Literal["GRAY8", "BGR", "RGB"]
    max_width: int = Field(ge=1, le=MAX_SIDE_PX, description="Pixels.")
    max_height: int = Field(ge=1, le=MAX_SIDE_PX, description="Pixels.")

    @property
    def max_bytes(self) -> int:
        """Size of the largest decoded image."""
        return self.max_width * self.max_height * PixelFormat(self.format).channels

    @model_validator(mode="after")
    def _carried(self) -> Self:
        if self.max_bytes > MAX_IMAGE_BYTES:
            raise ValueError(
                f"{self.max_width}x{self.max_height} {self.format} takes "
                f"{self.max_bytes / MIB:.0f} MiB decoded; at most {MAX_IMAGE_BYTES / MIB:.0f} MiB "
                "are carried to a worker"
            )
        return self


class Model(Strict):
    """The model: a card, and one of the variants that it names."""

    card: Pinned
    variant: Name


class Guest(Pinned):
    """A guest, and what is granted to it."""

    memory_mib: int = Field(ge=1, le=4_096, description="The most memory it may declare, MiB.")
    call_ms: int = Field(ge=1, le=10_000, description="The longest one call may take.")
    fuel: int = Field(
        0,
        ge=0,
        le=10**12,
        description="Wasm instructions that one call may take, counted; 0: not counted.",
    )
    instance: Literal["kept", "frame"] = Field(
        "kept", description="`frame`: each frame meets a new instance."
    )
    state_bytes: int = Field(
        MAX_STATE_BYTES,
        ge=0,
        le=MAX_STATE_BYTES,
        description="The largest state that it may save; 0: none is kept. Of `decide` alone.",
    )
    log_lines_per_minute: int = Field(
        0, ge=0, le=6_000, description="Lines that it may log; others are counted and dropped."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Handed to the guest as JSON when it is configured."
    )

    @model_validator(mode="after")
    def _parameters_are_json(self) -> Self:
        _refuse_deep(self.parameters)
        try:
            encoded = json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as failed:
            raise ValueError(f"parameters cannot be said in JSON: {failed}") from None
        if len(encoded) > MAX_PARAMETER_BYTES:
            raise ValueError(
                f"parameters take {len(encoded)} bytes as JSON, at most {MAX_PARAMETER_BYTES}"
            )
        return self


class Program(Pinned):
    """An existing wasi-nn program, in the place of `preprocess` and `postprocess`."""

    memory_mib: int = Field(ge=1, le=4_096, description="The most its memory may grow to, MiB.")
    call_ms: int = Field(
        ge=1, le=60_000, description="The longest one run may take, the model included."
    )
    graph: str = Field(
        "model",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name under which it finds the pipeline's model (load_by_name).",
    )


class Crop(Strict):
    """What is cut out around a finding."""

    margin: float = Field(
        0.25,
        ge=0,
        le=16,
        allow_inf_nan=False,
        description="Added on each side of the box, as a share of its width or height.",
    )
    min_side_px: int = Field(
        1, ge=1, le=MAX_SIDE_PX, description="Least width and height of a crop, pixels."
    )
    square: bool = Field(True, description="Whether the shorter side grows to the longer.")


class Refine(Strict):
    """A second model: it looks at a crop around each finding of the first, and has the last word.

    The first dimension of its tensors is the batch: so many crops are judged in one run.
    """

    model: Model
    preprocess: Guest
    postprocess: Guest
    crop: Crop = Field(default_factory=Crop)
    max_crops: int = Field(
        ge=1,
        le=MAX_DEFECTS,
        description="Findings that it looks at, the strongest; others keep the first model's word.",
    )
    score: Literal["classifier", "detector", "product"] = Field(
        "classifier", description="Whose score a finding has then."
    )
    drop: tuple[str, ...] = Field(
        (), strict=False, max_length=64, description="Its classes that remove a finding."
    )
    min_score: Share = Field(
        0.0, description="Findings whose score is lower then are left out; the others, too."
    )
    unnamed: Literal["keep", "drop"] = Field(
        "keep", description="What becomes of a finding in whose crop it names nothing."
    )


class SignalGrant(Strict):
    """A signal that the policy may read."""

    name: SignalName
    max_age_ms: int = Field(ge=1, le=86_400_000, description="Older than this it is stale.")


class ActionGrant(Strict):
    """An action that the policy may cause."""

    name: ActionName
    max_per_minute: int = Field(ge=1, le=60_000)
    max_ttl_ms: int = Field(ge=1, le=86_400_000, description="The longest it may hold.")
    revert: float | None = Field(
        None,
        ge=-1e9,
        le=1e9,
        description="Published by the daemon when the time to live is over; absent: nothing is.",
    )


class Pipeline(Strict):
    """One pipeline: from a camera's frames to verdicts."""

    source: CameraName
    reference: ReferenceName | None = None
    reference_slots: int = Field(
        4, ge=2, le=64, description="Decoded references kept in guest memory."
    )
    budget_ms: int = Field(ge=10, le=60_000, description="From capture to the verdict.")
    fail_safe: Literal["review", "reject", "pass"] = Field(
        "review", description="Verdict of a frame that could not be judged."
    )
    overflow: Literal["latest", "queue"] = "latest"
    queue_frames: int = Field(4, ge=1, le=256, description="Frames that may wait for the worker.")
    image: Image
    model: Model
    preprocess: Guest | None = None
    postprocess: Guest | None = None
    program: Program | None = Field(
        None, description="Finds defects in the place of preprocess and postprocess."
    )
    refine: Refine | None = Field(
        None, description="A second model, which looks at crops of what was found."
    )
    decide: Guest
    signals: tuple[SignalGrant, ...] = Field((), strict=False, max_length=32)
    actions: tuple[ActionGrant, ...] = Field((), strict=False, max_length=16)
    golden: tuple[Golden, ...] = Field(
        (), strict=False, max_length=64, description="Frames that it must judge right in its trial."
    )

    @property
    def guests(self) -> tuple[tuple[str, Guest], ...]:
        """The guests by their place in the manifest, in the order a frame meets them."""
        named = (
            ("preprocess", self.preprocess),
            ("postprocess", self.postprocess),
            ("refine.preprocess", self.refine.preprocess if self.refine else None),
            ("refine.postprocess", self.refine.postprocess if self.refine else None),
            ("decide", self.decide),
        )
        return tuple((role, guest) for role, guest in named if guest is not None)

    @property
    def models(self) -> tuple[tuple[str, Model], ...]:
        """The models by their place in the manifest, likewise."""
        second = () if self.refine is None else (("refine.model", self.refine.model),)
        return (("model", self.model), *second)

    @property
    def modules(self) -> tuple[Pinned, ...]:
        """Every Wasm file that it runs."""
        program = () if self.program is None else (self.program,)
        return (*program, *(guest for _, guest in self.guests))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._expect_a_way_to_find()
        for role, guest in self.guests:
            if role != "decide" and "state_bytes" in guest.model_fields_set:
                raise ValueError(f"{role}.state_bytes is set, but decide alone keeps a state")
        if self.reference is None and "reference_slots" in self.model_fields_set:
            raise ValueError("reference_slots is set, but there is no reference")
        granted = sum(guest.call_ms for _, guest in self.guests)
        granted += self.program.call_ms if self.program else 0
        if granted >= self.budget_ms:
            raise ValueError(
                f"budget_ms is {self.budget_ms}, and the guests alone may take {granted} ms "
                "(the sum of their call_ms): nothing is left for the model"
            )
        self._expect_room_for_images()
        self._refuse_doubles()
        self._refuse_two_grants_for_one_module()
        return self

    def _expect_room_for_images(self) -> None:
        references = self.reference_slots if self.reference else 0
        rooms = [("preprocess", self.preprocess, 1 + references, "a frame and its reference_slots")]
        if self.refine is not None:
            crops = 2 if self.reference else 1
            second = self.refine.preprocess
            rooms.append(("refine.preprocess", second, crops, "the largest crop (a whole frame)"))
        for place, guest, images, what in rooms:
            if guest is not None and images * self.image.max_bytes > guest.memory_mib * MIB:
                raise ValueError(
                    f"{place}.memory_mib is {guest.memory_mib}; {what} alone "
                    f"take{'s' if images == 1 else ''} "
                    f"{images * self.image.max_bytes / MIB:.1f} MiB: "
                    "raise it, or lower image.max_width and image.max_height"
                )

    def _expect_a_way_to_find(self) -> None:
        guests = (self.preprocess, self.postprocess)
        if self.program is None and None in guests:
            raise ValueError("preprocess and postprocess are needed, or a program in their place")
        if self.program is None:
            return
        if guests != (None, None):
            raise ValueError("program stands in the place of preprocess and postprocess")
        if self.image.format not in PROGRAM_FORMATS:
            raise ValueError(
                f"image.format is {self.image.format}; a program takes "
                f"{' or '.join(PROGRAM_FORMATS)}"
            )

    def _refuse_doubles(self) -> None:
        for table, names in (
            ("signals", [grant.name for grant in self.signals]),
            ("actions", [grant.name for grant in self.actions]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{table}: {name!r} is granted twice")

    def _refuse_two_grants_for_one_module(self) -> None:
        """One module in several roles is one instance: it has one digest and one memory.

        The second model's guests have instances of their own.
        """
        seen: dict[tuple[str, bool], tuple[str, Guest]] = {}
        for role, guest in self.guests:
            module = guest.path, role.startswith("refine.")
            first_role, first = seen.setdefault(module, (role, guest))
            for key in ("sha256", "memory_mib", "fuel", "instance"):
                if getattr(guest, key) != getattr(first, key):
                    raise ValueError(
                        f"{first_role} and {role} are the same file {guest.path!r}, "
                        f"but differ in {key}"
                    )


class Manifest(Strict):
    """A whole manifest."""

    deployment: DeploymentSection
    shadow: ShadowRule = Field(default_factory=ShadowRule)
    canary: CanaryRule = Field(default_factory=CanaryRule)
    probation: ProbationRule = Field(default_factory=ProbationRule)
    drift: DriftRule = Field(default_factory=DriftRule)
    pipelines: dict[Name, Pipeline] = Field(min_length=1, max_length=16)


def _refuse_deep(parameters: dict[str, Any]) -> None:
    """Bound the nesting before anything recurses into it."""
    level: list[Any] = [parameters]
    for _ in range(MAX_PARAMETER_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"parameters are nested deeper than {MAX_PARAMETER_DEPTH} levels")
