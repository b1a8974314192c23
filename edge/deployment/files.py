"""Pinned files: read below one root, bounded, hashed, and never through a link.

Obligations of `verify` and `read`, in their order:
 1. the path is relative and stays below the root (no `..`, no absolute path);
 2. no part of it is a symbolic link: a pinned folder is whole by itself;
 3. it is a regular file (a FIFO would block, a device never end);
 4. it is no larger than its kind may be;
 5. its SHA-256 is the pinned one.
What happens between this check and the use of the file is the user's part: whoever opens it again
compares the digest again.
"""

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from edge.errors import DeploymentError, UntrustedError

_CHUNK_BYTES: Final = 1 << 20
_REMEDY: Final = "fetch the deployment anew, or run `python -m edge.deployment.pin` on your own"

_HEADS: Final = {
    "manifest.toml": "a deployment is a folder with its manifest: docs/deployments.md",
    "model.toml": "a model is a folder with its card: docs/models.md",
}
"""Where these are missing, the folder is another one than was meant."""


def verify(root: Path, path: str, sha256: str, max_bytes: int) -> Path:
    """Check a pinned file and return its absolute path.

    Raises:
        UntrustedError: Its digest is not the pinned one.
        DeploymentError: It is missing, no regular file, too large, or outside of `root`.
    """
    with _open(root, path, max_bytes) as file:
        digest = hashlib.sha256()
        left = max_bytes
        while chunk := file.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise _too_large(root / path, max_bytes)
            digest.update(chunk)
    _compare(root / path, sha256, digest.hexdigest())
    return root / path


def read(root: Path, path: str, max_bytes: int, sha256: str | None = None) -> bytes:
    """Return the whole of a file; with `sha256`, the very bytes that were checked.

    Raises:
        UntrustedError: Its digest is not the pinned one.
        DeploymentError: It is missing, no regular file, too large, or outside of `root`.
    """
    with _open(root, path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(root / path, max_bytes)
    if sha256 is not None:
        _compare(root / path, sha256, hashlib.sha256(content).hexdigest())
    return content


def _open(root: Path, path: str, max_bytes: int) -> BinaryIO:
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts:  # 1
        raise DeploymentError(f"{root}: {path!r} does not stay below the deployment folder")
    here = root
    try:
        for part in parts:  # 2
            here /= part
            if here.is_symlink():
                raise DeploymentError(
                    f"{here}: is a symbolic link; a deployment folder holds its files itself"
                )
        handle = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as denied:
        raise DeploymentError(f"{here}: cannot be read: {denied.strerror}") from denied
    except OSError as failed:
        if not root.is_dir():
            what = "is no folder" if root.exists() else "there is no such folder"
            raise DeploymentError(f"{root}: {what}") from failed
        remedy = _HEADS.get(path, _REMEDY) if isinstance(failed, FileNotFoundError) else _REMEDY
        raise DeploymentError(f"{here}: cannot be read: {failed.strerror} ({remedy})") from failed
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):  # 3
            raise DeploymentError(f"{here}: is not a regular file")
        if status.st_size > max_bytes:  # 4
            raise _too_large(here, max_bytes)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _too_large(path: Path, max_bytes: int) -> DeploymentError:
    return DeploymentError(f"{path}: is larger than {max_bytes} bytes, the most for its kind")


def _compare(path: Path, expected: str, found: str) -> None:
    if found != expected:  # 5
        raise UntrustedError(
            f"{path}: is not the file that was pinned: expected sha256 {expected}, "
            f"found {found} ({_REMEDY})"
        )
