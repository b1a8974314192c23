"""What the reference model costs: its variants, the frame around it, memory, and a second model.

Three questions with a goal each: int8 beside fp32, the whole frame beside ONNX Runtime alone on a
ready tensor, and what a worker process has resident above an interpreter that has only imported
ONNX Runtime; the worker is the daemon's own, started and fed as the daemon does it. In a checkout
also what the second model of the reference cascade adds: time of a crop, and memory.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from edge.bench import cascade, frame_path
from edge.contracts.frame import ContentType
from edge.contracts.messages import Failed, Judge, Judged, PolicyState
from edge.contracts.signal import SignalValue
from edge.daemon.references import Held
from edge.daemon.worker_memory import resident_mib
from edge.daemon.worker_process import WorkerProcess
from edge.errors import TrialError
from edge.inference.contest import Contest, Entry, contest

FP32: Final = Path(__file__).parents[2] / "models" / "pcb" / "model.onnx"
"""In a checkout; the wheel brings the int8 variant alone."""
SHARING: Final = 8
"""Pipelines: the cameras of a larger gateway."""
_FRAMES: Final = 30
_ANSWER_S: Final = 30.0
_WORKER_MIB: Final = 1024
_RESIDENT: Final = "import {}; print(open('/proc/self/statm').read().split()[1])"


class ModelFigures(msgspec.Struct, frozen=True):
    """What was measured; one thread, CPU.

    Attributes:
        int8_to_fp32: Median ratio; 0 where there is no fp32 variant.
        frame_to_runtime: Whole frame over ONNX Runtime alone, median of ratios.
        above_bare_mib: A worker after frames, all of it, above ONNX Runtime imported.
        loaded_mib: Of these, what came with the pipeline: session, guests and images. The rest are
            modules: OpenCV and Wasmtime above all.
        crop: Of the reference cascade; None where it is not here.
        second_model_mib: What its second model and guests add to the above.
        own_worker_mib: All of the worker: what each pipeline takes in one of its own.
        shared_worker_mib: All of a worker that `SHARING` pipelines of that model share.
    """

    int8_ms: float
    fp32_ms: float
    int8_to_fp32: float
    frame_ms: float
    runtime_ms: float
    frame_to_runtime: float
    above_bare_mib: float
    loaded_mib: float
    crop: cascade.CropFigures | None = None
    second_model_mib: float = 0.0
    own_worker_mib: int = 0
    shared_worker_mib: int = 0


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
    resident = _worker_mib(case)
    two_models = cascade.DEPLOYMENT.exists()
    second = standings[-1]
    return ModelFigures(
        int8_ms=standings[0].p50_ms,
        fp32_ms=second.p50_ms if len(entries) > 1 else 0.0,
        int8_to_fp32=round(1 / second.ratio, 3) if len(entries) > 1 else 0.0,
        frame_ms=frame_ms,
        runtime_ms=runtime_ms,
        frame_to_runtime=ratio,
        above_bare_mib=round(resident - _imported_mib("onnxruntime"), 1),
        loaded_mib=round(resident - _imported_mib("edge.worker.engine_loop"), 1),
        crop=cascade.measure(rounds) if two_models else None,
        second_model_mib=(
            _worker_mib(frame_path.board_case(1, cascade.DEPLOYMENT)) - resident
            if two_models
            else 0
        ),
        own_worker_mib=resident,
        shared_worker_mib=_worker_mib(case, SHARING),
    )


def _imported_mib(module: str) -> float:
    """MiB that an interpreter has resident once it has imported a module and no more."""
    command = [sys.executable, "-I", "-c", _RESIDENT.format(module)]
    done = subprocess.run(command, capture_output=True, check=True)
    return int(done.stdout) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _worker_mib(case: frame_path.Case, pipelines: int = 1) -> int:
    """MiB that a worker has resident once it has judged frames, for each pipeline that shares it.

    Its guests are compiled before, by another one, as they are on a device.
    """
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        asyncio.run(_judging_mib(case, Path(folder), 1, pipelines))
        return asyncio.run(_judging_mib(case, Path(folder), _FRAMES, pipelines))


async def _judging_mib(case: frame_path.Case, cache: Path, frames: int, pipelines: int) -> int:
    """MiB of a worker after so many frames of each pipeline.

    Raises:
        TrialError: It did not load, or did not answer.
        WorkerGoneError: It ended.
    """
    process = await WorkerProcess.spawn(_WORKER_MIB)
    seats = [process.seat(case.plan, len(case.reference)) for _ in range(pipelines)]
    try:
        for seat in seats:
            await seat.load(cache, PolicyState(), _ANSWER_S)
        answers: asyncio.Queue[Judged | Failed] = asyncio.Queue()
        reference = Held.of(ContentType(), case.reference)
        absent = (SignalValue(),) * len(case.plan.signals)
        for ticket in range(frames):
            for seat in seats:
                seat.on_answer = answers.put_nowait
                deadline_ns = time.monotonic_ns() + int(_ANSWER_S * 1e9)
                request = Judge(ticket, ContentType(), deadline_ns, 0, reference.key, absent)
                seat.judge(request, case.jpeg, reference)
                async with asyncio.timeout(_ANSWER_S):
                    answer = await answers.get()
                if isinstance(answer, Failed):
                    raise TrialError(f"a frame failed: {answer.reason}: {answer.detail}")
        return resident_mib(process.pid)
    finally:
        await process.end(grace_s=1)
