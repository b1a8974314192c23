"""How much a connection reads: at most so many packets a second, in slices, long ones with rests.

What is beyond waits in the kernel, then at the broker, which drops what it cannot deliver (QoS 0)
or waits for our acknowledgements (QoS 1). A sender that floods costs its neighbours on this
connection their time, and nobody else.
"""

import time
from collections.abc import Callable
from typing import Final

SLICE_NS: Final = 20_000_000
"""Short beside a frame's budget; a slice's packets are read in a few milliseconds, as a rule."""
ORDINARY_NS: Final = 100_000
"""What a packet may take without more; one with a number takes 40 us (two busy cores of x86-64)."""
SPARE_NS: Final = 5_000_000
"""What quick ones may leave to others: on a busy machine one in a hundred takes 200 us."""
REST: Final = 3
"""Times as long as what was taken beyond that. An array of samples that fills 64 KiB takes 60 ms:
ten of them a second would leave little of the loop's time to the frames."""


class Pace:
    """Packets that may be read now.

    Args:
        per_s: In the long run; at least one in each slice.
        clock: Monotonic nanoseconds.
        work: Nanoseconds that this thread has computed: what others take of a busy machine is not
            laid to a packet.
    """

    def __init__(
        self,
        per_s: float,
        clock: Callable[[], int] = time.monotonic_ns,
        work: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._each = max(1, round(per_s * SLICE_NS / 1e9))
        self._clock = clock
        self._work = work
        self._left = self._each
        self._slice_ends_ns = 0
        self._began_ns = self._paid_ns = 0
        self._spare_ns = SPARE_NS
        self._empty_ns = clock()
        self._behind = False

    def admit(self) -> bool:
        """Whether one more may be read now; if so, it counts, and `done` follows."""
        now_ns = self._clock()
        if now_ns >= self._slice_ends_ns:
            self._slice_ends_ns = now_ns + SLICE_NS
            self._left = self._each
        if not self._left or now_ns < self._paid_ns:
            self._behind = True
            return False
        self._left -= 1
        self._began_ns = self._work()
        return True

    def done(self) -> None:
        """What was admitted is read and dealt with; if it was long, a rest pays for that."""
        took_ns = self._work() - self._began_ns
        self._spare_ns = min(SPARE_NS, self._spare_ns + ORDINARY_NS - took_ns)
        if self._spare_ns < 0:
            self._paid_ns = self._clock() - REST * self._spare_ns
            self._spare_ns = 0

    def emptied(self) -> None:
        """Nothing waits to be read."""
        self._behind = False
        self._empty_ns = self._clock()

    @property
    def rest_s(self) -> float:
        """Until the next slice begins, or what was read is paid for."""
        until_ns = self._paid_ns if self._left else max(self._paid_ns, self._slice_ends_ns)
        return max(0, until_ns - self._clock()) / 1e9

    @property
    def waited_ns(self) -> int:
        """How long what is read now may have waited for us.

        Zero while all that comes is read at once. Else it came at some time since nothing waited.
        """
        return self._clock() - self._empty_ns if self._behind else 0
