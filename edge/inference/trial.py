"""A model's trial on this box: loaded, run and measured in a process of its own, with limits.

This module is the side that asks. It imports no engine: whoever uses it stays as it was, whatever
the model does. The side that loads and runs is `edge.inference.trial_process`.
"""

import math
import signal
import subprocess
import sys
from typing import Final, TypeVar

import msgspec

from edge.contracts.plan import ModelPlan
from edge.errors import TrialError

EXIT_REFUSED: Final = 3
"""The model is at fault; the last line on stderr says how."""
RUNS: Final = 50
WALL_S: Final = 120.0
MEMORY_MIB: Final = 4_096
"""Address space on the CPU provider; the reference model's process takes 700 MiB of it."""
MAX_SENTENCE: Final = 2_000
_MODULE: Final = "edge.inference.trial_process"
_OFFER_S: Final = 60.0

Answer = TypeVar("Answer")


class GoldenFile(msgspec.Struct, frozen=True):
    """A golden input kept as a NumPy file; its digest is checked before it is read."""

    name: str
    path: str
    sha256: str


class GoldenInput(msgspec.Struct, frozen=True):
    """What a golden run is given: files, or where there are none the pattern of a seed."""

    seed: int = 0
    files: tuple[GoldenFile, ...] = ()


class Distance(msgspec.Struct, frozen=True):
    """How far numbers lie from those that were expected; an infinite one is told as -1."""

    max_abs: float
    mean_abs: float


class GoldenOutput(msgspec.Struct, frozen=True):
    """What one output of a golden run held.

    Attributes:
        sha256: Of its bytes, C order, little endian.
        sample: Up to 64 of its elements, evenly spread from the first to the last.
        largest: Largest absolute value.
        from_cpu: Distance of all its elements from this box's CPU provider; None: it is that.
    """

    name: str
    sha256: str
    sample: tuple[float, ...]
    largest: float
    from_cpu: Distance | None = None


class Placed(msgspec.Struct, frozen=True):
    """A node of the graph as it ran, and where."""

    name: str
    operator: str
    provider: str


class Request(msgspec.Struct, frozen=True):
    """What the process is to do; JSON on its standard input."""

    plan: ModelPlan
    runs: int = RUNS
    wall_s: float = WALL_S
    memory_mib: int = MEMORY_MIB
    seed: int = 7
    golden: tuple[GoldenInput, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """What it found; JSON on its standard output.

    Attributes:
        provider: The one that truly ran the model.
        placement: Nodes of the optimised graph by provider.
        load_ms: Screening, parsing and optimising.
        first_ms: The first run, which some providers use to build an engine.
        p50_ms: Of the runs after three warm ones; so are p99 and max.
        bare_mib: Resident memory with ONNX Runtime imported and no model.
        resident_mib: The highest resident memory.
        repeatable: Whether the same input gave the same outputs again, bit for bit.
        not_finite: Outputs that held NaN or infinity.
        runtime: Version of ONNX Runtime.
        nodes: The graph as it ran, node by node; the first 10,000.
        engines: What became of compiled engines: `built`, `reused`, why not kept, or empty.
        golden: Outputs of each golden input, in the request's order.
    """

    provider: str
    placement: dict[str, int]
    threads: int
    runs: int
    load_ms: float
    first_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bare_mib: float
    resident_mib: float
    repeatable: bool
    not_finite: tuple[str, ...]
    runtime: str
    nodes: tuple[Placed, ...] = ()
    engines: str = ""
    golden: tuple[tuple[GoldenOutput, ...], ...] = ()

    def findings(self) -> list[str]:
        """Say what speaks against running this model here; empty where nothing does."""
        found = []
        if not self.repeatable:
            found.append(
                "the same input gave other outputs the second time: verdicts could not be "
                "replayed (does the graph hold a random operator?)"
            )
        found += [
            f"output {name} held NaN or infinity for an ordinary input" for name in self.not_finite
        ]
        return found


def trial(request: Request) -> Report:
    """Try a model in a process of its own.

    Raises:
        TrialError: The model is refused, does not load or run, takes more time or memory than
            allowed, or ended its process; the message says which.
    """
    return ask("try", msgspec.json.encode(request), request, request.plan.path, Report)


def ask(what: str, content: bytes, request: Request, where: str, answer: type[Answer]) -> Answer:
    """Hand a request to the process with limits, and return its answer.

    Args:
        what: `try` or `contest`.
        content: The request as JSON.
        request: Whose limits hold.
        where: Names the model in errors.
        answer: What comes back.

    Raises:
        TrialError: As of `trial`.
    """
    try:
        done = subprocess.run(
            # -I: neither the working folder nor the environment decides what is imported.
            [sys.executable, "-I", "-m", _MODULE, what],
            input=content,
            capture_output=True,
            timeout=request.wall_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialError(f"{where}: did not finish within {request.wall_s:g} s") from None
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=answer)
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    last = lines[-1][:MAX_SENTENCE]
    if done.returncode == EXIT_REFUSED:
        raise TrialError(last if where in last else f"{where}: {last}")
    raise TrialError(f"{where}: {_outcome(done.returncode, last, request)}")


def offered(wall_s: float = _OFFER_S) -> list[str]:
    """Return the short names of the providers that this ONNX Runtime offers.

    Raises:
        TrialError: ONNX Runtime cannot be imported.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", _MODULE, "offered"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=wall_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialError(f"ONNX Runtime did not start within {wall_s:g} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise TrialError(f"ONNX Runtime does not start: {lines[-1][:MAX_SENTENCE]}")
    return msgspec.json.decode(done.stdout, type=list[str])


def cpu_seconds(request: Request) -> int:
    """Return the CPU time granted: all its threads for the whole time."""
    return math.ceil(request.wall_s * (request.plan.threads + 1))


def _outcome(status: int, last: str, request: Request) -> str:
    """Say why the process failed."""
    if status == -signal.SIGXCPU:
        return f"took more than {cpu_seconds(request)} s of CPU and was stopped"
    if status == -signal.SIGKILL:
        return "its process was killed: the system may be out of memory"
    if status == -signal.SIGABRT or "MemoryError" in last or "bad_alloc" in last:
        return f"took more than {request.memory_mib} MiB and was stopped ({last})"
    if status < 0:
        return f"crashed its process with {signal.Signals(-status).name}"
    return f"its process ended with status {status}: {last}"
