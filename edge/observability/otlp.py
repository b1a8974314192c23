"""Spans as OTLP carries them: `ExportTraceServiceRequest` in protobuf, written by hand. Pure.

Nine messages are written and none is read, so three rules of the wire format are all that is
needed; the generated classes and their runtime would cost the supervisor memory for it
(docs/decisions/0018). A test reads the result with the official ones.

Source: opentelemetry-proto 1.x, `trace/v1/trace.proto`, `common/v1/common.proto`,
`resource/v1/resource.proto`; field numbers stand beside each field.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from edge.observability.tracing import Span, Value

CONTENT_TYPE: Final = "application/x-protobuf"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ERROR: Final = 2
_SCOPE: Final = b"edge.daemon"


def request(resource: Mapping[str, Value], version: str, spans: Iterable[Span]) -> bytes:
    """Return the body of a POST to `/v1/traces`.

    Args:
        resource: Who says it: `service.name` and the like.
        version: Of the product.
        spans: In any order, of any traces.
    """
    scope = _bytes(1, _SCOPE) + _bytes(2, version.encode())
    scope_spans = _bytes(1, scope) + b"".join(_bytes(2, _span(span)) for span in spans)
    resource_spans = _bytes(1, _attributes(1, resource)) + _bytes(2, scope_spans)
    return _bytes(1, resource_spans)


def _span(span: Span) -> bytes:
    body = (
        _bytes(1, span.context.trace_id)
        + _bytes(2, span.context.span_id)
        + (_bytes(4, span.parent_id) if span.parent_id else b"")
        + _bytes(5, span.name.encode())
        + _varint(6, span.kind)
        + _fixed64(7, span.start_ns)
        + _fixed64(8, max(span.start_ns, span.end_ns))
        + _attributes(9, span.attributes)
    )
    if span.error:
        body += _bytes(15, _bytes(2, span.error.encode()) + _varint(3, _ERROR))
    return body + _tag(16, _FIXED32) + struct.pack("<I", int(span.context.sampled))


def _attributes(field: int, values: Mapping[str, Value]) -> bytes:
    return b"".join(
        _bytes(field, _bytes(1, key.encode()) + _bytes(2, _any(value)))
        for key, value in values.items()
    )


def _any(value: Value) -> bytes:
    match value:
        case bool():
            return _varint(2, int(value))
        case int():
            return _varint(3, value)
        case float():
            return _tag(4, _FIXED64) + struct.pack("<d", value)
        case str():
            return _bytes(1, value.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _tag(field, _BYTES) + _base128(len(content)) + content


def _varint(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + _base128(value & (1 << 64) - 1)  # two's complement, as int64


def _fixed64(field: int, value: int) -> bytes:
    return _tag(field, _FIXED64) + struct.pack("<Q", max(0, value))


def _tag(field: int, wire_type: int) -> bytes:
    return _base128(field << 3 | wire_type)


def _base128(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte, and more follow
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
