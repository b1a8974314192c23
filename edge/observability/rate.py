"""How many a second: read off a counter, by whoever looks at it now and then."""

from collections.abc import Callable
from typing import Final

SPAN_S: Final = 5.0


class Rate:
    """The pace of a count that only rises. Owned by one thread.

    Args:
        clock: Monotonic seconds.
        count: As it stands at the beginning.
    """

    def __init__(self, clock: Callable[[], float], count: int = 0) -> None:
        self._clock = clock
        self._recent = self._earlier = (clock(), count)

    def per_s(self, count: int) -> float:
        """Return the events a second over the last five seconds, or since the look before those.

        Args:
            count: As it stands now.
        """
        now = self._clock()
        if now - self._recent[0] >= SPAN_S:
            self._earlier, self._recent = self._recent, (now, count)
        began, before = self._earlier
        return (count - before) / (now - began) if now > began else 0.0
