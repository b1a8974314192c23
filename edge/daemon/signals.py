"""Signals as the supervisor keeps them: a bounded history of each, and its value as of an instant.

A camera and a sensor reach the broker at different times; what counts for a frame is what the
sensor said when the frame was captured.
"""

import math
import re
from bisect import bisect_left, bisect_right, insort
from typing import Any, Final, NamedTuple

import msgspec

from edge.config import Binding, ClockSection
from edge.contracts.plan import SignalGrant
from edge.contracts.signal import SignalState, SignalValue

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_LARGEST: Final = 1 << 1_000
"""Whole numbers up to this are finite as floats."""
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")  # RFC 6901, section 4
_SECONDS_BELOW: Final = 1e11
"""A time below this is in seconds (until the year 5138), above it in nanoseconds."""


class MalformedSignalError(ValueError):
    """A payload is not what its binding describes: a number, JSON with one, or Sparkplug B."""


class _Told(NamedTuple):
    """A value (None: from here on there is none), when it was measured, and when it came."""

    value: float | None
    measured_ns: int
    arrived_ns: int


class SignalHistory:
    """The last values of one signal, by their time; used on the event loop only."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._times: list[int] = []
        self._told: dict[int, _Told] = {}

    def __len__(self) -> int:
        return len(self._times)

    def add(
        self, time_ns: int, value: float | None, since_ns: int = 0, arrived_ns: int = 0
    ) -> None:
        """Add a value; one of the same instant is replaced, the oldest goes when it is full.

        Args:
            time_ns: UTC, when it was measured: its age is reckoned from here.
            value: None: from then on there is none.
            since_ns: UTC; it counts for no instant before, though it was measured earlier.
            arrived_ns: Monotonic; it is no younger than that, however the clock was set since.
        """
        at_ns = max(time_ns, since_ns)
        if at_ns not in self._told:
            insort(self._times, at_ns)
        self._told[at_ns] = _Told(value, time_ns, arrived_ns)
        if len(self._times) > self._capacity:
            del self._told[self._times.pop(0)]

    def end(self, time_ns: int) -> None:
        """Have no value from an instant on (UTC ns), also none that was said to be of later."""
        self._forget_from(bisect_left(self._times, time_ns))
        self.add(time_ns, None)

    def set_back(self, latest_ns: int) -> None:
        """Forget what is said to be of later than an instant (UTC ns) that is the latest there is.

        Without effect but where the clock was set back. Then these values would count for no frame
        until it has come so far again, and a full history would drop whatever comes as the oldest.
        """
        if self._times and self._times[-1] > latest_ns:
            self._forget_from(bisect_right(self._times, latest_ns))

    def as_of(self, instant_ns: int, max_age_ms: int, captured_ns: int = 0) -> SignalValue:
        """Return the last value at or before an instant, and how far to trust it.

        Args:
            instant_ns: UTC.
            max_age_ms: Up to which it is fresh.
            captured_ns: The same instant, monotonic: after the clock was set back, a sensor that
                had been dead before would else look fresh for as long as it was set back.
        """
        at = bisect_right(self._times, instant_ns)
        if at == 0:
            return SignalValue()
        told = self._told[self._times[at - 1]]
        if told.value is None:
            return SignalValue()
        age_ns = max(instant_ns - told.measured_ns, captured_ns - told.arrived_ns)
        return SignalValue(told.value, age_ns, _state(age_ns, max_age_ms))

    def _forget_from(self, at: int) -> None:
        for later in self._times[at:]:
            del self._told[later]
        del self._times[at:]


def as_granted(seen: SignalValue, grant: SignalGrant) -> SignalValue:
    """Return a value that was seen under another grant, as this one trusts it."""
    if seen.state is SignalState.ABSENT:
        return seen
    return SignalValue(seen.value, seen.age_ns, _state(seen.age_ns, grant.max_age_ms))


def _state(age_ns: int, max_age_ms: int) -> SignalState:
    return SignalState.FRESH if age_ns <= max_age_ms * _NS_PER_MS else SignalState.STALE


def believed(time_ns: int, clock: ClockSection, arrived_at_ns: int) -> bool:
    """Say whether a source's time (UTC ns) may be right."""
    oldest_ns = arrived_at_ns - clock.max_age_s * _NS_PER_S
    return oldest_ns <= time_ns <= latest_ns(clock, arrived_at_ns)


def latest_ns(clock: ClockSection, arrived_at_ns: int) -> int:
    """Return the latest time (UTC ns) that is believed of what arrives now."""
    return arrived_at_ns + clock.max_future_ms * _NS_PER_MS


def read(
    payload: bytes, binding: Binding, clock: ClockSection, arrived_at_ns: int, waited_ns: int = 0
) -> list[tuple[int, float]]:
    """Read a signal's payload: a number, JSON with a pointer to one, or an array of samples.

    Args:
        payload: As it came, already within the size limit.
        binding: Says where in the JSON the value and its time are.
        clock: When a time is believed.
        arrived_at_ns: UTC; by it a value's time is believed or not: values from a far future would
            count for no frame, and push out those that do.
        waited_ns: How long it may have waited before. Values without a time that is believed are so
            much older than their arrival.

    Returns:
        (UTC ns, finite value) of each sample.

    Raises:
        MalformedSignalError: What was expected is not there.
    """
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise MalformedSignalError(f"not JSON: {broken}") from None
    samples = document if isinstance(document, list) else [document]
    if not samples:
        raise MalformedSignalError("an empty array of samples")
    return [_sample(sample, binding, clock, arrived_at_ns, waited_ns) for sample in samples]


def _sample(
    document: Any, binding: Binding, clock: ClockSection, arrived_at_ns: int, waited_ns: int
) -> tuple[int, float]:
    value = float(_number(_point(document, binding.pointer), binding.pointer))
    if not binding.time_pointer:
        return arrived_at_ns - waited_ns, value
    time = _number(_point(document, binding.time_pointer), binding.time_pointer)
    # In integers: a float has no room for today's nanoseconds.
    time_ns = int(time * _NS_PER_S) if abs(time) < _SECONDS_BELOW else int(time)
    if not believed(time_ns, clock, arrived_at_ns):
        time_ns = arrived_at_ns - waited_ns
    return time_ns, value


def _number(found: Any, pointer: str) -> int | float:
    if isinstance(found, int):  # a switch's true is 1
        if abs(found) <= _LARGEST:
            return found
    elif isinstance(found, float) and math.isfinite(found):
        return found
    # Containers may be deep and long: they are named by their kind.
    text = repr(found[:40]) if isinstance(found, str) else type(found).__name__
    raise MalformedSignalError(
        f"at {pointer or 'the root'!r} expected a finite number, found {text}"
    )


def _point(document: Any, pointer: str) -> Any:
    """Follow a JSON pointer (RFC 6901)."""
    found = document
    for raw in pointer.split("/")[1:]:
        token = raw.replace("~1", "/").replace("~0", "~")
        try:
            if isinstance(found, list) and _INDEX.fullmatch(token):
                found = found[int(token)]
            else:
                found = found[token]
        except (KeyError, IndexError, TypeError):
            raise MalformedSignalError(f"nothing at {pointer!r}: {token!r} is missing") from None
    return found
