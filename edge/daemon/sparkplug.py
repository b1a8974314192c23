"""Sparkplug B payloads: what a signal needs of them is read, all else is skipped. Pure.

Eclipse Sparkplug 3.0, chapter 6: protobuf. Three rules of its wire format are enough for the fields
below (docs/decisions/0025-sparkplug-read-by-hand.md); templates, data sets and properties are
skipped unread, so nothing nests.
"""

import math
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from edge.daemon.signals import MalformedSignalError

MAX_FIELDS: Final = 30_000
"""Fields of a payload; a birth of 5,000 metrics has so many. More would hold up the event loop."""
BD_SEQ: Final = b"bdSeq"
REBIRTH: Final = b"Node Control/Rebirth"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES: Final = 10
_LOW64: Final = (1 << 64) - 1
# Fields of Payload and of Metric, as in sparkplug_b.proto.
_TIME, _METRICS, _SEQ = 1, 2, 3
_NAME, _ALIAS, _METRIC_TIME, _DATATYPE, _HISTORICAL, _NULL = 1, 2, 3, 4, 5, 7
_INT, _LONG, _FLOAT, _DOUBLE, _BOOLEAN = 10, 11, 12, 13, 14
_PLACES: Final = {
    _ALIAS: "alias",
    _METRIC_TIME: "time_ms",
    _DATATYPE: "datatype",
    _HISTORICAL: "historical",
    _NULL: "null",
}
_FORMATS: Final = {_FLOAT: "<f", _DOUBLE: "<d"}
_VALUES: Final = range(10, 20)  # one of them: the last one counts
_WIRE: Final = {
    **dict.fromkeys((_ALIAS, _METRIC_TIME, _DATATYPE, _HISTORICAL, _NULL), _VARINT),
    **dict.fromkeys((_INT, _LONG, _BOOLEAN), _VARINT),
    _NAME: _BYTES,
    _FLOAT: _FIXED32,
    _DOUBLE: _FIXED64,
}
_SIGNED: Final = {1: 8, 2: 16, 3: 32, 4: 64}  # Int8, Int16, Int32, Int64
_UNSIGNED: Final = {5: 8, 6: 16, 7: 32, 8: 64, 13: 64}  # UInt8 to UInt64, DateTime
_FLOATS: Final = (9, 10)  # Float, Double
_BOOLEANS: Final = 11


class Metric(msgspec.Struct):
    """One metric of a payload.

    Attributes:
        name: UTF-8 as it came, not looked at; None where it goes by its alias alone.
        time_ms: UTC; None where it has the payload's.
        datatype: As Sparkplug numbers them; 0 where left to the birth.
        historical: Not zero: it is no present value.
        null: Not zero: it says that there is no value.
        field: Which field of the value came; 0: none.
        raw: As it stood on the wire; numbers of these fields only.
    """

    name: bytes | None = None
    alias: int | None = None
    time_ms: int | None = None
    datatype: int = 0
    historical: int = 0
    null: int = 0
    field: int = 0
    raw: int | float = 0

    def number(self, datatype: int) -> float | None:
        """Return its value by a datatype; None: it has none, is not a number, or infinite.

        Raises:
            MalformedSignalError: The datatype is no number's, or the value does not fit it.
        """
        numeric = datatype in _SIGNED or datatype in _UNSIGNED or datatype in _FLOATS
        if not numeric and datatype != _BOOLEANS:
            raise MalformedSignalError(f"datatype {datatype} is neither a number nor a switch")
        if self.null:
            return None
        if datatype in _FLOATS:
            if self.field not in (_FLOAT, _DOUBLE):
                raise self._unfit(datatype)
            return self.raw if math.isfinite(self.raw) else None
        if datatype == _BOOLEANS:
            if self.field != _BOOLEAN:
                raise self._unfit(datatype)
            return float(self.raw != 0)
        if self.field not in (_INT, _LONG):
            raise self._unfit(datatype)
        return float(self._whole(datatype))

    def _whole(self, datatype: int) -> int:
        """Read a whole number: two's complement, by its own width or extended to the field's."""
        width = 32 if self.field == _INT else 64
        raw = int(self.raw) & ((1 << width) - 1)
        bits = _SIGNED.get(datatype) or _UNSIGNED[datatype]
        if datatype in _UNSIGNED:
            value = raw
        elif raw >> (width - 1):
            value = raw - (1 << width)
        else:
            value = raw - (1 << bits) if raw >> (bits - 1) == 1 else raw
        low, high = (0, 1 << bits) if datatype in _UNSIGNED else (-1 << bits - 1, 1 << bits - 1)
        if not low <= value < high:
            raise MalformedSignalError(f"{value} does not fit datatype {datatype}")
        return value

    def _unfit(self, datatype: int) -> MalformedSignalError:
        return MalformedSignalError(f"datatype {datatype} with its value in field {self.field}")


