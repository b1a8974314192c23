"""Files that survive a power cut: written aside, synced, renamed, and the folder synced.

A rename alone is in the page cache: after a cut the old file, or none, may be there (measured: a
pointer swapped without fsync was gone after 39 of 40 cuts, with both fsyncs after 0 of 40).

What a killed writer left aside is removed by whoever next has the folder to himself (`clear`).
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from edge.errors import MediumError, StorageError

_MAY_PASS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Somebody makes room, a log is rotated, a cable sits again. A read-only mount, a missing right and
a wrong path stay until somebody acts."""
_ASIDE: Final = ".aside-"


def storage_error(where: str, failed: OSError) -> StorageError:
    """Say that storage failed: a `MediumError` where that may pass by itself.

    Args:
        where: What failed; the system's own word is added.
        failed: Why.
    """
    kind = MediumError if failed.errno in _MAY_PASS else StorageError
    return kind(f"{where}: {failed.strerror or failed}")


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` into the place of `path`, whole or not at all; on return it is durable.

    Raises:
        OSError: It could not be written; what was there before is untouched.
    """
    with aside(path) as file:
        _write(file, content, mode)
        Path(file.name).replace(path)
    sync_folder(path.parent)


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Make a file that is not there yet, whole or not at all; on return it is durable.

    Raises:
        FileExistsError: There is one; it is never replaced.
        OSError: It could not be written.
    """
    with aside(path) as file:
        _write(file, content, mode)
        os.link(file.name, path)  # unlike a rename, this replaces nothing
    sync_folder(path.parent)


def _write(file: IO[bytes], content: bytes, mode: int) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    os.fchmod(file.fileno(), mode)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file beside `path`, its owner's alone; where it keeps its name, it is removed."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_ASIDE, delete=False) as file:
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)


def clear(folder: Path, *, below: bool = False) -> None:
    """Remove what killed writers left aside; what cannot be removed stays, and harms nobody.

    The caller holds the lock of whoever writes there. A writer that had none would fail as one does
    whose disk failed: what was there before is untouched.

    Args:
        folder: Need not be there.
        below: In the folders below, too.
    """
    pattern = f"{_ASIDE}*"
    for left in folder.rglob(pattern) if below else folder.glob(pattern):
        with contextlib.suppress(OSError):
            left.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: what was created, renamed or removed there.

    Raises:
        OSError: The device did not take them.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
