"""What the reference model costs: its variants, the frame around it, memory, and a second model.

Three questions with a goal each: int8 beside fp32, the whole frame beside ONNX Runtime alone on a
ready tensor, and resident memory above an interpreter that has only imported ONNX Runtime. In a
checkout also what the second model of the reference cascade adds: time of a crop, and memory.
`python -I -m edge.bench.model [DEPLOYMENT]` is the process whose memory is measured.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from edge.bench import cascade, frame_path
from edge.inference.contest import Contest, Entry, contest
from edge.inference.trial import Request, trial

FP32: Final = Path(__file__).parents[2] / "models" / "pcb" / "model.onnx"
"""In a checkout; the wheel brings the int8 variant alone."""
_FRAMES: Final = 30


class ModelFigures(msgspec.Struct, frozen=True):
    """What was measured; one thread, CPU.

    Attributes:
        int8_to_fp32: Median ratio; 0 where there is no fp32 variant.
        frame_to_runtime: Whole frame over ONNX Runtime alone, median of ratios.
        above_bare_mib: Session, guests and decoders after frames, above ONNX Runtime imported.
        crop: Of the reference cascade; None where it is not here.
        second_model_mib: What its second model and guests add to the above.
    """

    int8_ms: float
    fp32_ms: float
    int8_to_fp32: float
    frame_ms: float
    runtime_ms: float
    frame_to_runtime: float
    above_bare_mib: float
    crop: cascade.CropFigures | None = None
    second_model_mib: float = 0.0


def measure(rounds: int) -> ModelFigures:
    """Measure all three."""
    case = frame_path.board_case(1)
    plan = case.plan.model
    entries = [Entry("int8", plan)]
    if FP32.exists():
        digest = hashlib.sha256(FP32.read_bytes()).hexdigest()
        entries.append(Entry("fp32", msgspec.structs.replace(plan, path=str(FP32), sha256=digest)))
    standings = contest(Contest(tuple(entries), rounds)).entries
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        frame_ms, runtime_ms, ratio = frame_path.beside_runtime(case, Path(folder), rounds)
    resident = _resident()
    bare = trial(Request(plan, 1)).bare_mib
    two_models = cascade.DEPLOYMENT.exists()
    second = standings[-1]
    return ModelFigures(
        int8_ms=standings[0].p50_ms,
        fp32_ms=second.p50_ms if len(entries) > 1 else 0.0,
        int8_to_fp32=round(1 / second.ratio, 3) if len(entries) > 1 else 0.0,
        frame_ms=frame_ms,
        runtime_ms=runtime_ms,
        frame_to_runtime=ratio,
        above_bare_mib=round(resident - bare, 1),
        crop=cascade.measure(rounds) if two_models else None,
        second_model_mib=round(_resident(cascade.DEPLOYMENT) - resident, 1) if two_models else 0.0,
    )


def _resident(*deployment: Path) -> float:
    """MiB of a process of its own, as `_resident_after_frames` says."""
    words = [sys.executable, "-I", "-m", "edge.bench.model", *map(str, deployment)]
    found: float = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return found


def _resident_after_frames(deployment: Path | None) -> float:
    """MiB of this process with a pipeline for boards standing and frames judged."""
    case = frame_path.board_case(1, deployment)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        frame_path.beside_runtime(case, Path(folder), 1)  # compiles the guests into the cache
        frame_path.beside_runtime(case, Path(folder), _FRAMES)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / (1 << 20)


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(_resident_after_frames(Path(sys.argv[1]) if sys.argv[1:] else None))
    )
