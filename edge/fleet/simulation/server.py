"""A static file server on loopback that counts what it is asked, as a bucket's access log would."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_BACKLOG = 1_024
_SILENCE_S = 30.0


class _Server(ThreadingHTTPServer):
    request_queue_size = _BACKLOG
    daemon_threads = True


class StaticServer:
    """Serves a folder at an address of its own, while `serving` lasts.

    Attributes:
        address: Of the folder.
        requests: That were answered.
    """

    def __init__(self, folder: Path) -> None:
        self.requests = 0
        self._counting = threading.Lock()
        handler = functools.partial(_Counted, self._count, directory=str(folder))
        self._server = _Server(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve while the block lasts."""
        thread = threading.Thread(target=self._server.serve_forever, name="static server")
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _count(self) -> None:
        with self._counting:
            self.requests += 1


class _Counted(SimpleHTTPRequestHandler):
    timeout = _SILENCE_S

    def __init__(self, count: Any, *arguments: Any, **named: Any) -> None:
        self._count = count
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        """Answer, and count."""
        self._count()
        with contextlib.suppress(ConnectionError):  # a device that had enough
            super().do_GET()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""
