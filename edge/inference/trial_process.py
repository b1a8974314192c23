"""The process of a trial: `python -I -m edge.inference.trial_process try < request > report`.

With `contest` in the place of `try` it measures variants in turn, and with `offered` it names the
providers of this ONNX Runtime.

Loads the model as a worker does, runs it on random input, and measures. The limits are the
kernel's: a crash, a hang or a blow-up of native code ends this process and nothing else.
"""

import os
import resource
import sys
import time
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edge.errors import EdgeError
from edge.inference.contest import Contest, Standings
from edge.inference.contest_run import run_contest
from edge.inference.golden import golden_outputs
from edge.inference.model import Bound, OnnxModel
from edge.inference.pattern import random_inputs
from edge.inference.provider import short
from edge.inference.trial import (
    EXIT_REFUSED,
    MAX_SENTENCE,
    Placed,
    Report,
    Request,
    cpu_seconds,
)

Array = npt.NDArray[Any]

WARM_RUNS: Final = 3
MAX_NODES: Final = 10_000
_NICENESS: Final = 5
MAX_ENGINE_BYTES: Final = 4 << 30
"""Largest file that a provider may write: an engine that it keeps."""
_POISON: Final = 0xA5
"""Lies in the outputs before a compared run: an output that is not written differs by it."""


def limit(request: Request) -> None:
    """Bound this process. An accelerator's driver reserves address space freely: no limit there."""
    os.nice(_NICENESS)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, cpu_seconds(request))
    if request.plan.provider == "cpu":
        _lower(resource.RLIMIT_AS, request.memory_mib << 20)
        _lower(resource.RLIMIT_FSIZE, 0)
    else:
        _lower(resource.RLIMIT_FSIZE, MAX_ENGINE_BYTES)
    if request.plan.provider == "openvino":
        _lower(
            resource.RLIMIT_DATA, request.memory_mib << 20
        )  # what it fills, not what it reserves


def _lower(what: int, most: int) -> None:
    _, given = resource.getrlimit(what)
    bound = most if given == resource.RLIM_INFINITY else min(most, given)
    resource.setrlimit(what, (bound, given))


def run_trial(request: Request) -> Report:
    """Load, run, measure.

    Raises:
        EdgeError: The model is refused or fails.
    """
    plan = request.plan
    bare_mib = _status_mib("VmRSS")
    began = time.perf_counter()
    model = OnnxModel.load(plan)
    load_ms = _since_ms(began)
    random = np.random.default_rng(request.seed)
    inputs = [np.zeros(spec.shape, spec.dtype) for spec in plan.inputs]
    outputs = [np.zeros(spec.shape, spec.dtype) for spec in plan.outputs]
    bound = model.bind(inputs, outputs)
    first = random_inputs(plan.inputs, random)
    second = random_inputs(plan.inputs, random)
    began = time.perf_counter()
    answer = _answer(bound, inputs, outputs, first)
    first_ms = _since_ms(began)
    _answer(bound, inputs, outputs, second)
    again = _answer(bound, inputs, outputs, first)
    for _ in range(WARM_RUNS):
        bound.run()
    times = []
    for _ in range(request.runs):
        began = time.perf_counter()
        bound.run()
        times.append(_since_ms(began))
    p50, p99 = np.quantile(times, (0.5, 0.99))
    resident_mib = _status_mib("VmHWM")  # before the golden runs, which may load a second model
    finite = [array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs]
    return Report(
        provider=model.provider,
        placement=model.placement,
        threads=plan.threads,
        runs=request.runs,
        load_ms=round(load_ms, 1),
        first_ms=round(first_ms, 2),
        p50_ms=round(float(p50), 2),
        p99_ms=round(float(p99), 2),
        max_ms=round(max(times), 2),
        bare_mib=bare_mib,
        resident_mib=resident_mib,
        repeatable=answer == again,
        not_finite=tuple(
            spec.name for spec, fine in zip(plan.outputs, finite, strict=True) if not fine
        ),
        runtime=ort.__version__,
        nodes=tuple(Placed(*node) for node in model.nodes[:MAX_NODES]),
        engines=model.engines.outcome,
        golden=golden_outputs(request, bound, inputs, outputs),
    )


def _answer(
    bound: Bound, inputs: list[Array], outputs: list[Array], given: list[Array]
) -> list[bytes]:
    for array, values in zip(inputs, given, strict=True):
        np.copyto(array, values)
    for array in outputs:
        array.view(np.uint8).fill(_POISON)
    bound.run()
    return [array.tobytes() for array in outputs]


def _since_ms(began: float) -> float:
    return (time.perf_counter() - began) * 1e3


def _status_mib(key: str) -> float:
    """A figure of /proc/self/status, which has it in KiB (proc_pid_status(5))."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - one line is read
        for line in file:
            if line.startswith(f"{key}:"):
                return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def _serve(arguments: list[str], content: bytes) -> Report | Standings:
    if arguments == ["contest"]:
        contest = msgspec.json.decode(content, type=Contest)
        limit(contest.widest())
        return run_contest(contest)
    request = msgspec.json.decode(content, type=Request)
    limit(request)
    return run_trial(request)


def main(arguments: list[str]) -> int:
    """Serve one request."""
    # What native code prints to standard output must not mix with the answer.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    if arguments == ["offered"]:
        answer = msgspec.json.encode([short(name) for name in ort.get_available_providers()])
    else:
        content = sys.stdin.buffer.read()
        try:
            answer = msgspec.json.encode(_serve(arguments, content))
        except EdgeError as refused:
            sys.stderr.write("\n" + " ".join(str(refused).split())[:MAX_SENTENCE] + "\n")
            return EXIT_REFUSED
    with os.fdopen(answer_to, "wb") as file:
        file.write(answer)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # Native threads of a provider need no orderly end.
    os._exit(status)
