"""Bounds on the log: a cause that repeats is said a few times, then seldom, with a count.

A line that fails does so twenty times a second, for hours: the counters hold every case, the log
holds what a person can read, and the disk holds the log.
"""

from collections.abc import Callable
from typing import Final

BURST: Final = 10
"""Lines of one cause that are written at once."""
INTERVAL_NS: Final = 5_000_000_000
"""After the burst, one line in so many nanoseconds."""
MAX_CAUSES: Final = 256
"""Causes told apart; they come from a closed list, but for the reasons that guests make up."""


class Throttle:
    """Says which occurrence of a cause is to be logged.

    Args:
        now_ns: The monotonic clock.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._credit: dict[str, tuple[float, int]] = {}
        self._unsaid: dict[str, int] = {}

    def admit(self, cause: str) -> int | None:
        """Return how many were kept back since the last line; None: this one is kept back too."""
        if cause not in self._credit and len(self._credit) >= MAX_CAUSES:
            cause = ""
        now_ns = self._now_ns()
        credit, since_ns = self._credit.get(cause, (float(BURST), now_ns))
        credit = min(float(BURST), credit + (now_ns - since_ns) / INTERVAL_NS)
        if credit < 1:
            self._credit[cause] = (credit, now_ns)
            self._unsaid[cause] = self._unsaid.get(cause, 0) + 1
            return None
        self._credit[cause] = (credit - 1, now_ns)
        return self._unsaid.pop(cause, 0)
