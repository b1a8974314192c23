"""A model file in ONNX Runtime on the CPU, and how long it takes."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def open_session(model: Path, threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU that does not spin between frames."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def outputs(session: ort.InferenceSession, tensor: NDArray[Any]) -> list[NDArray[Any]]:
    """All outputs of a model with one input, for one input tensor of its whole shape."""
    return list(session.run(None, {session.get_inputs()[0].name: tensor}))


def measure_latency(
    model: Path, tensors: Sequence[NDArray[Any]], runs: int = 200
) -> dict[str, Any]:
    """Milliseconds of one inference on one thread, over some inputs in turn."""
    session = open_session(model, threads=1)
    taken = []
    for run in range(runs + 10):
        started = time.perf_counter_ns()
        outputs(session, tensors[run % len(tensors)])
        taken.append((time.perf_counter_ns() - started) / 1e6)
    taken = taken[10:]
    return {
        "threads": 1,
        "p50_ms": round(float(np.percentile(taken, 50)), 2),
        "p95_ms": round(float(np.percentile(taken, 95)), 2),
        "min_ms": round(min(taken), 2),
        "machine": machine(),
    }


def machine() -> str:
    """The processor in words: what figures on another one should be compared with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    vnni = ", VNNI" if any("avx512_vnni" in line or "avx_vnni" in line for line in lines) else ""
    return f"{names[0] if names else platform.machine()}, {max(len(names), 1)} virtual CPUs{vnni}"
