"""How much a connection reads: at most so many packets a second, in slices.

What is beyond waits in the kernel, then at the broker, which drops what it cannot deliver (QoS 0)
or waits for our acknowledgements (QoS 1). A sender that floods costs its neighbours on this
connection their time, and nobody else.
"""

import time
from collections.abc import Callable
from typing import Final

SLICE_NS: Final = 20_000_000
"""Short beside a frame's budget; a slice's packets are read in a few milliseconds at the most."""


class Pace:
    """Packets that may be read now.

    Args:
        per_s: In the long run; at least one in each slice.
        clock: Monotonic nanoseconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._each = max(1, round(per_s * SLICE_NS / 1e9))
        self._clock = clock
        self._left = self._each
        self._slice_ends_ns = 0
        self._empty_ns = clock()
        self._behind = False

    def admit(self) -> bool:
        """Whether one more may be read in this slice; if so, it counts."""
        now_ns = self._clock()
        if now_ns >= self._slice_ends_ns:
            self._slice_ends_ns = now_ns + SLICE_NS
            self._left = self._each
        if not self._left:
            self._behind = True
            return False
        self._left -= 1
        return True

    def emptied(self) -> None:
        """Nothing waits to be read."""
        self._behind = False
        self._empty_ns = self._clock()

    @property
    def rest_s(self) -> float:
        """Until the next slice begins."""
        return max(0, self._slice_ends_ns - self._clock()) / 1e9

    @property
    def waited_ns(self) -> int:
        """How long what is read now may have waited for us.

        Zero while all that comes is read at once. Else it came at some time since nothing waited.
        """
        return self._clock() - self._empty_ns if self._behind else 0
