"""The device's store: signed files by their digest, fetched once, kept while something needs them.

```
blobs/<sha256>          whole and verified
parts/<sha256>          begun; the next attempt goes on behind its last byte
deployments/<sha256>/   folders as `load_folder` takes them, named by their manifest's digest
```

A blob is whole because it is renamed into place only after its bytes were compared and synced. A
deployment's folder holds hard links to blobs, so that a file in two deployments lies there once;
it appears by one rename, and goes by one. Removing is by what is named to be kept, never by age.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge import durable
from edge.errors import AbsentError, StorageError, TransportError, UntrustedError

if TYPE_CHECKING:  # the daemon has a store, and carries no HTTP client
    from edge.deployment.transport import Transport

_ATTEMPTS: Final = 2
"""From the part that lies there, then once from the first byte."""
_RESERVE_BYTES: Final = 64 << 20
"""Left free on the device, for the ledger."""


class Store:
    """The store.

    Args:
        folder: Made where it is absent.
        quota_bytes: The most that blobs and parts may take.

    Raises:
        StorageError: The folder cannot be used.
    """

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self._blobs = folder / "blobs"
        self._parts = folder / "parts"
        self.deployments = folder / "deployments"
        self._quota_bytes = quota_bytes
        with _storage(folder):
            for each in (self._blobs, self._parts, self.deployments):
                each.mkdir(parents=True, exist_ok=True, mode=0o700)

    def holds(self, sha256: str) -> bool:
        """Whether the file lies here, whole."""
        return (self._blobs / sha256).is_file()

    def read(self, sha256: str, max_bytes: int) -> bytes:
        """Return a small file, compared with its digest again.

        Raises:
            UntrustedError: Its bytes are no longer those of its digest; it was removed.
            StorageError: It cannot be read, or is larger than `max_bytes`.
        """
        path = self._blobs / sha256
        with _storage(path):
            if path.stat().st_size > max_bytes:
                raise StorageError(f"{path}: is larger than {max_bytes} bytes")
            content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            path.unlink(missing_ok=True)
            raise UntrustedError(f"{path}: its bytes changed on the disk; it is fetched anew")
        return content

    def fetch(self, transport: "Transport", path: str, sha256: str, size_bytes: int) -> int:
        """Bring a file here, going on where an earlier attempt ended.

        Args:
            transport: Where it comes from.
            path: Its name there.
            sha256: What it must be.
            size_bytes: Its size; not one byte more is taken.

        Returns:
            Bytes that were received for it; 0 where it was here.

        Raises:
            TransportError: It did not come whole; what came is kept for the next attempt.
            UntrustedError: What came is something else.
            StorageError: There is no room, or the disk failed.
        """
        if self.holds(sha256):
            return 0
        self._make_sure_of_room(sha256, size_bytes)
        received = 0
        for attempt in range(_ATTEMPTS):
            came, digest = self._receive(transport, path, sha256, size_bytes)
            received += came
            if digest == sha256:
                with _storage(self._blobs):
                    (self._parts / sha256).rename(self._blobs / sha256)
                    durable.sync_folder(self._blobs)
                return received
            with _storage(self._parts):
                (self._parts / sha256).unlink(missing_ok=True)
            if came == size_bytes or attempt:  # all of it came now: the server's file is another
                break
        raise UntrustedError(
            f"{path}: what the repository sends is not the signed file: expected sha256 {sha256}, "
            f"found {digest}"
        )

    def _receive(
        self, transport: "Transport", path: str, sha256: str, size_bytes: int
    ) -> tuple[int, str]:
        """Append what is missing to the part; returns bytes received and the part's digest."""
        part = self._parts / sha256
        received = 0
        with _storage(part), part.open("ab") as file:
            offset = file.tell()
            if offset > size_bytes:
                file.truncate(0)
                offset = 0
            if offset < size_bytes:
                with _signed(), transport.open(path, offset) as stream:
                    if stream.offset != offset:
                        file.truncate(stream.offset)
                    left = size_bytes - stream.offset
                    for chunk in stream.chunks:
                        received += len(chunk)
                        left -= len(chunk)
                        if left < 0:
                            file.truncate(0)
                            raise UntrustedError(
                                f"{path}: the repository sends more than its {size_bytes} bytes"
                            )
                        file.write(chunk)
                file.flush()
                if left:
                    raise TransportError(f"{path}: ended {left} bytes early")
            os.fsync(file.fileno())
        with _storage(part):
            return received, _digest(part)

    def _make_sure_of_room(self, sha256: str, size_bytes: int) -> None:
        with _storage(self._parts):
            part = self._parts / sha256
            missing = size_bytes - (part.stat().st_size if part.exists() else 0)
            taken = self.bytes()
            room = os.statvfs(self._parts)
        if taken + missing > self._quota_bytes:
            raise StorageError(
                f"{self._parts.parent}: {taken} bytes are kept and {missing} more are needed; the "
                f"quota is {self._quota_bytes} (raise updates.store_bytes)"
            )
        if missing + _RESERVE_BYTES > room.f_bavail * room.f_frsize:
            raise StorageError(
                f"{self._parts.parent}: {missing} bytes are needed and {_RESERVE_BYTES} stay "
                f"free, but the disk has {room.f_bavail * room.f_frsize} left"
            )

    def bytes(self) -> int:
        """Bytes that blobs and parts take."""
        with _storage(self._blobs):
            return sum(
                entry.stat().st_size
                for folder in (self._blobs, self._parts)
                for entry in os.scandir(folder)
            )

    def assemble(self, digest: str, files: Mapping[str, str]) -> Path:
        """Make the folder of a deployment from blobs; one that stands already is taken.

        Args:
            digest: Of its manifest; the folder's name.
            files: SHA-256 of each file by its path below the folder.

        Raises:
            StorageError: A blob is not here, or the disk failed.
        """
        folder = self.deployments / digest
        if folder.is_dir():
            return folder
        aside = self.deployments / f".{digest}"
        with _storage(aside):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(mode=0o700)
            for path, sha256 in files.items():
                (aside / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (aside / path).hardlink_to(self._blobs / sha256)
            for each in sorted((each for each in aside.rglob("*") if each.is_dir()), reverse=True):
                durable.sync_folder(each)
            durable.sync_folder(aside)
            aside.rename(folder)
            durable.sync_folder(self.deployments)
        return folder

    def mend(self, digest: str, blobs: Collection[str]) -> int:
        """Remove the files whose bytes changed on the disk, and a deployment's folder with them.

        Args:
            digest: Of the deployment.
            blobs: Digests of the files to compare.

        Returns:
            How many were removed; they are fetched anew.

        Raises:
            StorageError: The disk failed.
        """
        removed = 0
        with _storage(self._blobs):
            for sha256 in blobs:
                path = self._blobs / sha256
                if path.exists() and _digest(path) != sha256:
                    path.unlink()
                    removed += 1
        if removed:
            self.forget(digest)
        return removed

    def assembled(self, digest: str) -> bool:
        """Whether a deployment's folder is there."""
        return (self.deployments / digest).is_dir()

    def forget(self, digest: str) -> None:
        """Remove a deployment's folder: what it holds is made anew from blobs, or fetched.

        Raises:
            StorageError: The disk failed.
        """
        with _storage(self.deployments):
            self._take_away(self.deployments / digest)
            durable.sync_folder(self.deployments)

    def collect(self, keep: Collection[str], blobs: Collection[str] = ()) -> int:
        """Remove what nothing needs.

        Args:
            keep: Digests of the deployments that stay: the active one, the previous, the candidate.
            blobs: Digests of files that stay beside theirs: those of a fetch under way.

        Returns:
            Bytes of the blobs and parts that were removed.

        Raises:
            StorageError: The disk failed.
        """
        freed = 0
        with _storage(self.deployments):
            for entry in list(os.scandir(self.deployments)):
                if entry.name not in keep:
                    self._take_away(Path(entry.path))
            for entry in list(os.scandir(self._blobs)):
                if entry.stat().st_nlink == 1 and entry.name not in blobs:
                    freed += entry.stat().st_size
                    Path(entry.path).unlink(missing_ok=True)
            for entry in list(os.scandir(self._parts)):
                if entry.name not in blobs:
                    freed += entry.stat().st_size
                    Path(entry.path).unlink(missing_ok=True)
            for folder in (self.deployments, self._blobs, self._parts):
                durable.sync_folder(folder)
        return freed

    def _take_away(self, folder: Path) -> None:
        """Remove a folder; it is gone at once, so that a kill in the midst leaves no half of it."""
        aside = folder
        if not folder.name.startswith(".") and folder.exists():
            aside = folder.with_name(f".{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _signed() -> Iterator[None]:
    try:
        yield
    except AbsentError as absent:
        raise TransportError(f"{absent}; yet it is signed: the repository is not whole") from absent


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        raise durable.storage_error(str(path), failed) from failed
