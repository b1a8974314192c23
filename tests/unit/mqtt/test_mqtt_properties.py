"""Properties of a received message: read as paho reads them, but in bounds, and forgiving."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt import properties

properties.install()

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def user(key: bytes, value: bytes) -> bytes:
    return b"".join((b"\x26", *(len(t).to_bytes(2, "big") + t for t in (key, value))))


def packet(content: bytes, payload: bytes = b"payload") -> bytes:
    length, digits = len(content), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(digits) + content + payload


def read(buffer: bytes) -> tuple[Any, int]:
    new: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    found, used = new.unpack(buffer)
    return found, used


@given(
    st.lists(st.tuples(TEXT, TEXT), max_size=20),
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | st.binary(max_size=40),
    st.binary(max_size=100),
)
def test_what_paho_writes_is_read_as_it_was(
    pairs: list[tuple[str, str]],
    content_type: str | None,
    response: str | None,
    correlation: bytes | None,
    payload: bytes,
) -> None:
    written: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    written.MessageExpiryInterval = 7
    written.SubscriptionIdentifier = 300
    written.PayloadFormatIndicator = 1
    given_ = {
        "UserProperty": pairs or None,
        "ContentType": content_type,
        "ResponseTopic": response,
        "CorrelationData": correlation,
    }
    for name, value in given_.items():
        if value is not None:
            setattr(written, name, value)
    packed = written.pack()
    found, used = read(packed + payload)
    assert used == len(packed)
    assert {name: getattr(found, name, None) for name in given_} == given_


def test_a_flood_of_properties_is_not_read_to_its_end() -> None:
    few = packet(user(b"a", b"b") * 1_000)
    found, used = read(few)
    assert found.UserProperty == [("a", "b")] * properties.MAX_COUNT
    assert few[used:] == b"payload"
    many = packet(user(b"a", b"b") * 1_000_000)
    found, used = read(many)
    assert not hasattr(found, "UserProperty")
    assert many[used:] == b"payload"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("with a \ufeff in it".encode(), True),  # MQTT 5, 1.5.4: it must not be taken amiss
        (b"\xff\xfe", False),
        (b"\xed\xa0\x80", False),
        (b"nul\0", False),
    ],
)
def test_a_text_of_nonsense_costs_its_message_that_text_and_nothing_else(
    value: bytes, kept: bool
) -> None:
    content = user(b"part-id", value) + b"\x03" + len(value).to_bytes(2, "big") + value
    found, _ = read(packet(content + user(b"frame-id", b"f-1")))
    names = {name for name, _ in found.UserProperty}
    assert names == {"frame-id", "part-id"} if kept else {"frame-id"}
    assert hasattr(found, "ContentType") == kept


@given(st.binary(max_size=60))
def test_noise_is_read_or_refused_as_what_paho_understands(noise: bytes) -> None:
    try:
        _, used = read(noise)
    except MalformedPacket:
        return
    assert used <= len(noise)


@pytest.mark.parametrize(
    "content",
    [b"\x7e\x00", b"\x26\x00\x05abc", b"\x03\x00", b"\x02\x00", b"\x0b\xff\xff\xff\xff\x01"],
)
def test_lengths_that_point_beyond_their_place_are_refused(content: bytes) -> None:
    with pytest.raises(MalformedPacket):
        read(packet(content))
