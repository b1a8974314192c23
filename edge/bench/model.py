"""What the reference model costs: its variants, the frame around it, and memory.

Three questions with a goal each: int8 beside fp32, the whole frame beside ONNX Runtime alone on a
ready tensor, and resident memory above an interpreter that has only imported ONNX Runtime.
`python -I -m edge.bench.model` is the process whose memory is measured.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from edge.bench import frame_path
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
    """

    int8_ms: float
    fp32_ms: float
    int8_to_fp32: float
    frame_ms: float
    runtime_ms: float
    frame_to_runtime: float
    above_bare_mib: float


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
    done = subprocess.run(
        [sys.executable, "-I", "-m", "edge.bench.model"], capture_output=True, check=True
    )
    bare = trial(Request(plan, 1)).bare_mib
    second = standings[-1]
    return ModelFigures(
        int8_ms=standings[0].p50_ms,
        fp32_ms=second.p50_ms if len(entries) > 1 else 0.0,
        int8_to_fp32=round(1 / second.ratio, 3) if len(entries) > 1 else 0.0,
        frame_ms=frame_ms,
        runtime_ms=runtime_ms,
        frame_to_runtime=ratio,
        above_bare_mib=round(json.loads(done.stdout) - bare, 1),
    )


def _resident_after_frames() -> float:
    """MiB of this process with the reference pipeline standing and frames judged."""
    case = frame_path.board_case(1)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        frame_path.beside_runtime(case, Path(folder), 1)  # compiles the guests into the cache
        frame_path.beside_runtime(case, Path(folder), _FRAMES)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / (1 << 20)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_resident_after_frames()))
