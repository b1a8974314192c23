"""A limit on memory that the kernel holds: a control group of the test's own; needs root."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path("/sys/fs/cgroup")
_GONE_S: Final = 60.0
_LAYOUTS: Final = (
    (_ROOT / "memory", "memory.limit_in_bytes", "memory.oom_control"),  # version 1
    (_ROOT, "memory.max", "memory.events"),
)


class MemoryLimit:
    """The group.

    Args:
        group: Its folder.
        counts: Its file that counts kills.
    """

    def __init__(self, group: Path, counts: Path) -> None:
        self._procs = group / "cgroup.procs"
        self._counts = counts

    @property
    def words(self) -> tuple[str, ...]:
        """Before a command: has it run in the group, with all that it starts."""
        return ("sh", "-c", f'echo $$ > {self._procs} && exec "$@"', "sh")

    @property
    def kills(self) -> int:
        """How many processes the kernel has ended here for want of memory."""
        rows = dict(row.split() for row in self._counts.read_text().splitlines())
        return int(rows["oom_kill"])


def _remove(group: Path) -> None:
    """Remove a group as soon as the processes that were killed in it are gone."""
    end = time.monotonic() + _GONE_S
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)  # between two looks, until the deadline
        else:
            return


@contextlib.contextmanager
def memory_limit(mib: int) -> Iterator[MemoryLimit]:
    """A group of so many MiB; what runs in it must have ended before it is left."""
    for root, limit, counts in _LAYOUTS:
        group = root / f"edge-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(mib << 20))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield MemoryLimit(group, group / counts)
        finally:
            _remove(group)
        return
    pytest.skip("no control group for memory may be made here")
