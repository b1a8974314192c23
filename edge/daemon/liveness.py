"""Whether every part of the daemon makes progress: what feeding systemd's watchdog depends on.

A part notes the instant whenever it comes round, also where it has nothing to do. One that has not
for longer than its patience is stuck; then the watchdog is not fed, and systemd replaces the whole
daemon. A patience is longer than anything that the part may lawfully wait for: a broker that is
away, a disk that is full, or a worker that is started anew are troubles, and no reason to restart.
"""

import time
from collections.abc import Callable
from typing import Final

LEDGER_S: Final = 60.0
"""A commit on a worn SD card takes seconds; its thread comes round each second otherwise."""
RECORDS_S: Final = 30.0
"""The outbox comes round each second, whether there is a broker or not."""
SESSION_S: Final = 30.0
"""Beyond the three waits for the broker's answers: the longest pause between two attempts, and
the 1 s tick of a connection that stands."""
FRAMES_S: Final = 10.0
"""Beyond `deadlines.hang_ms`: when a frame's verdict is long out, and its worker long replaced."""


class Liveness:
    """The parts that are watched.

    Args:
        now_s: The monotonic clock, in seconds.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._parts: dict[str, tuple[Callable[[], float], float]] = {}

    def watch(self, part: str, came_round_at: Callable[[], float], patience_s: float) -> None:
        """Watch a part.

        Args:
            part: Its name, for people.
            came_round_at: When it last did, in seconds of the clock.
            patience_s: How long ago that may be.
        """
        self._parts[part] = came_round_at, patience_s

    def stuck(self) -> list[str]:
        """Say which parts make no progress, and since when; none: all is well."""
        now_s = self._now_s()
        found = []
        for part, (came_round_at, patience_s) in self._parts.items():
            silent_s = now_s - came_round_at()
            if silent_s > patience_s:
                found.append(f"{part} for {silent_s:.0f} s (at most {patience_s:g} s may be)")
        return found
