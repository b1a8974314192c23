"""Bytes of a repository: a web server, a bucket, a CDN, a folder or a USB stick, all alike.

Nothing here is trusted: what the bytes are worth is for `trust` and for digests to say. What is
held here is time: each request has a deadline for its answer, for the next byte, and a least rate
over any window, so that a server that drips holds nobody up.
"""

import contextlib
import os
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import urllib3

from edge.errors import AbsentError, ConfigError, TransportError

CHUNK_BYTES: Final = 64 << 10
_OK: Final = 200
_PARTIAL: Final = 206
_NOT_FOUND: Final = 404
_OUT_OF_RANGE: Final = 416


class Pace(NamedTuple):
    """How slow a server may be.

    Attributes:
        connect_s: Until a connection stands.
        silence_s: Between two arrivals of bytes.
        least_bytes_per_s: Mean over any `window_s`; below it the request is given up.
    """

    connect_s: float = 10.0
    silence_s: float = 20.0
    least_bytes_per_s: int = 1_024
    window_s: float = 30.0


UNHURRIED: Final = Pace()


class Stream(NamedTuple):
    """An answer under way.

    Attributes:
        offset: Where its first byte stands in the file: 0 where a server ignored the offset.
        chunks: The bytes; raises `TransportError` where the pace is not kept.
    """

    offset: int
    chunks: Iterator[bytes]


class Transport:
    """Reads files below one address.

    Args:
        base: `https://host/path`, `http://...`, `file:///folder` or a folder's path.
        tls: Authorities and client certificate; None: those of the system.
        pace: How slow a server may be.
        deadline_s: Instant of `time.monotonic` at which every request ends.

    Raises:
        ConfigError: The address is of a kind that is not read.
    """

    def __init__(
        self,
        base: str,
        tls: ssl.SSLContext | None = None,
        pace: Pace = UNHURRIED,
        deadline_s: float = float("inf"),
    ) -> None:
        parts = _parts(base)
        self._base = base.rstrip("/")
        self._folder: Path | None = None
        self._pace = pace
        self._deadline_s = deadline_s
        if parts.scheme in ("", "file") and not parts.netloc:
            self._folder = Path(unquote(parts.path) if parts.scheme else base).absolute()
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            raise _no_address(base)
        elif parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(  # not quoted: what is said here is logged
                "updates.repository",
                "its address carries a name, a password or a query",
                "a device proves who it is by updates.tls.certificate_file",
            )
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,
            ssl_context=tls,
            timeout=urllib3.Timeout(connect=pace.connect_s, read=pace.silence_s),
            headers={"Accept-Encoding": "identity", "User-Agent": "edge"},
        )
        self.received_bytes = 0

    @contextlib.contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        """Read a file from `offset` on.

        Args:
            path: Below the address, parts joined by `/`.
            offset: Bytes that the caller has already.

        Raises:
            AbsentError: There is no such file.
            TransportError: It cannot be read, or too slowly.
        """
        self._keep_deadline(f"{self._base}/{path}")
        source = (
            self._local(self._folder, path, offset) if self._folder else self._remote(path, offset)
        )
        with source as stream:
            yield Stream(stream.offset, self._paced(stream.chunks, f"{self._base}/{path}"))

    def read(self, path: str, max_bytes: int) -> bytes:
        """Return the whole of a small file.

        Raises:
            AbsentError: There is no such file.
            TransportError: It cannot be read, is too large, or comes too slowly.
        """
        content = bytearray()
        with self.open(path) as stream:
            for chunk in stream.chunks:
                content += chunk
                if len(content) > max_bytes:
                    raise TransportError(
                        f"{self._base}/{path}: is larger than {max_bytes} bytes, the most for it"
                    )
        return bytes(content)

    @contextlib.contextmanager
    def _local(self, folder: Path, path: str, offset: int) -> Iterator[Stream]:
        file = _open(folder / path)
        with file:
            file.seek(offset)
            yield Stream(offset, _chunks(file, folder / path))

    @contextlib.contextmanager
    def _remote(self, path: str, offset: int) -> Iterator[Stream]:
        url = f"{self._base}/{quote(path)}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            answer = self._pool.request(
                "GET",
                url,
                preload_content=False,
                redirect=False,
                headers={**self._pool.headers, **headers},
            )
        except urllib3.exceptions.HTTPError as failed:
            raise TransportError(f"{url}: no answer: {_words(failed)}") from failed
        try:
            yield Stream(_offset_of(answer, offset, url), _received(answer, url))
        finally:
            answer.close()  # not released: a rest that nobody wants is not read

    def _keep_deadline(self, what: str) -> None:
        if time.monotonic() > self._deadline_s:
            raise TransportError(f"{what}: the time for the whole update is over")

    def _paced(self, chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
        window_began, in_window = time.monotonic(), 0
        for chunk in chunks:
            now = time.monotonic()
            self.received_bytes += len(chunk)
            in_window += len(chunk)
            self._keep_deadline(what)
            if now - window_began >= self._pace.window_s:
                if in_window < self._pace.least_bytes_per_s * (now - window_began):
                    raise TransportError(
                        f"{what}: comes at {in_window / (now - window_began):.0f} bytes a second; "
                        f"given up below {self._pace.least_bytes_per_s}"
                    )
                window_began, in_window = now, 0
            yield chunk


def _parts(base: str) -> SplitResult:
    try:
        parts = urlsplit(base)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        raise _no_address(base) from None
    return parts


def _no_address(base: str) -> ConfigError:
    return ConfigError(
        "updates.repository",
        f"{base!r} is no address of a repository",
        "expected https://host/path, http://host/path, file:///folder or a folder",
    )


def _offset_of(answer: urllib3.BaseHTTPResponse, wanted: int, url: str) -> int:
    """Where an answer begins in the file."""
    if answer.status == _OK:
        return 0
    if answer.status == _PARTIAL and wanted:
        given = answer.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {wanted}-"):
            raise TransportError(f"{url}: asked from byte {wanted}, answered {given!r}")
        return wanted
    if answer.status == _OUT_OF_RANGE:
        return 0  # its file is shorter than what we have of it: begin anew
    if answer.status in (403, _NOT_FOUND):  # buckets say 403 for what is not there
        raise AbsentError(f"{url}: is not there (status {answer.status})")
    where = answer.headers.get("Location", "")
    raise TransportError(
        f"{url}: status {answer.status}" + (f", to {where!r}: name that one" if where else "")
    )


def _received(answer: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
    if answer.status == _OUT_OF_RANGE:
        return
    try:
        while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError as failed:
        raise TransportError(f"{url}: ended early: {_words(failed)}") from failed


def _open(path: Path) -> BinaryIO:
    try:
        # A stick may hold a pipe, at which an ordinary open would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise AbsentError(f"{path}: is not there") from None
    except OSError as failed:
        raise TransportError(f"{path}: cannot be read: {failed.strerror}") from failed
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TransportError(f"{path}: is no regular file")
    return os.fdopen(descriptor, "rb")


def _chunks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(CHUNK_BYTES)
        except OSError as failed:  # a stick that was pulled out
            raise TransportError(f"{path}: ended early: {failed.strerror}") from failed
        if not chunk:
            return
        yield chunk


def _words(failed: Exception) -> str:
    """The sentence of urllib3's error, without the address of its connection object."""
    reason = getattr(failed, "reason", None) or failed
    return str(reason).rpartition(">: ")[2] or type(failed).__name__
