"""What a crop costs: cut, prepared, judged and read, beside ONNX Runtime alone on ready batches.

On the reference cascade and a board with as many findings as it looks at. One thread.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edge.bench.frame_path import aligned, board_case, interleaved
from edge.contracts.frame import ContentType
from edge.pipeline.decode import decode
from edge.pipeline.refine import batches
from edge.pipeline.stages import Stages, load_models, load_modules
from edge.wasm.engine import GuestEngine
from edge.wasm.roles import DEFECT

DEPLOYMENT: Final = Path(__file__).parents[2] / "models" / "pcb_kinds" / "deployment"
"""In a checkout; the wheel brings the deployment of one model alone."""
_SIDE_PX: Final = 30
"""Of a finding: as large as a board's defects are."""


class CropFigures(msgspec.Struct, frozen=True):
    """What was measured; medians, of one crop.

    Attributes:
        crops: In a frame.
        crop_us: All of it.
        runtime_us: ONNX Runtime alone, in batches of the same size.
        to_runtime: Median of the ratios.
    """

    crops: int
    crop_us: float
    runtime_us: float
    to_runtime: float


def measure(rounds: int) -> CropFigures:
    """Measure the second model's way in turn with its bare inference."""
    case = board_case(1, DEPLOYMENT)
    plan, refine = case.plan, case.plan.refine
    assert refine is not None, "the deployment is a cascade"
    with (
        tempfile.TemporaryDirectory(prefix="edge-bench-") as folder,
        GuestEngine(Path(folder)) as engine,
    ):
        model, second = load_models(plan)
        assert second is not None
        stages = Stages(plan, load_modules(engine, plan), model, second)
        assert stages.refiner is not None
        frame, reference = stages.finder.frame_slots[0], stages.finder.reference_slots[0]
        for slot, payload in ((frame, case.jpeg), (reference, case.reference)):
            slot.set_size(*decode(payload, ContentType(), plan.image, slot.pixels))
        found = np.zeros(refine.max_crops, DEFECT)
        drawn = np.random.default_rng(1).uniform(0, frame.width - _SIDE_PX, (len(found), 2))
        found["x0"], found["y0"] = drawn.T
        found["x1"], found["y1"] = drawn.T + _SIDE_PX
        found["score"] = np.linspace(1, 0.5, len(found))
        refiner = stages.refiner
        inputs, outputs = ([aligned(each) for each in s] for s in (second.inputs, second.outputs))
        bound = second.bind(inputs, outputs)
        runs = sum(1 for _ in batches(len(found), (refine.batch,)))

        def alone() -> None:
            for _ in range(runs):
                bound.run()

        whole, bare = interleaved(
            rounds,
            lambda: refiner.run(found, frame, reference, lambda _stage: None, lambda _done: None),
            alone,
        )
    per_crop = 1e3 / len(found)
    return CropFigures(
        crops=len(found),
        crop_us=round(statistics.median(whole) * per_crop, 1),
        runtime_us=round(statistics.median(bare) * per_crop, 1),
        to_runtime=round(statistics.median(a / b for a, b in zip(whole, bare, strict=True)), 2),
    )
