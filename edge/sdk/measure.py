"""How long a guest takes: its calls, and a cold start from compiled code: `edge guest bench`."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from edge.errors import GuestError
from edge.sdk import vectors
from edge.sdk.languages.language import cache_folder
from edge.sdk.session import Session
from edge.sdk.vectors import Vector
from edge.wasm.engine import GuestEngine, PolicyModule
from edge.wasm.guest import Guest

_SECONDS: Final = 0.3
"""Measured for each vector, at most; enough for a median that repeats."""
_SECONDS_SEEN: Final = 0.1
"""Likewise, where the slow calls are asked for and not the median."""
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


class Cost(msgspec.Struct, frozen=True):
    """The dearest call of a role that was seen.

    Attributes:
        p99_us: Microseconds within which 99 of 100 calls of the slowest vector came back, with the
            host's checks and copies, on this machine and with what else it had to do.
        fuel: The most that one call took, about one a Wasm instruction; 0: it was not counted.
    """

    role: str
    p99_us: float
    fuel: int


def new_engine() -> GuestEngine:
    """An engine whose compiled guests are kept for this user: a script takes seconds to compile."""
    return GuestEngine(cache_folder("guests") / "compiled")


def load(
    engine: GuestEngine, file: Path, memory_mib: int, *, metered: bool = False
) -> PolicyModule:
    """Load a guest as what it is: its author trusts the file.

    Args:
        engine: Where it is loaded.
        file: The Wasm file.
        memory_mib: The most memory that it may have.
        metered: Whether its calls count fuel; a script's are not counted.

    Raises:
        EdgeError: The host refuses it, or it cannot be read.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return engine.load_policy(file, digest, memory_mib, metered=metered)


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


def call_fuel(metered: PolicyModule, vector: Vector, call_ms: int) -> list[int]:
    """Fuel of each call of a vector, in order, on an instance of its own.

    Raises:
        GuestError: A call failed that should not.
    """
    session = Session(metered, vector, call_ms)
    if not isinstance(session.guest, Guest):
        return []
    used = []
    for call in vector.calls:
        session.prepare(call)
        try:
            session.answer(call)
        except GuestError:
            if not call.expect.error:
                raise
        used.append(session.guest.fuel_used)
    return used


def costs(
    engine: GuestEngine, file: Path, folder: Path, *, memory_mib: int, call_ms: int
) -> list[Cost]:
    """The dearest call of each role over all vectors of a folder.

    Raises:
        EdgeError: The guest or a vector cannot be used.
    """
    module = load(engine, file, memory_mib)
    metered = load(engine, file, memory_mib, metered=True)
    dearest: dict[str, Cost] = {}
    for vector in map(vectors.read, vectors.files(folder)):
        if vector.refused or vector.role not in module.roles:
            continue
        took = call_times(Session(module, vector, call_ms), _SECONDS_SEEN) or [0]
        fuel = max(call_fuel(metered, vector, call_ms), default=0) if metered.metered else 0
        known = dearest.get(vector.role, Cost(vector.role, 0, 0))
        p99_us = max(known.p99_us, sorted(took)[len(took) * 99 // 100] / 1e3)
        dearest[vector.role] = Cost(vector.role, p99_us, max(known.fuel, fuel))
    return list(dearest.values())
