"""Signals: named streams of sensor values, and one value as of an instant."""

from enum import StrEnum

import msgspec


class SignalState(StrEnum):
    """Whether a signal's value may be relied upon at the instant asked for."""

    ABSENT = "absent"
    FRESH = "fresh"
    STALE = "stale"


class SignalValue(msgspec.Struct, frozen=True):
    """A signal as of a frame's capture.

    Attributes:
        value: The last value at or before capture; 0.0 where absent.
        age_ns: Capture time minus the value's time, never negative.
        state: Fresh, older than the grant allows, or absent: never seen, or its source is dead.
    """

    value: float = 0.0
    age_ns: int = 0
    state: SignalState = SignalState.ABSENT
