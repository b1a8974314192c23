"""Our protobuf, read by OpenTelemetry's own classes."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from edge.observability import otlp
from edge.observability.tracing import Context, Span, SpanKind

CONTEXT = Context(bytes(range(16)), bytes(range(8, 16)), sampled=True)


def read(body: bytes) -> ExportTraceServiceRequest:
    """Decode as a collector does."""
    found = ExportTraceServiceRequest()
    found.ParseFromString(body)
    return found


def test_a_span_arrives_as_it_was_sent() -> None:
    span = Span(
        "frame pcb",
        CONTEXT,
        b"parent_8",
        1_700_000_000_000_000_001,
        1_700_000_000_100_000_002,
        SpanKind.CONSUMER,
        {"part": "Tür 7", "revision": 3, "below": -1, "score": 0.25, "signed": True},
        "overrun",
    )
    (of,) = read(otlp.request({"service.name": "edge"}, "1.2.3", [span])).resource_spans
    assert of.resource.attributes[0].value.string_value == "edge"
    (scope,) = of.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("edge.daemon", "1.2.3")
    (found,) = scope.spans
    assert (found.trace_id, found.span_id) == (CONTEXT.trace_id, CONTEXT.span_id)
    assert (found.parent_span_id, found.name) == (b"parent_8", "frame pcb")
    assert found.kind == ProtoSpan.SPAN_KIND_CONSUMER
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (span.start_ns, span.end_ns)
    assert (found.status.code, found.status.message) == (Status.STATUS_CODE_ERROR, "overrun")
    assert found.flags & 1
    values = {each.key: each.value for each in found.attributes}
    assert values["part"].string_value == "Tür 7"
    assert (values["revision"].int_value, values["below"].int_value) == (3, -1)
    assert values["score"].double_value == 0.25
    assert values["signed"].bool_value


@given(
    st.dictionaries(
        st.text(max_size=300),
        st.text(max_size=300)
        | st.booleans()
        | st.floats(allow_nan=False)
        | st.integers(-(2**63), 2**63 - 1),
        max_size=5,
    ),
    st.integers(0, 2**64 - 1),
)
def test_whatever_is_in_a_span_the_collector_reads_the_same(
    attributes: dict[str, str | bool | float | int], start_ns: int
) -> None:
    span = Span("s", CONTEXT, b"", start_ns, start_ns, attributes=attributes)
    (found,) = read(otlp.request({}, "1", [span])).resource_spans[0].scope_spans[0].spans
    assert found.start_time_unix_nano == start_ns
    assert not found.parent_span_id
    got = {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in found.attributes
    }
    assert got == attributes
