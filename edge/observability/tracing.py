"""Trace contexts and spans: what a trace is made of. Pure.

A context travels as W3C Trace Context says (the `traceparent` of an MQTT 5 user property), so that
a camera, this box and whatever takes the verdict are one trace.
"""

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple, Self

PROPERTY: Final = "traceparent"
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.{0,200})?")
_SAMPLED: Final = 1

Value = str | int | float | bool


class Context(NamedTuple):
    """Where in which trace something happens.

    Attributes:
        trace_id: 16 bytes, not all zero.
        span_id: 8 bytes, not all zero.
        sampled: Whether whoever began the trace has it recorded.
    """

    trace_id: bytes
    span_id: bytes
    sampled: bool

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a `traceparent` (W3C Trace Context, 3.2); None where it is none."""
        match = _FORM.fullmatch(text)
        if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
            return None
        trace_id, span_id = bytes.fromhex(match[2]), bytes.fromhex(match[3])
        if not any(trace_id) or not any(span_id):
            return None
        return cls(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{int(self.sampled):02x}"


class SpanKind(IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    PRODUCER = 4
    CONSUMER = 5


class Span(NamedTuple):
    """One step, begun and ended.

    Attributes:
        context: Its own.
        parent_id: 8 bytes; empty where the trace begins here.
        start_ns: UTC.
        end_ns: UTC, not before the start.
        error: Why it failed; empty where it did not.
    """

    name: str
    context: Context
    parent_id: bytes
    start_ns: int
    end_ns: int
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, Value] = {}
    error: str = ""
