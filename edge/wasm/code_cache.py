"""Compiled guests on disk: each compiled once on this device, in a bounded process.

A `.cwasm` file is native code, and wasmtime believes it. So only what this host compiled itself
is loaded: from a folder that no one else can write, under a name that says what it is,
`<wasm sha256>-<wasmtime version>-<target and configuration>.<sha256 of the file>.cwasm`. The
file's own digest stands in the name, so one atomic rename brings both: a cut between file and
sidecar cannot happen, and a damaged entry is found, removed and compiled again.
"""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from edge.errors import IncompatibleError, StorageError, UntrustedError
from edge.wasm.code import Code
from edge.wasm.compile import EXIT_REFUSED, MAX_SENTENCE
from edge.wasm.sandbox import fingerprint

_PRIVATE_FOLDER: Final = 0o700
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class CompileLimits:
    """What one compilation may take. A 1.2 MB guest takes 1 s of CPU on a desktop core.

    Attributes:
        cpu_s: Seconds of CPU, the start of the process included.
        wall_s: Seconds by the clock, where the machine is busy.
        memory_mib: Address space; the bare process takes 64 MiB, 20,000 functions 280.
        output_mib: Size of the native code.
    """

    cpu_s: int = 60
    wall_s: float = 180.0
    memory_mib: int = 1024
    output_mib: int = 128


class CodeCache:
    """The folder of compiled guests.

    Args:
        folder: Made if absent, mode 0700.
        limits: Of one compilation.
        max_bytes: Beyond these the entries that were not used for longest are removed.
        code: How modules are compiled: other code of the same module.

    Raises:
        UntrustedError: The folder is another user's, or others may write to it.
        StorageError: It cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        limits: CompileLimits | None = None,
        max_bytes: int = 512 << 20,
        *,
        code: Code = Code.PLAIN,
    ) -> None:
        self._folder = folder
        self._limits = limits or CompileLimits()
        self._max_bytes = max_bytes
        self._suffix = f"-{version('wasmtime')}-{fingerprint(code)}"
        self._code = code
        try:
            folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot make the guest cache: {error}") from error
        _refuse_foreign(folder, os.stat(folder))  # noqa: PTH116 - the target of a link counts

    @contextmanager
    def native_code(self, wasm: bytes, digest: str, name: str) -> Iterator[Path]:
        """Give a file with the module's native code, compiling it where there is none.

        Args:
            wasm: The module, already checked against `digest`.
            digest: Its sha256 in hex.
            name: The guest's name, for errors.

        Yields:
            A path that leads to the very file whose digest was verified, while the context is
            open.

        Raises:
            IncompatibleError: The module is invalid, or compiling it takes more than the limits.
            StorageError: The cache cannot be written.
        """
        descriptor = self._find(digest)
        if descriptor is None:
            try:
                descriptor = self._compile(wasm, digest, name)
            except OSError as error:
                raise StorageError(
                    f"{self._folder}: cannot store compiled guest {name}: {error}"
                ) from error
        try:
            # Not by name: between check and use a name can come to mean another file.
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def discard(self, digest: str) -> None:
        """Remove a module's entries: wasmtime did not accept them."""
        for path in self._entries(digest):
            path.unlink(missing_ok=True)

    def _entries(self, digest: str) -> list[Path]:
        return sorted(self._folder.glob(f"{digest}{self._suffix}.*.cwasm"))

    def _find(self, digest: str) -> int | None:
        """Open a whole, trustworthy entry; remove those that are not."""
        for path in self._entries(digest):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                path.unlink(missing_ok=True)
                continue
            try:
                _refuse_foreign(path, os.fstat(descriptor))
                expected = path.name.removesuffix(".cwasm").rpartition(".")[2]
                if _file_sha256(descriptor) == expected:
                    with suppress(OSError):  # a read-only cache still serves
                        os.utime(descriptor)
                    return descriptor
            except UntrustedError:
                pass
            os.close(descriptor)
            path.unlink(missing_ok=True)
        return None

    def _compile(self, wasm: bytes, digest: str, name: str) -> int:
        """Compile aside, make it durable, rename it into place."""
        descriptor, aside = tempfile.mkstemp(prefix=f"{digest[:16]}-", dir=self._folder)
        try:
            self._run_compiler(wasm, descriptor, name)
            os.fsync(descriptor)
            own = _file_sha256(descriptor)
            path = self._folder / f"{digest}{self._suffix}.{own}.cwasm"
            os.replace(aside, path)  # noqa: PTH105
            _sync_folder(self._folder)
        except BaseException:
            os.close(descriptor)
            Path(aside).unlink(missing_ok=True)
            raise
        self._prune(keep=path)
        return descriptor

    def _run_compiler(self, wasm: bytes, output: int, name: str) -> None:
        limits = self._limits
        numbers = (limits.cpu_s, limits.memory_mib, limits.output_mib, self._code)
        # -I: neither the working folder nor the environment decides what is imported.
        command = [sys.executable, "-I", "-m", "edge.wasm.compile", *map(str, numbers)]
        try:
            done = subprocess.run(
                command,
                input=wasm,
                stdout=output,
                stderr=subprocess.PIPE,
                timeout=limits.wall_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise IncompatibleError(
                f"guest {name}: compiling it took longer than {limits.wall_s:g} s and was stopped"
            ) from None
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise IncompatibleError(
                f"guest {name}: {_outcome(done.returncode, lines[-1][:MAX_SENTENCE], limits)}"
            )

    def _prune(self, keep: Path) -> None:
        """Remove what was not used for longest, and what a cut left aside."""
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):  # another worker may prune at the same time
                status = path.stat()
                found.append((path != keep, -status.st_mtime_ns, status.st_size, path))
        total = 0
        for _, _, size, path in sorted(found):
            total += size
            if total > self._max_bytes and path != keep:
                with suppress(OSError):
                    path.unlink()


def _outcome(code: int, last_line: str, limits: CompileLimits) -> str:
    """Say why the compile process failed."""
    if code == EXIT_REFUSED:
        return last_line
    if code == -signal.SIGXCPU:
        return f"compiling it took more than {limits.cpu_s} s of CPU and was stopped"
    if code == -signal.SIGKILL:
        return "the compile process was killed: the system may be out of memory"
    if code == -signal.SIGXFSZ or "File too large" in last_line:
        return f"its native code is larger than {limits.output_mib} MiB"
    if code == -signal.SIGABRT or "MemoryError" in last_line:
        return f"compiling it took more than {limits.memory_mib} MiB and was stopped ({last_line})"
    return f"the compile process ended with status {code}: {last_line}"


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    owner = os.geteuid()
    if status.st_uid != owner:
        raise UntrustedError(
            f"{path}: native code is loaded only from this user's own files: "
            f"owner is uid {status.st_uid}, expected {owner}"
        )
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise UntrustedError(
            f"{path}: others may write to it (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"native code is loaded only from files that they cannot: chmod go-w"
        )


def _file_sha256(descriptor: int) -> str:
    """Digest of an open file, from its start; its position does not change."""
    digest = hashlib.sha256()
    offset = 0
    while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
