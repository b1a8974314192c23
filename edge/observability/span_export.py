"""Spans on their way to a collector: a bounded queue and a thread of its own, off the frame path.

A trace is a sample: what does not fit the queue, and what the collector does not take, is counted
and gone. The secret and the certificates are read anew for each connection, so that rotating them
needs no restart. Proxies of the environment are not used, redirects not followed.
"""

import queue
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog
import urllib3

from edge.observability import otlp
from edge.observability.counters import Counters
from edge.observability.tracing import Span, Value

log = structlog.get_logger("edge.observability")

MAX_WAITING: Final = 256
"""Bundles of spans: of a frame the judgement with its stages, its publication, its record."""
MAX_BUNDLES: Final = 64
"""In one request: 64 KiB at most."""
GATHER_S: Final = 1.0
_CONNECT_S: Final = 3.0
_ANSWER_S: Final = 5.0
_POOL_S: Final = 600.0
"""A connection is not used longer, so that a certificate that was renewed is taken up."""
_MAX_SECRET_BYTES: Final = 8 << 10

Bundle = tuple[Span, ...]


class SpanExport:
    """Sends spans to one collector by OTLP over HTTP.

    Args:
        endpoint: Where to POST them, with its path.
        resource: Who says it.
        version: Of the product.
        counters: The daemon's.
        authorization_file: Its first line becomes the `Authorization` header.
        tls: Makes the context of a connection by https; raises `ConfigError` or `OSError`.
    """

    def __init__(
        self,
        endpoint: str,
        resource: Mapping[str, Value],
        version: str,
        counters: Counters,
        authorization_file: Path | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._resource = resource
        self._version = version
        self._counters = counters
        self._authorization_file = authorization_file
        self._tls = tls
        self._waiting: queue.Queue[Bundle | None] = queue.Queue(MAX_WAITING)
        self._ending = threading.Event()
        self._pool: urllib3.PoolManager | None = None
        self._pool_until = 0.0
        self._trouble = ""
        # Not waited for at the exit of the process: a collector that hangs would hold it up.
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def offer(self, bundle: Bundle) -> None:
        """Send spans some time; from any thread, never waits."""
        try:
            self._waiting.put_nowait(bundle)
        except queue.Full:
            self._counters.count("spans_dropped", len(bundle), cause="queue full")

    def close(self, grace_s: float) -> None:
        """Send what waits, `grace_s` at the longest."""
        self._ending.set()
        try:
            self._waiting.put(None, timeout=grace_s)
        except queue.Full:
            return
        self._thread.join(grace_s)

    def _run(self) -> None:
        while True:
            bundles = self._gather()
            if bundles:
                self._send([span for bundle in bundles for span in bundle])
            if self._ending.is_set() and self._waiting.empty():
                return

    def _gather(self) -> list[Bundle]:
        """Wait for the first, then a moment for those that follow it: frames come in rows."""
        found: list[Bundle] = []
        until = 0.0
        while len(found) < MAX_BUNDLES:
            try:
                left_s = max(0.0, until - time.monotonic()) if found else None
                bundle = self._waiting.get(timeout=left_s)
            except queue.Empty:
                break
            if bundle is None:
                break
            until = until or time.monotonic() + GATHER_S
            found.append(bundle)
        return found

    def _send(self, spans: list[Span]) -> None:
        trouble = ""
        try:
            body = otlp.request(self._resource, self._version, spans)
            answer = self._connections().request(
                "POST",
                self._endpoint,
                body=body,
                headers=self._headers(),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            answer.close()  # what it says beside its status is of no use here, and may be endless
            if answer.status != 200:  # noqa: PLR2004 - HTTP's OK: OTLP/HTTP, "Full Success"
                trouble = f"{self._endpoint} answered {answer.status}"
        except Exception as failed:  # noqa: BLE001 - whatever it is, it must not end the thread
            trouble = f"{self._endpoint}: {type(failed).__name__}"
        if trouble:
            self._pool = None
            self._counters.count("spans_dropped", len(spans), cause="not sent")
        else:
            self._counters.count("spans_sent", len(spans))
        if bool(trouble) != bool(self._trouble):
            if trouble:
                log.warning("spans_not_sent", detail=trouble)
            else:
                log.info("spans_sent_again", endpoint=self._endpoint)
        self._trouble = trouble

    def _connections(self) -> urllib3.PoolManager:
        now = time.monotonic()
        if self._pool is None or now > self._pool_until:
            self._pool = urllib3.PoolManager(
                num_pools=1,
                maxsize=1,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=_ANSWER_S),
                ssl_context=self._tls() if self._tls else None,
            )
            self._pool_until = now + _POOL_S
        return self._pool

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": otlp.CONTENT_TYPE}
        if self._authorization_file is not None:
            with self._authorization_file.open("rb") as file:
                first, *_ = file.read(_MAX_SECRET_BYTES).splitlines() or [b""]
            headers["Authorization"] = first.decode("ascii").strip()
        return headers
