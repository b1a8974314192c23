"""How long a guest takes: its calls, and a cold start from compiled code: `edge guest bench`."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from edge.sdk import vectors
from edge.sdk.session import Session
from edge.wasm.engine import GuestEngine, PolicyModule

_SECONDS: Final = 0.3
"""Measured for each vector, at most; enough for a median that repeats."""
_MOST_CALLS: Final = 2000
_COLD_STARTS: Final = 9


class Timing(msgspec.Struct, frozen=True):
    """Medians of one vector.

    Attributes:
        call_us: Microseconds of a call on a warm instance, the host's checks and copies included.
        cold_ms: Milliseconds from the pinned file and its compiled code to the first answer:
            digests, native code, instance, configuration, set-up and the call.
        calls: How many calls were measured.
    """

    name: str
    role: str
    call_us: float
    cold_ms: float
    calls: int


def load(engine: GuestEngine, file: Path, memory_mib: int) -> PolicyModule:
    """Load a guest as what it is: its author trusts the file.

    Raises:
        EdgeError: The host refuses it, or it cannot be read.
    """
    return engine.load_policy(file, hashlib.sha256(file.read_bytes()).hexdigest(), memory_mib)


def timings(
    engine: GuestEngine, file: Path, folder: Path, *, memory_mib: int, call_ms: int
) -> Iterator[Timing]:
    """Measure each vector that makes calls, one after another.

    Raises:
        EdgeError: The guest or a vector cannot be used.
    """
    module = load(engine, file, memory_mib)
    for path in vectors.files(folder):
        vector = vectors.read(path)
        if vector.refused or vector.calls[0].expect.error:
            continue
        cold = []
        for _ in range(_COLD_STARTS):
            begun = time.perf_counter_ns()
            session = Session(load(engine, file, memory_mib), vector, call_ms)
            session.run(vector.calls[0])
            cold.append(time.perf_counter_ns() - begun)
        took = call_times(Session(module, vector, call_ms), _SECONDS)
        yield Timing(vector.name, vector.role, median(took) / 1e3, median(cold) / 1e6, len(took))


def call_times(session: Session, seconds: float) -> list[int]:
    """Nanoseconds of each call, the vector's calls in a row and again until the time is over.

    Calls that must fail are left out: a refusal is no work.

    Raises:
        GuestError: A call failed.
    """
    took: list[int] = []
    calls = [call for call in session.vector.calls if not call.expect.error]
    end = time.perf_counter() + seconds
    while calls and len(took) < _MOST_CALLS and (not took or time.perf_counter() < end):
        for call in calls:
            session.prepare(call)
            begun = time.perf_counter_ns()
            session.answer(call)
            took.append(time.perf_counter_ns() - begun)
    return took
