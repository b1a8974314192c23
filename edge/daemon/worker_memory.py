"""A worker's resident memory, watched from outside and bounded.

The kernel's own limits do not fit: an address-space limit would count the 4 GiB that each guest
memory reserves and does not use, a data limit what is not touched either, and a control group is
the service manager's. So the supervisor looks at what is resident, a few times a second. A guest
that touches its grant for the first time gains some 0.4 MiB a millisecond, so a worker is over its
limit by 100 MiB at the most when it is found out (measured; docs/operations.md).
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.25
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_RESIDENT: Final = 1
"""Second field of /proc/PID/statm, pages (proc(5))."""
_OOM_SCORE: Final = "500"
"""Of -1000..1000: where the machine runs out of memory, the kernel ends a worker, which is
replaced, and not the supervisor, which answers for it."""


def resident_mib(pid: int) -> int:
    """Memory that a process has resident, MiB; 0 where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(fields[_RESIDENT]) * _PAGE_BYTES >> 20


def prefer_in_want(pid: int) -> None:
    """Have the kernel end this process before ours where memory runs out; a wish, no promise."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(_OOM_SCORE)


class MemoryWatch:
    """Looks at a process until it is stopped, or has found it too large. On the event loop.

    Args:
        pid: The process.
        limit_mib: What it may have resident.
        on_excess: Called once, with what it had.
    """

    def __init__(self, pid: int, limit_mib: int, on_excess: Callable[[int], None]) -> None:
        self._pid = pid
        self._limit_mib = limit_mib
        self._on_excess = on_excess
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = self._loop.call_later(LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        found_mib = resident_mib(self._pid)
        if found_mib > self._limit_mib:
            self._next = None
            self._on_excess(found_mib)
        else:
            self._next = self._loop.call_later(LOOK_S, self._look)
