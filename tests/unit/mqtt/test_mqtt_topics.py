"""Topics by MQTT's rules."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.mqtt.topics import (
    TopicTemplate,
    filter_problem,
    matches,
    overlap,
    topic_problem,
    unshared,
)

# From MQTT 5, 4.7.1.2 to 4.7.2, and the corners between.
TAKES = [
    ("a/b", "a/b", True),
    ("a/b", "a/b/c", False),
    ("a/b", "a", False),
    ("a/+", "a/b", True),
    ("a/+", "a/b/c", False),
    ("a/+", "a", False),
    ("a/+", "a/", True),
    ("+/+", "/a", True),
    ("/+", "/a", True),
    ("+", "/a", False),
    ("a/#", "a", True),
    ("a/#", "a/b/c", True),
    ("a/#", "ab", False),
    ("a/+/#", "a", False),
    ("a/+/#", "a/b", True),
    ("#", "a/b", True),
    ("#", "$SYS/uptime", False),
    ("+/uptime", "$SYS/uptime", False),
    ("$SYS/#", "$SYS/uptime", True),
    ("a", "A", False),
    ("$share/group/a/+", "a/b", True),
    ("$share/group/a/+", "$share/group/a/b", False),
]


@pytest.mark.parametrize(("topic_filter", "topic", "taken"), TAKES)
def test_a_filter_takes_what_the_standard_says(topic_filter: str, topic: str, taken: bool) -> None:
    assert matches(topic_filter, topic) is taken


def test_filters_overlap_where_some_topic_is_taken_by_both() -> None:
    def paths(levels: str, depths: range) -> list[str]:
        return ["/".join(path) for n in depths for path in itertools.product(levels, repeat=n)]

    topics = paths("ab$", range(1, 4))
    filters = paths("ab$+", range(1, 3))
    filters += ["#", *(f"{each}/#" for each in filters)]
    taken = {each: {topic for topic in topics if matches(each, topic)} for each in filters}
    for one, other in itertools.product(filters, repeat=2):
        assert overlap(one, other) is bool(taken[one] & taken[other]), (one, other)
    assert overlap("$share/g/a/+", "a/b")


def test_a_template_subscribes_matches_and_fills() -> None:
    template = TopicTemplate("line/top/reference/{reference_id}")
    assert template.filter == "line/top/reference/+"
    assert template.names == ("reference_id",)
    assert template.match("line/top/reference/board-7") == {"reference_id": "board-7"}
    assert template.match("line/top/frame") is None
    assert template.match("line/top/reference/a/b") is None
    assert template.fill(reference_id="board-7", part_id="x") == "line/top/reference/board-7"


def test_wildcards_and_placeholders_may_stand_together() -> None:
    template = TopicTemplate("+/{part_id}/#")
    assert template.filter == "+/+/#"
    assert template.match("line/p1/a/b") == {"part_id": "p1"}
    with pytest.raises(ValueError, match="wildcards"):
        template.fill(part_id="p1")


def test_a_shared_template_subscribes_with_its_group_and_matches_without() -> None:
    template = TopicTemplate("line/{part_id}", share="gateways")
    assert template.filter == "$share/gateways/line/+"
    assert template.match("line/p1") == {"part_id": "p1"}


def test_a_leading_placeholder_does_not_take_the_brokers_own_topics() -> None:
    assert TopicTemplate("{part_id}/uptime").match("$SYS/uptime") is None


@pytest.mark.parametrize(
    "text", ["", "a/{b}c", "a/{}", "a/{b}/{b}", "a/b+", "#/a", "a/\x00", "x" * 65_536]
)
def test_a_text_that_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="topic"):
        TopicTemplate(text)


@pytest.mark.parametrize("share", ["a/b", "+", "$x"])
def test_a_group_that_cannot_be_a_level_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match="group"):
        TopicTemplate("a", share=share)


@pytest.mark.parametrize("value", ["", "a/b", "+", "#", "a\x00", "a\nb"])
def test_a_value_that_cannot_be_a_level_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="part_id"):
        TopicTemplate("line/{part_id}").fill(part_id=value)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"no value for \{part_id\}"):
        TopicTemplate("line/{part_id}").fill(frame_id="1")


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\x00", "\ud800"])
def test_a_topic_that_cannot_be_published_to_is_told(topic: str) -> None:
    assert topic_problem(topic)
    assert not topic_problem("line/top/frame")


@pytest.mark.parametrize("text", ["", "a+", "a/#/b", "$share/g", "$share//a", "$share/+/a"])
def test_a_filter_that_cannot_be_subscribed_to_is_told(text: str) -> None:
    assert filter_problem(text)
    assert not filter_problem("$share/g/line/+/#")


_levels = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N")), max_size=3), min_size=1, max_size=5
)


@given(_levels)
def test_a_topic_is_taken_by_itself_by_every_plus_and_by_every_hash(levels: list[str]) -> None:
    topic = "/".join(levels)
    assert matches(topic, topic)
    for index in range(len(levels)):
        plus = [*levels[:index], "+", *levels[index + 1 :]]
        assert matches("/".join(plus), topic)
        assert matches("/".join([*levels[:index], "#"]), topic)
        assert matches("$share/g/" + "/".join(plus), topic)


@given(_levels, st.text(max_size=40))
def test_a_filter_without_wildcards_takes_nothing_but_itself(levels: list[str], other: str) -> None:
    topic = "/".join(levels)
    assert matches(topic, other) is (unshared(topic) == other)


@given(st.dictionaries(st.sampled_from(["part_id", "frame_id"]), st.text()))
def test_what_was_filled_is_matched_back(values: dict[str, str]) -> None:
    template = TopicTemplate("line/{part_id}/frame/{frame_id}")
    try:
        topic = template.fill(**values)
    except ValueError:
        return
    assert template.match(topic) == values
    assert matches(template.filter, topic)


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_from_the_wire_makes_matching_raise(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) in (True, False)
    assert TopicTemplate("line/{part_id}").match(topic) is None or topic.startswith("line/")
