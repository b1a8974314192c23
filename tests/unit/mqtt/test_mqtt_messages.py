"""Publications are checked before they reach the wire; sizes are never underestimated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.properties import Properties

from edge.mqtt.messages import Outgoing
from edge.mqtt.packets import publish_properties

_text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@pytest.mark.parametrize(
    ("publication", "problem"),
    [
        (Outgoing("a/+", b""), "wildcards"),
        (Outgoing("", b""), "empty"),
        (Outgoing("a", b"", qos=2), "QoS 2"),
        (Outgoing("a", b"", properties={"k": "\ud800"}), "not Unicode"),
        (Outgoing("a", b"", properties={"k\x00": "v"}), "NUL"),
        (Outgoing("a", b"", content_type="x" * 65_536), "too long"),
        (Outgoing("a", b"", correlation=b"x" * 65_536), "too long"),
    ],
)
def test_what_no_broker_could_take_is_told(publication: Outgoing, problem: str) -> None:
    assert problem in publication.problem()


@given(
    st.text(st.sampled_from("aé漢/-_7"), min_size=1, max_size=20),
    st.binary(max_size=300),
    st.one_of(st.none(), _text),
    st.one_of(st.none(), st.binary(max_size=20)),
    st.dictionaries(_text, _text, max_size=4),
)
def test_the_size_of_a_packet_is_an_upper_bound_and_close(
    topic: str,
    payload: bytes,
    content_type: str | None,
    correlation: bytes | None,
    properties: dict[str, str],
) -> None:
    publication = Outgoing(
        topic,
        payload,
        content_type=content_type,
        correlation=correlation,
        properties=properties,
    )
    assert publication.problem() == ""
    made: Properties | None = publish_properties(publication)
    packed = len(made.pack()) if made is not None else 1  # type: ignore[no-untyped-call]
    body = 2 + len(topic.encode()) + 2 + packed + len(payload)
    assert body + 2 <= publication.packet_bytes() <= body + 2 + 20
