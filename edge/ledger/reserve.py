"""The reserve: space set aside, given up to get out of a full disk.

A full disk may leave no room even for pruning. Then the reserve goes, what waits is committed, and
the operator is told; it is laid again as soon as there is room for it twice.
"""

import os
from pathlib import Path
from typing import Final

from edge.ledger.schema import sync_folder

NAME: Final = "reserve"
RESERVE_BYTES: Final = 4 << 20
"""A full WAL before its checkpoint (`schema.WAL_PAGES`)."""


class Reserve:
    """A file of allocated blocks.

    Args:
        folder: Of the ledger.
        size_bytes: Of the file; 0 sets nothing aside.
    """

    def __init__(self, folder: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._size_bytes = size_bytes

    @property
    def lies(self) -> bool:
        """Whether the space is set aside, or none was asked for."""
        if not self._size_bytes:
            return True
        try:
            return self._path.stat().st_blocks * 512 >= self._size_bytes
        except OSError:
            return False

    def lay(self) -> bool:
        """Set the space aside if there is room for it twice; return whether it lies."""
        if self.lies:
            return True
        try:
            room = os.statvfs(self._folder)
            if room.f_bavail * room.f_frsize < 2 * self._size_bytes:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(descriptor, 0, self._size_bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self._folder)
        except OSError:
            self.release()
            return False
        return self.lies

    def release(self) -> bool:
        """Give the space up; return whether there was any."""
        try:
            self._path.unlink()
            sync_folder(self._folder)
        except OSError:
            return False
        return True
