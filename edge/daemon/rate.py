"""A rate that is held: at most so many in any 60 seconds."""

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
