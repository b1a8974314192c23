"""Judge rendered boards by the whole frame path, and write what came of each as a JSON line.

    python judge_boards.py BOARDS CACHE > verdicts.jsonl

Run by the Python of either architecture, with an installed edge and nothing else: decode, guests,
model, policy, on one thread. BOARDS has `NNN.jpg` and its `NNN.reference.jpg`.
"""

import json
import platform
import sys
from pathlib import Path

from msgspec.structs import replace

from edge import config
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.deployment.folder import load_folder, plans
from edge.errors import FrameError
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_modules
from edge.shipped import path as shipped
from edge.wasm.engine import GuestEngine

CONFIG = {
    "inference": {"threads": 1},
    "bindings": {
        "camera": {"top": "frame"},
        "reference": {"top": "reference"},
        "signal": {"lamp": "lamp"},
        "action": {"reject": "reject"},
    },
}


SLOWNESS = 100
"""An emulated processor is so much slower, and budgets are wall time: they are widened by it."""


def _patient(plan: PipelinePlan) -> PipelinePlan:
    """The plan, with time for an emulated processor."""
    slowed = {
        role: replace(getattr(plan, role), call_ms=getattr(plan, role).call_ms * SLOWNESS)
        for role in ("preprocess", "postprocess", "decide")
    }
    return replace(plan, **slowed)


def main(boards: Path, cache: Path) -> int:
    """Judge every board of a folder, in the order of names."""
    (plan,) = plans(load_folder(shipped("models/pcb/deployment")), config.parse(CONFIG, "arm"))
    plan = _patient(plan)
    with GuestEngine(cache) as engine:
        path = FramePath(
            plan, load_modules(engine, plan), OnnxModel.load(plan.model), PolicyState()
        )
        for number, image in enumerate(sorted(boards.glob("[0-9]*[0-9].jpg"))):
            reference = image.with_suffix(".reference.jpg").read_bytes()
            path.encoded.keep(image.stem, ContentType(), reference)
            absent = (SignalValue(),) * len(plan.signals)
            request = Judge(number, ContentType(), (1 << 63) - 1, 0, image.stem, absent)
            try:
                judged = path.judge(path.decode(request, bytearray(image.read_bytes())))
            except FrameError as failed:
                sys.stdout.write(json.dumps({"board": image.stem, "error": str(failed)}) + "\n")
                continue
            found = {
                "board": image.stem,
                "machine": platform.machine(),
                "verdict": str(judged.verdict),
                "reason": str(judged.reason),
                "score": judged.score,
                "defects": [
                    [each.label, each.score, [round(side, 2) for side in each.box]]
                    for each in judged.defects
                ],
            }
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
