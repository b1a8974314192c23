"""Sparkplug payloads: read as Google's protobuf writes them, and anything else refused."""

import math
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparkplug_nodes import BOOLEAN, DOUBLE, FLOAT, INT8, STRING, UINT32, Payload, payload

from edge.daemon.signals import MalformedSignalError
from edge.daemon.sparkplug import MAX_FIELDS, Metric, read, rebirth

UINT64 = st.integers(0, (1 << 64) - 1)
VALUES = st.one_of(
    st.integers(0, (1 << 32) - 1).map(lambda value: ("int_value", value)),
    UINT64.map(lambda value: ("long_value", value)),
    st.floats(width=32, allow_nan=False).map(lambda value: ("float_value", value)),
    st.floats(allow_nan=False).map(lambda value: ("double_value", value)),
    st.booleans().map(lambda value: ("boolean_value", value)),
)
FIELD = {
    name: number
    for number, name in enumerate(
        ("int_value", "long_value", "float_value", "double_value", "boolean_value"), 10
    )
}
METRICS = st.fixed_dictionaries(
    {"value": VALUES},
    optional={
        "name": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
        "alias": UINT64,
        "timestamp": UINT64,
        "datatype": st.integers(0, 40),
        "is_historical": st.booleans(),
        "is_null": st.booleans(),
        "metadata": st.binary(max_size=20),
        "properties": st.binary(max_size=20),
    },
)


@given(st.lists(METRICS, max_size=6), st.none() | UINT64, st.none() | st.integers(0, 255))
def test_what_protobuf_writes_is_read_equal(
    metrics: list[dict[str, Any]], at_ms: int | None, seq: int | None
) -> None:
    written = []
    for metric in metrics:
        field, value = metric.pop("value")
        written.append((metric, field, value))
    data = payload(
        *({**metric, field: value} for metric, field, value in written), seq=seq, at_ms=at_ms
    )
    found = read(data)
    assert (found.time_ms, found.seq) == (at_ms, seq)
    for got, (metric, field, value) in zip(found.metrics, written, strict=True):
        name = metric.get("name")
        assert got.name == (name.encode() if isinstance(name, str) else None)
        assert got.alias == metric.get("alias")
        assert got.time_ms == metric.get("timestamp")
        assert got.datatype == metric.get("datatype", 0)
        assert bool(got.historical) == metric.get("is_historical", False)
        assert bool(got.null) == metric.get("is_null", False)
        assert (got.field, got.raw) == (FIELD[field], value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(MalformedSignalError):
        for metric in read(data).metrics:
            metric.number(metric.datatype)


@given(st.binary(min_size=1, max_size=30), st.integers(0, 1000))
def test_a_valid_payload_that_is_cut_or_spoilt_breaks_nothing(noise: bytes, at: int) -> None:
    whole = payload({"name": "a", "alias": 7, "datatype": DOUBLE, "double_value": 1.5}, seq=1)
    at %= len(whole)
    for spoilt in (whole[:at], whole[:at] + noise + whole[at:], whole[:at] + noise):
        with suppress(MalformedSignalError):
            read(spoilt)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 11,
        b"\x12\x05\x0a",
        b"\x12\x01\x0b",  # a group
        b"\x00\x01",  # field 0
        b"\x0d\x00\x00\x00\x00",  # the timestamp as a fixed number
        b"\x12\x02\x68\x01",  # a double as a varint
        b"\x12\x00" * (MAX_FIELDS + 1),
        b"\x12\x82\xd4\x03" + b"\x10\x01" * (MAX_FIELDS + 1),
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_what_is_no_payload_or_too_much_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedSignalError):
        read(data)


@pytest.mark.parametrize(
    ("datatype", "field", "raw", "value"),
    [
        (1, 10, 0xFF, -1.0),  # pysparkplug: in its own width
        (1, 10, 0xFFFF_FFFF, -1.0),  # sparkplug-payload: extended to the field's
        (1, 10, (1 << 64) - 1, -1.0),  # written as an int32
        (1, 10, 0x80, -128.0),
        (2, 10, 0x8000, -32_768.0),
        (3, 10, 0x8000_0000, -2_147_483_648.0),
        (3, 11, (1 << 64) - 5, -5.0),
        (4, 11, 1 << 63, -(2.0**63)),
        (5, 10, 255, 255.0),
        (8, 11, (1 << 64) - 1, float((1 << 64) - 1)),
        (9, 12, math.inf, None),
        (10, 13, math.nan, None),
        (11, 14, 2, 1.0),
    ],
)
def test_a_number_is_read_by_its_datatype(
    datatype: int, field: int, raw: float, value: float | None
) -> None:
    assert Metric(field=field, raw=raw).number(datatype) == value


@pytest.mark.parametrize(
    ("datatype", "field", "raw"),
    [
        (INT8, 10, 300),
        (5, 10, 256),
        (UINT32, 11, 1 << 32),
        (DOUBLE, 10, 1),
        (BOOLEAN, 10, 1),
        (STRING, 15, 0),
        (0, 13, 1.0),
        (19, 18, 0),
        (FLOAT, 0, 0),
        (INT8, 0, 0),
        (22, 16, 0),
    ],
)
def test_a_value_that_its_datatype_does_not_have_is_refused(
    datatype: int, field: int, raw: float
) -> None:
    with pytest.raises(MalformedSignalError):
        Metric(field=field, raw=raw).number(datatype)


def test_of_two_values_the_last_counts() -> None:
    data = b"\x12\x0b" + b"\x50\x07" + b"\x69" + struct.pack("<d", 1.5)
    (metric,) = read(data).metrics
    assert metric.number(DOUBLE) == 1.5


@given(UINT64)
def test_the_rebirth_command_is_what_protobuf_reads(at_ms: int) -> None:
    command = Payload.FromString(rebirth(at_ms))
    (metric,) = command.metrics
    assert command.timestamp == at_ms
    assert (metric.name, metric.datatype) == ("Node Control/Rebirth", BOOLEAN)
    assert metric.boolean_value is True
