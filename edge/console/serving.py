"""The page served: a socket, a bounded HTTP/1.1 server, and the broker's listener beside it."""

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge.config import DeviceConfig
from edge.console.app import Page, Say, application
from edge.console.guard import Guard, Sessions
from edge.console.live import Live
from edge.console.snapshots import Snapshots
from edge.errors import ConfigError

MAX_CONNECTIONS: Final = 64
HEAD_S: Final = 10.0
"""To say a request; a browser's idle connection is closed after it, too."""
ANSWER_S: Final = 150.0
"""For a request and its answer, the longest that `edge.console.guard` allows among them; who reads
slower loses the connection."""
MAX_HEAD_BYTES: Final = 16 << 10
MIN_TOKEN_CHARS: Final = 16
MAX_TOKEN_CHARS: Final = 256
_GOODBYE_S: Final = 2
_OTHERS_MAY: Final = 0o007
_MAKING: Final = "head -c 24 /dev/urandom | base64"

log = structlog.get_logger("edge.console")


class Options(NamedTuple):
    """How the page is served.

    Attributes:
        host: An address of this machine.
        port: 0: a free one.
        state: The state directory.
        token: What a visitor must know; empty: nothing, which only loopback may.
        names: Host names that it may be asked by.
    """

    host: str
    port: int
    state: Path
    token: str = ""
    names: frozenset[str] = frozenset()


class BoundedProtocol(H11Protocol):
    """A connection whose waiting has an end, however slowly its other end speaks or reads."""

    _timer: asyncio.TimerHandle | None = None
    _was_busy: bool | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Take it, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            log.warning("console_full", connections=len(self.connections))
            transport.abort()
        else:
            self._wait(transport)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._wait(self.transport)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, transport: asyncio.Transport) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy == self._was_busy:
            return  # what dribbles in does not move the end
        self._was_busy = busy
        self._since = self.loop.time()
        self._set_timer(transport, ANSWER_S if busy else HEAD_S)

    def _set_timer(self, transport: asyncio.Transport, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(after_s, self._expire, transport)

    def _expire(self, transport: asyncio.Transport) -> None:
        reads_on = not self._was_busy and transport.get_write_buffer_size()
        if reads_on and self.loop.time() - self._since < ANSWER_S:
            self._set_timer(transport, HEAD_S)  # the answer is given, and is still being read
        else:
            transport.abort()


class _Server(uvicorn.Server):
    """A server whose end is ours to say: uvicorn would raise the signal again, and exit by it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none, but where this is the program's main thread."""
        ours = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if ours else ()
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True


def read_token(path: Path) -> str:
    """Return the token in a file's first line.

    Raises:
        ConfigError: It cannot be read, others may read it, or the token is too short.
    """
    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(MAX_TOKEN_CHARS + 2).strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as failed:
        why = failed.strerror if isinstance(failed, OSError) else "it is no text"
        remedy = f"make one: (umask 077; {_MAKING} >FILE)"
        raise ConfigError("--token-file", f"{path} cannot be read: {why}", remedy) from failed
    if mode & _OTHERS_MAY:
        raise ConfigError("--token-file", f"{path} may be read by everybody", "chmod 600 it")
    if not MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS or not token.isprintable():
        raise ConfigError(
            "--token-file",
            f"the first line of {path} has {len(token)} characters",
            f"expected {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS}: {_MAKING}",
        )
    return token


def check(options: Options) -> None:
    """Refuse to be reachable from elsewhere without a token.

    Raises:
        ConfigError: The address is none, or is not loopback and there is no token.
    """
    try:
        address = ipaddress.ip_address(options.host)
    except ValueError as wrong:
        raise ConfigError("--listen", str(wrong), "expected e.g. 127.0.0.1:8680") from wrong
    if not address.is_loopback and not options.token:
        raise ConfigError(
            "--listen",
            f"{options.host} can be reached from other machines, and anybody could look and speak",
            "give --token-file too, or listen on 127.0.0.1 behind a proxy that asks who comes",
        )


async def serve(
    settings: DeviceConfig,
    options: Options,
    say: Say | None,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the page until SIGTERM, SIGINT, or cancelled.

    Args:
        settings: The device config.
        options: How.
        say: Tells the daemon what a person says; None: the page only shows.
        on_ready: Called with the page's address when it can be asked.

    Raises:
        ConfigError: `options` do not fit, or the address cannot be listened on.
    """
    check(options)
    listening = _listening(options)
    host, port = listening.getsockname()[:2]
    sessions = Sessions(options.token)
    snapshots = Snapshots(options.state)
    live = Live(settings)
    page = application(Page(settings, options.state, live, snapshots, sessions, say))
    server = _Server(
        uvicorn.Config(
            Guard(page, sessions, options.names),
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(HEAD_S),
            timeout_graceful_shutdown=_GOODBYE_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            backlog=MAX_CONNECTIONS,
        )
    )
    hearing = asyncio.create_task(live.run(), name="live")
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="page")
    try:
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{port}/")
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        hearing.cancel()
        await asyncio.wait((serving, hearing))
        await snapshots.close()
        listening.close()


def _listening(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
        # From here on who connects waits in the kernel until it is answered.
        listening.listen(MAX_CONNECTIONS)
    except OSError as failed:
        listening.close()
        raise ConfigError(
            "--listen",
            f"{options.host}:{options.port}: {failed.strerror}",
            "ports below 1024 are root's: choose another"
            if failed.errno == errno.EACCES
            else "another program may listen there: choose another port",
        ) from failed
    return listening
