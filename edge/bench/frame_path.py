"""The frame path in one process: ours, the bare script's, and the floor, in turn on each frame.

The floor is what no design can save: decoding, and ONNX Runtime on a ready tensor. All three run
the same model with the same number of threads.
"""

import hashlib
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from edge import config
from edge.bench import bare_script, detector
from edge.contracts.frame import ContentType, PixelFormat
from edge.contracts.messages import Judge, PolicyState
from edge.contracts.plan import (
    DriftPlan,
    GuestPlan,
    ImagePlan,
    ModelPlan,
    Overflow,
    PipelinePlan,
    TensorSpec,
)
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import DeploymentRef, Kind
from edge.daemon.local import DEPLOYMENT
from edge.deployment.folder import load_folder, plans
from edge.inference.model import OnnxModel
from edge.linesim.line import boards_of, render_part
from edge.linesim.scan import encode_jpeg
from edge.pipeline.decode import decode
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_models, load_modules
from edge.shipped import path as shipped
from edge.wasm.engine import GuestEngine

SIZES: Final = ((640, 480, 320), (640, 480, 640), (1920, 1080, 640))
"""Frame width and height, and the side of the model's input."""
_FINDINGS: Final = 12
"""Boxes over the threshold: those of a bad part."""
_JPEG_QUALITY: Final = 85
_CLASSES: Final = tuple(f"class{n}" for n in range(detector.CLASSES))
_REFERENCE: Final = "reference"
_SEED: Final = 7


class PathFigures(msgspec.Struct, frozen=True):
    """Medians of one case, milliseconds.

    Attributes:
        ratio: Of ours to the bare script's, pair by pair, the median.
        over_floor: What ours adds to the floor, as a share of the floor; likewise.
    """

    case: str
    frames: int
    ours_ms: float
    bare_ms: float
    floor_ms: float
    ratio: float
    over_floor: float
    stage_ms: dict[str, float]


class Case(NamedTuple):
    """What is measured: a plan, a frame, and the bare script on the same frame and model."""

    name: str
    plan: PipelinePlan
    jpeg: bytes
    reference: bytes
    bare: Callable[[], object]


def measure(folder: Path, frames: int, threads: int = 1) -> list[PathFigures]:
    """Measure every case; `folder` takes the models and the compiled guests."""
    with GuestEngine(folder / "guests") as engine:
        cases = [_detector_case(folder, *size, threads) for size in SIZES]
        return [_measure(engine, case, frames) for case in (*cases, board_case(threads))]


def scene(width: int, height: int) -> bytes:
    """Return a JPEG with the detail of a photographed surface; the same at each call."""
    random = np.random.default_rng(width)
    coarse = random.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 4, (height, width, 3))
    pixels = (np.asarray(smooth, np.float32) + grain).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _detector_case(folder: Path, width: int, height: int, side: int, threads: int) -> Case:
    """A colour frame, letterboxed, with the benchmark's detector."""
    model = folder / f"detector-{side}.onnx"
    detector.write(model, side)
    jpeg = scene(width, height)
    session = bare_script.load(model, threads)
    threshold = _threshold(session, jpeg, side)
    return Case(
        f"{width}x{height}, {len(jpeg) >> 10} KiB, model {side}",
        _plan(model, width, height, side, threads, threshold),
        jpeg,
        b"",
        lambda: bare_script.judge_bgr(session, jpeg, side, threshold),
    )


def board_case(threads: int, deployment: Path | None = None) -> Case:
    """A bad board beside its reference, with the reference deployment or another one for boards."""
    settings = config.parse(
        {
            "inference": {"threads": threads},
            "bindings": {
                "camera": {"top": "frame"},
                "reference": {"top": "reference"},
                "signal": {"lamp": "lamp"},
                "action": {"reject": "reject"},
            },
        },
        "benchmark",
    )
    (plan,) = plans(load_folder(deployment or shipped(DEPLOYMENT)), settings)
    board = boards_of(_SEED)[0]
    part = render_part(board, 0, ("open", "spur", "pin-hole"))
    jpeg, reference = encode_jpeg(part.image), encode_jpeg(board.reference())
    session = cache(lambda: bare_script.load(Path(plan.model.path), threads))  # where it is wanted
    decoded = bare_script.read(reference, cv2.IMREAD_GRAYSCALE)
    return Case(
        f"board 640x640, {len(jpeg) >> 10} KiB, int8",
        plan,
        jpeg,
        reference,
        lambda: bare_script.judge_pair(session(), jpeg, decoded, 0.5),
    )


def beside_runtime(case: Case, folder: Path, frames: int) -> tuple[float, float, float]:
    """Measure a whole frame beside ONNX Runtime alone on a ready tensor, in turn.

    Returns:
        Medians in ms of the frame and of the runtime, and the median of their ratios.
    """
    plan = case.plan
    with GuestEngine(folder) as engine:
        model, second = load_models(plan)
        path = FramePath(plan, load_modules(engine, plan), model, PolicyState(), second)
        path.encoded.keep(_REFERENCE, ContentType(), case.reference)
        absent = (SignalValue(),) * len(plan.signals)
        request = Judge(0, ContentType(), (1 << 63) - 1, 0, _REFERENCE, absent)
        inputs = [aligned(spec) for spec in model.inputs]
        bound = model.bind(inputs, [aligned(spec) for spec in model.outputs])
        ours, alone = interleaved(
            frames, lambda: path.judge(path.decode(request, case.jpeg)), bound.run
        )
    return (
        round(statistics.median(ours), 3),
        round(statistics.median(alone), 3),
        round(statistics.median(a / b for a, b in zip(ours, alone, strict=True)), 3),
    )


