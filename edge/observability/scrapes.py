"""Where Prometheus fetches the figures: one small HTTP answer, bounded on every side.

Whoever connects cannot make a frame late: so many connections at once and so many a second, so
many bytes of a request, so many seconds for it, and one rendering a second however often it is
asked for. What does not fit waits in the kernel, or is closed and counted. HTTP/1.1, GET /metrics
and nothing else, one request a connection.
"""

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog

from edge.observability.counters import Counters
from edge.observability.exposition import CONTENT_TYPE

log = structlog.get_logger("edge.observability")

MAX_CONNECTIONS: Final = 4
PACE_S: Final = 0.05
"""Between two connections that are taken: twenty a second cost the loop 1 ms each."""
REQUEST_S: Final = 2.0
"""For a request and its answer; Prometheus takes milliseconds."""
MAX_REQUEST_BYTES: Final = 8 << 10
FRESH_S: Final = 1.0
_AGAIN_S: Final = 15.0
_BACKLOG: Final = 8
_SEND_BYTES: Final = 64 << 10


class Scrapes:
    """Answers scrapes, on the event loop.

    Args:
        listen: `address:port`, as `metrics.listen`; port 0: a free one.
        render: Makes the exposition.
        counters: The daemon's.

    Attributes:
        port: Where it listens; 0 while it does not.
    """

    def __init__(self, listen: str, render: Callable[[], bytes], counters: Counters) -> None:
        host, _, port = listen.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._render = render
        self._counters = counters
        self._rendered = (-FRESH_S, b"")
        self.port = 0

    async def serve(self) -> None:
        """Answer, until cancelled. A port that is taken is tried again: it stops no line."""
        while True:
            try:
                listener = self._listen()
            except OSError as failed:
                where = f"{self._address[0]}:{self._address[1]}"
                log.error("metrics_not_served", listen=where, detail=str(failed))
                await asyncio.sleep(_AGAIN_S)
                continue
            try:
                with listener:
                    await self._accept(listener)
            finally:
                self.port = 0

    def _listen(self) -> socket.socket:
        address = ipaddress.ip_address(self._address[0])
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        say = log.info if address.is_loopback else log.warning
        say(
            "metrics_served", listen=f"{self._address[0]}:{self.port}", open=not address.is_loopback
        )
        return listener

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        free = asyncio.Semaphore(MAX_CONNECTIONS)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await free.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as failed:  # no descriptor is left, or it was gone again
                    free.release()
                    self._counters.count("scrapes_refused", cause="accept")
                    log.warning("scrape_refused", detail=str(failed))
                else:
                    task = tasks.create_task(self._answer(connection))
                    task.add_done_callback(lambda _: free.release())
                await asyncio.sleep(PACE_S)

    async def _answer(self, connection: socket.socket) -> None:
        """Read one request, answer it, and close."""
        loop = asyncio.get_running_loop()
        with connection:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            try:
                async with asyncio.timeout(REQUEST_S):
                    request = await self._request(connection)
                    await loop.sock_sendall(connection, self._response(request))
                    # The rest of a request that we refused is read: a reset would eat the answer.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
            except TimeoutError:
                self._counters.count("scrapes_refused", cause="slow")
            except OSError:
                self._counters.count("scrapes_refused", cause="broken off")

    async def _request(self, connection: socket.socket) -> bytes:
        """Return the head of the request; empty where it is none, or too long."""
        loop = asyncio.get_running_loop()
        head = b""
        while b"\r\n\r\n" not in head:
            part = await loop.sock_recv(connection, MAX_REQUEST_BYTES)
            head += part
            if not part or len(head) > MAX_REQUEST_BYTES:
                return b""
        return head

    def _response(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        body, status = b"", ""
        if not version.startswith(b"HTTP/1."):
            status = "400 Bad Request"
        elif method not in (b"GET", b"HEAD"):
            status = "405 Method Not Allowed"
        elif target.partition(b"?")[0] != b"/metrics":
            status = "404 Not Found"
        else:
            body = self._figures()
            status = "200 OK" if body else "500 Internal Server Error"
        if not body:
            self._counters.count("scrapes_refused", cause=status[:3])
            body = f"{status}: figures are at /metrics\n".encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == b"HEAD" else body)

    def _figures(self) -> bytes:
        now = time.monotonic()
        if now - self._rendered[0] >= FRESH_S:
            self._rendered = (now, self._render())
        return self._rendered[1]
