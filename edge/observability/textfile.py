"""The figures as a file, for node_exporter's textfile collector: no port at all.

Replaced as a whole, so that a reader never finds half of it. It is not synced to the medium: after
a power cut the next one is written within seconds. A folder that cannot be written stops no line.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger("edge.observability")

_MODE: Final = 0o644
"""node_exporter is another user, whatever the service's umask."""


class Textfile:
    """Writes the file again and again.

    Args:
        path: Ends in `.prom`; node_exporter looks at no other.
        interval_s: Seconds between two.
        render: Makes the exposition.
    """

    def __init__(self, path: Path, interval_s: float, render: Callable[[], bytes]) -> None:
        self._path = path
        self._interval_s = interval_s
        self._render = render
        self._trouble = ""
        self._lock = threading.Lock()
        self._ended = False

    async def keep(self) -> None:
        """Write until cancelled; then the file goes, or it would tell of a dead daemon for ever."""
        try:
            while True:
                content = self._render()
                trouble = await asyncio.to_thread(self._write, content)
                if trouble != self._trouble:
                    self._trouble = trouble
                    if trouble:
                        log.error("metrics_not_written", detail=trouble)
                    else:
                        log.info("metrics_written", path=str(self._path))
                await asyncio.sleep(self._interval_s)
        finally:
            with self._lock, contextlib.suppress(OSError):
                self._ended = True
                self._path.unlink(missing_ok=True)

    def _write(self, content: bytes) -> str:
        """Replace the file; say why not."""
        aside = self._path.with_name(f".{self._path.name}.new")
        try:
            with self._lock:
                if self._ended:  # a cancelled wait leaves its thread running
                    return ""
                aside.write_bytes(content)
                aside.chmod(_MODE)
                aside.replace(self._path)
        except OSError as failed:
            return f"{self._path}: {failed.strerror}"
        return ""