class Payload(msgspec.Struct):
    """A payload; `seq` is None in a death."""

    time_ms: int | None = None
    seq: int | None = None
    metrics: list[Metric] = []

    @property
    def bd_seq(self) -> int | None:
        """Which connection of the node a birth or a death speaks of."""
        for metric in self.metrics:
            if metric.name == BD_SEQ and metric.field in (_INT, _LONG):
                return int(metric.raw)
        return None


def read(data: bytes) -> Payload:
    """Read a payload of a limited size.

    Raises:
        MalformedSignalError: It is not protobuf, or has more than `MAX_FIELDS` fields.
    """
    payload = Payload()
    left = MAX_FIELDS
    for number, wire, value in _fields(data, 0, len(data)):
        left -= 1
        if number == _METRICS and wire == _BYTES:
            assert isinstance(value, tuple)
            metric, used = _metric(data, *value, left)
            payload.metrics.append(metric)
            left -= used
        elif number in (_TIME, _SEQ) and wire == _VARINT:
            assert isinstance(value, int)
            if number == _TIME:
                payload.time_ms = value
            else:
                payload.seq = value
        elif number in (_TIME, _METRICS, _SEQ):
            raise MalformedSignalError(f"field {number} of wire type {wire}")
        if left < 0:
            raise MalformedSignalError(f"more than {MAX_FIELDS} fields")
    return payload


def _metric(data: bytes, start: int, end: int, left: int) -> tuple[Metric, int]:
    metric = Metric()
    used = 0
    for number, wire, value in _fields(data, start, end):
        used += 1
        if used > left:
            break  # the caller says so
        if wire != _WIRE.get(number, wire):
            raise MalformedSignalError(f"field {number} of a metric of wire type {wire}")
        if number in _VALUES:
            metric.field, metric.raw = number, _raw(data, number, value)
        elif number == _NAME and isinstance(value, tuple):
            metric.name = data[slice(*value)]
        elif place := _PLACES.get(number):
            setattr(metric, place, value)
    return metric, used


def _raw(data: bytes, number: int, value: int | tuple[int, int]) -> int | float:
    if isinstance(value, int):
        return value
    if number not in _FORMATS:
        return 0  # a text, a template and the like: no number is made of it
    (raw,) = struct.unpack_from(_FORMATS[number], data, value[0])
    assert isinstance(raw, float)
    return raw


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int | tuple[int, int]]]:
    """Go through (number, wire type, whole number or span) of a message."""
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise MalformedSignalError("a field without a number")
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at, end)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
        else:
            raise MalformedSignalError(f"wire type {wire}")
        if length > end - at:
            raise MalformedSignalError("it ends within a field")
        yield number, wire, (at, at + length)
        at += length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(min(_MAX_VARINT_BYTES, end - at)):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value & _LOW64, at + place + 1
    raise MalformedSignalError("a number that does not end")


def rebirth(time_ms: int) -> bytes:
    """Write the command that has a node say its births again (Sparkplug 3.0, Rebirth)."""
    metric = b"\x0a" + bytes([len(REBIRTH)]) + REBIRTH + b"\x20\x0b\x70\x01"  # Boolean, true
    time = b""
    while time_ms > 0x7F:  # noqa: PLR2004 - seven bits a byte
        time += bytes([time_ms & 0x7F | 0x80])
        time_ms >>= 7
    return b"\x08" + time + bytes([time_ms]) + b"\x12" + bytes([len(metric)]) + metric
