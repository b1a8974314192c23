"""The properties of a received message, read in paho's place: in linear time, within bounds.

paho 2.2 copies the rest of the packet, payload and all, three times for each property: 18 ms for an
image of 8 MB, and a second for a packet of 210 KB that is nothing but properties, in which the loop
answers no frame (`Properties.unpack`, 30,000 pairs of one letter). And it ends the connection for a
text with U+FEFF in it, which MQTT 5 allows (1.5.4): at QoS 1 the broker would bring that message
first on each new connection, for ever.

Rules:

1. Only what `edge.mqtt.packets` uses is kept, and only of the first `MAX_COUNT`; where they take
   more than `MAX_BYTES`, nothing is.
2. A text that is not UTF-8, or has NUL in it, is left out. Whose message it is loses by that, and
   nobody else.
3. What no broker may send, as lengths that point beyond the packet, ends the connection.
"""

from typing import Any, Final

from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MAX_BYTES: Final = 64 << 10
MAX_COUNT: Final = 64

_CONTENT_TYPE: Final = 3
_RESPONSE_TOPIC: Final = 8
_CORRELATION: Final = 9
_SUBSCRIPTION: Final = 11
_USER: Final = 38
_NAMES: Final = {
    _CONTENT_TYPE: "ContentType",
    _RESPONSE_TOPIC: "ResponseTopic",
    _CORRELATION: "CorrelationData",
}
_FIXED_BYTES: Final = {1: 1, 2: 4, 35: 2}
"""Payload Format Indicator, Message Expiry Interval, Topic Alias (MQTT 5, 2.2.2.2)."""
_LAST_OF_NUMBER: Final = 0x80
_NUMBER_BYTES: Final = 4

_of_other_packets: Final = Properties.unpack


def install() -> None:
    """Have paho read properties by these rules. May be called again."""
    Properties.unpack = _unpack  # type: ignore[method-assign] # the class has no other way in


def _unpack(self: Any, buffer: bytes) -> tuple[Properties, int]:
    if self.packetType != PacketTypes.PUBLISH:
        return _of_other_packets(self, buffer)  # type: ignore[no-any-return, no-untyped-call]
    length, begin = _number(buffer, 0, len(buffer))
    end = begin + length
    if end > len(buffer):
        raise MalformedPacket("properties that end behind their packet")
    if length <= MAX_BYTES:
        for name, value in _read(buffer, begin, end).items():
            object.__setattr__(self, name, value)
    return self, end


def _read(buffer: bytes, at: int, end: int) -> dict[str, object]:
    found: dict[str, object] = {}
    user: list[tuple[str, str]] = []
    for _ in range(MAX_COUNT):
        if at >= end:
            break
        identifier = buffer[at]
        at += 1
        if identifier == _USER:
            key, at = _string(buffer, at, end)
            value, at = _string(buffer, at, end)
            if (name := _text(key)) is not None and (text := _text(value)) is not None:
                user.append((name, text))
        elif identifier in _NAMES:
            content, at = _string(buffer, at, end)
            kept = content if identifier == _CORRELATION else _text(content)
            if kept is not None:
                found[_NAMES[identifier]] = kept
        elif identifier == _SUBSCRIPTION:
            _, at = _number(buffer, at, end)
        elif identifier in _FIXED_BYTES:
            at += _FIXED_BYTES[identifier]
        else:
            raise MalformedPacket(f"property {identifier} in a PUBLISH")
    if at > end:
        raise MalformedPacket("a property that ends behind the others")
    if user:
        found["UserProperty"] = user
    return found


def _string(buffer: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Return bytes behind their length, and the place behind them."""
    begin = at + 2
    after = begin + int.from_bytes(buffer[at:begin], "big")
    if begin > end or after > end:
        raise MalformedPacket("a property that ends behind the others")
    return bytes(buffer[begin:after]), after


def _text(content: bytes) -> str | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _number(buffer: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a variable byte integer (MQTT 5, 1.5.5), and the place behind it."""
    value = 0
    for place in range(_NUMBER_BYTES):
        if at >= end:
            break
        value |= (buffer[at] & ~_LAST_OF_NUMBER) << (7 * place)
        at += 1
        if buffer[at - 1] < _LAST_OF_NUMBER:
            return value, at
    raise MalformedPacket("a number that does not end")
