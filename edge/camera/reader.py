"""The reading thread: paces a source, and brings it back when it is lost.

A folder is read on an absolute schedule. A live camera is read as fast as it runs, so that what
waits in its buffers stays young, and a picture is kept whenever one is due.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from edge.camera.picture import Picture, Source
from edge.errors import TransportError

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 10.0
STOP_S: Final = 15.0
"""Longer than the longest read: then the thread has seen that it is to stop."""

_log = structlog.get_logger("edge.camera")


class Reader:
    """Reads a source on a thread of its own until its end, or until it is stopped.

    Args:
        source: Owned by the thread from start to end.
        rate_hz: Pictures a second at most; infinite: each one.
        keep: Called on the thread with each picture.
        end: Called on the thread once, with None at the end of the source, or with why it was
            given up.
        give_up_s: How long a lost source is tried; without a picture for so long, it ends.
    """

    def __init__(
        self,
        source: Source,
        rate_hz: float,
        keep: Callable[[Picture], None],
        end: Callable[[Exception | None], None],
        give_up_s: float = 60.0,
    ) -> None:
        self._source = source
        self._period_s = 1.0 / rate_hz
        self._keep = keep
        self._end = end
        self._give_up_s = give_up_s
        self._stop = threading.Event()
        self._due = time.monotonic()
        self._alive_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self.losses = 0

    def start(self) -> None:
        """Begin to read."""
        self._due = self._alive_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; waits for a read that is under way, as long as it may take."""
        self._stop.set()
        self._source.interrupt()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            self._read_all()
        except Exception as failed:  # noqa: BLE001 - handed to the loop, which raises it
            failure = failed
        finally:
            self._source.close()
        self._end(failure)

    def _read_all(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            since = self._alive_at
            try:
                self._source.open()
                if self._read_on():
                    return
            except TransportError as lost:
                if not self._source.can_reopen:
                    raise
                if time.monotonic() - self._alive_at > self._give_up_s:
                    raise TransportError(
                        f"{lost} (no picture for {self._give_up_s:g} s: given up)"
                    ) from lost
                if self._alive_at > since:
                    pause_s = FIRST_PAUSE_S
                self.losses += 1
                _log.warning("camera-lost", source=self._source.title, reason=str(lost))
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _read_on(self) -> bool:
        """Read until the source's end (True) or until stopped (True); losses are raised."""
        while not self._stop.is_set():
            if self._source.is_live and time.monotonic() < self._due:
                if not self._source.skip():
                    return True
                self._alive_at = time.monotonic()
                continue
            if self._stop.wait(max(0.0, self._due - time.monotonic())):
                break
            picture = self._source.read()
            if picture is None:
                return True
            self._alive_at = time.monotonic()
            # After a gap the schedule goes on from now: missed pictures are not made up for.
            self._due = max(self._due + self._period_s, self._alive_at - self._period_s)
            self._keep(picture)
        return True
