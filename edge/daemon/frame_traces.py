"""What became of a frame, as spans: which frames are traced, and how their time was spent.

A frame is traced where its camera says so by a sampled `traceparent`, or by chance where it says
nothing; no more than so many a second, whatever cameras say. The spans of a judgement are made
when it is given; its publication and its record follow as spans of their own when they are done,
so nothing has to be kept for them.

Stages are known by their durations, and are laid end to end in the order of the verdict's account;
where a frame was decoded while another was judged, the wait between stands in `channel`.
"""

import random
from collections.abc import Callable
from typing import Final

from edge.contracts.verdict import HOST_REASONS, Verdict
from edge.daemon.intake import Frame
from edge.daemon.rate import Bucket
from edge.observability.span_export import Bundle
from edge.observability.tracing import Context, Span, SpanKind, Value

_NOT_STEPS: Final = ("total",)


class FrameTraces:
    """Chooses frames and makes their spans.

    Args:
        share: 0..1, of the frames that came without a context.
        max_per_s: Frames traced in a second, at most.
        offer: Takes spans; never waits.
        now_ns: The monotonic clock.
    """

    def __init__(
        self,
        share: float,
        max_per_s: float,
        offer: Callable[[Bundle], None],
        now_ns: Callable[[], int],
    ) -> None:
        self._share = share
        self._bucket = Bucket(max_per_s)
        self._offer = offer
        self._now_ns = now_ns
        # Ids need to be unlike each other, not secret (W3C Trace Context, 6.1).
        self._random = random.Random()  # noqa: S311 - as said above

    def begin(self, frame: Frame, verdict: Verdict) -> "FrameTrace | None":
        """Trace a frame whose verdict has just been made; None where it is not chosen."""
        parent = Context.parse(frame.trace) if frame.trace else None
        chosen = parent.sampled if parent else self._random.random() < self._share
        now_ns = self._now_ns()
        if not chosen or not self._bucket.admit(now_ns):
            return None
        trace_id = parent.trace_id if parent else self._id(16)
        own = Context(trace_id, self._id(8), sampled=True)
        trace = FrameTrace(frame.without_pixels(), own, self, now_ns)
        self._offer(self._judgement(trace, verdict, parent, len(frame.payload)))
        return trace

    def done(self, trace: "FrameTrace", name: str, kind: SpanKind, error: str) -> None:
        """Offer the span of a step that began with the verdict, and is over now."""
        now_ns = self._now_ns()
        self._offer((self._span(trace, name, trace.given_ns, now_ns, kind, error),))

    def _judgement(
        self, trace: "FrameTrace", verdict: Verdict, parent: Context | None, payload_bytes: int
    ) -> Bundle:
        frame = trace.frame
        attributes: dict[str, Value] = {
            "edge.frame_id": frame.frame_id,
            "edge.part_id": frame.part_id,
            "edge.pipeline": verdict.pipeline,
            "edge.deployment": verdict.deployment.name,
            "edge.deployment.revision": verdict.deployment.revision,
            "edge.verdict": verdict.verdict.value,
            "edge.reason": verdict.reason,
            "edge.score": verdict.score,
            "edge.provider": verdict.provider,
            "edge.budget_ms": verdict.budget_ms,
            "messaging.system": "mqtt",
            "messaging.message.body.size": payload_bytes,
        }
        spans = [
            Span(
                f"frame {verdict.pipeline}",
                trace.context,
                parent.span_id if parent else b"",
                trace.at(frame.captured_ns),
                trace.at(trace.given_ns),
                SpanKind.CONSUMER,
                attributes,
                verdict.reason if verdict.reason in HOST_REASONS else "",
            )
        ]
        start_ns = frame.captured_ns
        for name, took_ms in verdict.latency_ms.items():
            if name in _NOT_STEPS:
                continue
            end_ns = start_ns + round(took_ms * 1e6)
            spans.append(self._span(trace, name, start_ns, end_ns))
            start_ns = end_ns
        return tuple(spans)

    def _span(
        self,
        trace: "FrameTrace",
        name: str,
        start_ns: int,
        end_ns: int,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str = "",
    ) -> Span:
        own = Context(trace.context.trace_id, self._id(8), sampled=True)
        start, end = trace.at(start_ns), trace.at(end_ns)
        return Span(name, own, trace.context.span_id, start, end, kind, error=error)

    def _id(self, length: int) -> bytes:
        return self._random.getrandbits(8 * length).to_bytes(length, "big") or b"\1" * length


class FrameTrace:
    """One frame that is traced.

    Attributes:
        frame: The frame, without its pixels: the broker or the disk may take its time.
        context: Of its span; goes out with its verdict.
        given_ns: Monotonic, when its verdict was made.
    """

    __slots__ = ("_traces", "context", "frame", "given_ns")

    def __init__(self, frame: Frame, context: Context, traces: FrameTraces, given_ns: int) -> None:
        self.frame = frame
        self.context = context
        self.given_ns = given_ns
        self._traces = traces

    def at(self, instant_ns: int) -> int:
        """Return a monotonic instant in UTC, by the clocks as they were at the frame's capture."""
        return self.frame.captured_at_ns + instant_ns - self.frame.captured_ns

    def published(self) -> None:
        """The broker has its verdict, or refused it."""
        self._traces.done(self, "publish", SpanKind.PRODUCER, "")

    def recorded(self) -> None:
        """The ledger has its verdict on the medium."""
        self._traces.done(self, "record", SpanKind.INTERNAL, "")
