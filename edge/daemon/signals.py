"""Signals as the supervisor keeps them: a bounded history of each, and its value as of an instant.

A camera and a sensor reach the broker at different times; what counts for a frame is what the
sensor said when the frame was captured.
"""

import math
from bisect import bisect_right, insort
from typing import Any, Final

import msgspec

from edge.config import Binding
from edge.contracts.signal import SignalState, SignalValue

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_SECONDS_BELOW: Final = 1e11
"""A time below this is in seconds (until the year 5138), above it in nanoseconds."""


class MalformedSignalError(ValueError):
    """A payload is not the number, or the JSON with a number, that its binding describes."""


class SignalHistory:
    """The last values of one signal, by their time; used on the event loop only."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._times: list[int] = []
        self._values: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time_ns: int, value: float) -> None:
        """Add a value; one of the same instant is replaced, the oldest goes when it is full."""
        if time_ns not in self._values:
            insort(self._times, time_ns)
        self._values[time_ns] = value
        if len(self._times) > self._capacity:
            del self._values[self._times.pop(0)]

    def as_of(self, instant_ns: int, max_age_ms: int) -> SignalValue:
        """Return the last value at or before an instant (UTC ns), and how far to trust it."""
        at = bisect_right(self._times, instant_ns)
        if at == 0:
            return SignalValue()
        time_ns = self._times[at - 1]
        age_ns = instant_ns - time_ns
        fresh = age_ns <= max_age_ms * _NS_PER_MS
        state = SignalState.FRESH if fresh else SignalState.STALE
        return SignalValue(self._values[time_ns], age_ns, state)


def read(payload: bytes, binding: Binding, arrived_at_ns: int) -> list[tuple[int, float]]:
    """Read a signal's payload: a number, JSON with a pointer to one, or an array of samples.

    Args:
        payload: As it came, already within the size limit.
        binding: Says where in the JSON the value and its time are.
        arrived_at_ns: UTC; the time of values that carry none.

    Returns:
        (UTC ns, finite value) of each sample.

    Raises:
        MalformedSignalError: What was expected is not there.
    """
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as broken:
        raise MalformedSignalError(f"not JSON: {broken}") from None
    samples = document if isinstance(document, list) else [document]
    if not samples:
        raise MalformedSignalError("an empty array of samples")
    return [_sample(sample, binding, arrived_at_ns) for sample in samples]


def _sample(document: Any, binding: Binding, arrived_at_ns: int) -> tuple[int, float]:
    value = _number(_point(document, binding.pointer), binding.pointer)
    if not binding.time_pointer:
        return arrived_at_ns, value
    time = _number(_point(document, binding.time_pointer), binding.time_pointer)
    return int(time * _NS_PER_S if abs(time) < _SECONDS_BELOW else time), value


def _number(found: Any, pointer: str) -> float:
    if isinstance(found, bool):
        return float(found)
    if not isinstance(found, int | float) or not math.isfinite(found):
        raise MalformedSignalError(
            f"at {pointer or 'the root'!r} expected a finite number, found {str(found)[:40]!r}"
        )
    return float(found)


def _point(document: Any, pointer: str) -> Any:
    """Follow a JSON pointer (RFC 6901)."""
    found = document
    for raw in pointer.split("/")[1:]:
        token = raw.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(token)] if isinstance(found, list) else found[token]
        except (KeyError, IndexError, ValueError, TypeError):
            raise MalformedSignalError(f"nothing at {pointer!r}: {token!r} is missing") from None
    return found
