"""Spans to a real HTTP server."""

import asyncio
import time
from pathlib import Path

from brokers import until
from collectors import Collector, collecting
from structlog.testing import capture_logs

from edge.observability.counters import Counters
from edge.observability.span_export import MAX_WAITING, SpanExport
from edge.observability.tracing import Context, Span

SPAN = Span("s", Context(b"t" * 16, b"s" * 8, sampled=True), b"", 1, 2)


def export_to(
    collector: Collector, authorization: Path | None = None
) -> tuple[SpanExport, Counters]:
    """An export with its counters."""
    counters = Counters()
    return SpanExport(
        collector.endpoint, {"service.name": "edge"}, "1", counters, authorization
    ), counters


def test_spans_arrive_and_what_waits_at_the_end_is_sent() -> None:
    with collecting() as collector:
        export, counters = export_to(collector)
        for _ in range(100):
            export.offer((SPAN, SPAN))
        export.close(60.0)
        assert len(collector.spans) == counters.total("spans_sent") == 200
        assert counters.total("spans_dropped") == 0


def test_a_collector_that_hangs_costs_spans_and_nothing_else() -> None:
    with collecting() as collector:
        collector.hold.clear()
        export, counters = export_to(collector)
        began = time.monotonic()
        for _ in range(10 * MAX_WAITING):
            export.offer((SPAN,))
        # 2560 offers: had each waited a hundredth of a second, it were half a minute.
        assert time.monotonic() - began < 20
        assert counters.value("spans_dropped", cause="queue full") > 8 * MAX_WAITING
        collector.hold.set()
        export.close(60.0)
        assert counters.total("spans_sent") + counters.total("spans_dropped") == 10 * MAX_WAITING


def test_a_refusal_is_counted_said_once_and_said_again_when_it_is_over() -> None:
    async def scenario() -> None:
        with collecting() as collector, capture_logs() as events:
            collector.status = 503
            export, counters = export_to(collector)
            export.offer((SPAN,))
            await until(lambda: counters.total("spans_dropped") == 1, "it was refused")
            export.offer((SPAN,))
            await until(lambda: counters.total("spans_dropped") == 2, "it was refused again")
            collector.status = 200
            export.offer((SPAN,))
            await until(lambda: counters.total("spans_sent") == 1, "it was taken")
            await asyncio.to_thread(export.close, 60.0)
            assert [e["event"] for e in events] == ["spans_not_sent", "spans_sent_again"]

    asyncio.run(scenario())


def test_the_authorization_is_read_anew_and_in_no_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        secret = tmp_path / "token"
        secret.write_text("Bearer first\n")
        with collecting() as collector, capture_logs() as events:
            collector.status = 401
            export, counters = export_to(collector, secret)
            export.offer((SPAN,))
            await until(lambda: counters.total("spans_dropped") == 1, "it was refused")
            secret.write_text("Bearer second\n")
            collector.status = 200
            export.offer((SPAN,))
            await until(lambda: counters.total("spans_sent") == 1, "it was taken")
            await asyncio.to_thread(export.close, 60.0)
            assert collector.authorizations == ["Bearer first", "Bearer second"]
            assert "Bearer" not in str(events)

    asyncio.run(scenario())
