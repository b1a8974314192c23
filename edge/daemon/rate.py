"""Rates that are held: at most so many in any 60 seconds; so many a second with a burst."""

from collections import deque
from typing import Final

_MINUTE_NS: Final = 60_000_000_000


class Rate:
    """At most `max_per_minute` admissions in any 60 seconds; 0: none."""

    def __init__(self, max_per_minute: int) -> None:
        self._max_per_minute = max_per_minute
        self._done_ns: deque[int] = deque()

    def admit(self, now_ns: int) -> bool:
        """Whether one more fits; if so, it counts."""
        while self._done_ns and now_ns - self._done_ns[0] >= _MINUTE_NS:
            self._done_ns.popleft()
        if len(self._done_ns) >= self._max_per_minute:
            return False
        self._done_ns.append(now_ns)
        return True


class Bucket:
    """At most `per_s` admissions a second in the long run, and `burst` at once (a token bucket).

    Args:
        per_s: Above 0.
        burst: What may come at once after a pause; a second's worth by default, at least 1.
    """

    def __init__(self, per_s: float, burst: float | None = None) -> None:
        self._per_ns = per_s / 1e9
        self._burst = max(1.0, per_s if burst is None else burst)
        self._credit = self._burst
        self._since_ns = 0

    def admit(self, now_ns: int) -> bool:
        """Whether one more fits; if so, it counts.

        Args:
            now_ns: Monotonic; an instant before the last one gives no credit.
        """
        if self._since_ns:
            gained = max(0, now_ns - self._since_ns) * self._per_ns
            self._credit = min(self._burst, self._credit + gained)
        self._since_ns = max(now_ns, self._since_ns)
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
