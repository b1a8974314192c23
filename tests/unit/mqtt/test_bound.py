"""Which topics a binding takes, and which no camera may have its answer on."""

import pytest

from edge.config import Binding
from edge.mqtt.bound import filters, reserved
from edge.mqtt.topics import matches

OVEN = Binding(topic="spBv1.0/plant7/+/line3/oven", metric="temperature")


def test_a_plain_topic_stands_for_itself() -> None:
    binding = Binding(topic="line/{part_id}/frame", share="boxes")
    assert filters(binding) == ("line/+/frame",)
    assert reserved(binding) == "line/+/frame"


def test_a_device_is_heard_with_its_node_and_no_command_is() -> None:
    kinds = ("NBIRTH", "NDATA", "NDEATH", "NCMD", "DBIRTH", "DDATA", "DDEATH", "DCMD")
    topics = [f"spBv1.0/plant7/{kind}/line3" + "/oven" * (kind[0] == "D") for kind in kinds]
    heard = [topic for topic in topics if any(matches(f, topic) for f in filters(OVEN))]
    assert [topic.split("/")[2] for topic in heard] == [k for k in kinds if "CMD" not in k]


@pytest.mark.parametrize("topic", ["NCMD/line3", "DCMD/line3/oven", "NDATA/line3"])
def test_all_topics_of_the_node_are_reserved(topic: str) -> None:
    assert matches(reserved(OVEN), f"spBv1.0/plant7/{topic}")
    assert not matches(reserved(OVEN), "spBv1.0/plant7/NCMD/line4")