def _measure(engine: GuestEngine, case: Case, frames: int) -> PathFigures:
    plan = case.plan
    model = OnnxModel.load(plan.model)
    modules = load_modules(engine, plan)
    path = FramePath(plan, modules, model, PolicyState())
    path.encoded.keep(_REFERENCE, ContentType(), case.reference)
    floor = _Floor(plan, model, case.jpeg)
    absent = (SignalValue(),) * len(plan.signals)
    request = Judge(0, ContentType(), (1 << 63) - 1, 0, _REFERENCE, absent)
    stages: list[dict[str, float]] = []

    def ours() -> None:
        stages.append(path.judge(path.decode(request, case.jpeg)).stage_ms)

    times = interleaved(frames, ours, case.bare, floor.run)
    ours_ms, bare_ms, floor_ms = (statistics.median(column) for column in times)
    return PathFigures(
        case=case.name,
        frames=frames,
        ours_ms=round(ours_ms, 3),
        bare_ms=round(bare_ms, 3),
        floor_ms=round(floor_ms, 3),
        ratio=round(statistics.median(a / b for a, b in zip(times[0], times[1], strict=True)), 3),
        over_floor=round(
            statistics.median(a / c for a, c in zip(times[0], times[2], strict=True)) - 1, 3
        ),
        stage_ms={
            name: round(statistics.median(each[name] for each in stages), 3) for name in stages[0]
        },
    )


class _Floor:
    """Decode into a ready buffer, run the model on a ready tensor; nothing else."""

    def __init__(self, plan: PipelinePlan, model: OnnxModel, jpeg: bytes) -> None:
        self._image = plan.image
        self._jpeg = jpeg
        self._pixels = np.zeros(plan.image.max_bytes, np.uint8)
        inputs = [aligned(spec) for spec in plan.model.inputs]
        inputs[0][:] = 1
        self._bound = model.bind(inputs, [aligned(spec) for spec in plan.model.outputs])

    def run(self) -> None:
        decode(self._jpeg, ContentType(), self._image, self._pixels)
        self._bound.run()


def interleaved(frames: int, *variants: Callable[[], object]) -> list[list[float]]:
    """Run the variants in turn, the order rotating; return milliseconds of each."""
    times: list[list[float]] = [[] for _ in variants]
    for variant in variants * 5:
        variant()
    order = list(range(len(variants)))
    for _ in range(frames):
        for number in order:
            began = time.perf_counter_ns()
            variants[number]()
            times[number].append((time.perf_counter_ns() - began) / 1e6)
        order.append(order.pop(0))
    return times


def _plan(
    model: Path, width: int, height: int, side: int, threads: int, threshold: float
) -> PipelinePlan:
    outputs = (1, 4 + detector.CLASSES, detector.anchors(side))
    return PipelinePlan(
        name="bench",
        deployment=DeploymentRef("bench", 1, ""),
        source="camera.bench",
        reference="",
        reference_slots=0,
        budget_ms=200,
        fail_safe=Kind.REVIEW,
        overflow=Overflow.LATEST,
        queue_frames=2,
        image=ImagePlan(PixelFormat.BGR, width, height),
        model=ModelPlan(
            str(model),
            hashlib.sha256(model.read_bytes()).hexdigest(),
            _CLASSES,
            (TensorSpec("image", "float32", (1, 3, side, side)),),
            (TensorSpec("output", "float32", outputs),),
            threads=threads,
        ),
        preprocess=_guest("letterbox", {}),
        postprocess=_guest("boxes", {"layout": "yolov8", "score": threshold, "iou": 0.45}),
        decide=_guest("policy", {"reject": 0.5, "review": 0.4}),
        drift=DriftPlan(learn_frames=600),  # as every deployment is watched that says nothing else
    )


def _guest(name: str, parameters: dict[str, Any]) -> GuestPlan:
    wasm = shipped(f"guests/{name}/{name}.wasm")
    digest = hashlib.sha256(wasm.read_bytes()).hexdigest()
    return GuestPlan(str(wasm), digest, memory_mib=64, call_ms=100, parameters=parameters)


def _threshold(session: Any, jpeg: bytes, side: int) -> float:
    """Return the score that `_FINDINGS` boxes of this frame exceed."""
    image = bare_script.read(jpeg, cv2.IMREAD_COLOR)
    output = session.run(None, {"image": bare_script.letterbox(image, side)})[0][0]
    return float(np.sort(output[4:].max(0))[-_FINDINGS])


def aligned(spec: TensorSpec) -> npt.NDArray[Any]:
    """Return a zeroed array as guest memory would place it."""
    size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    flat = np.zeros(size + 64, np.uint8)
    start = -flat.ctypes.data % 64
    return flat[start : start + size].view(spec.dtype).reshape(spec.shape)
