"""A broker that hangs up on what it cannot bear: given up, remembered, and forgiven."""

import itertools

import pytest

from edge.mqtt.hang_ups import FIRST_S, LAST_S, MAX_TOPICS, NEXT_STRIKES, STRIKES, HangUps
from edge.mqtt.messages import Outgoing


class Clock:
    """Monotonic seconds, moved by hand."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def struck(hang_ups: HangUps, publication: Outgoing) -> int:
    """Lay ends to a publication until it is given up; return how many that took."""
    for strikes in range(1, STRIKES + 1):
        if hang_ups.ended(publication) is publication:
            return strikes
    pytest.fail("it is never given up")


def test_what_follows_on_the_topic_is_refused_unless_it_is_smaller(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    assert struck(hang_ups, Outgoing("status", bytes(5_000))) == STRIKES
    assert hang_ups.refuses(Outgoing("status", bytes(5_000)))
    assert hang_ups.refuses(Outgoing("status", bytes(9_000)))
    assert hang_ups.refuses(Outgoing("status", bytes(4_000))), "it is nearly as large"
    assert not hang_ups.refuses(Outgoing("status", bytes(3_500)))
    assert not hang_ups.refuses(Outgoing("verdict", bytes(5_000))), "what holds is this topic's"


def test_it_is_tried_again_and_ever_more_seldom(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    struck(hang_ups, Outgoing("status", bytes(5_000)))
    tried_at = []
    for _ in range(10):
        while hang_ups.refuses(Outgoing("status", bytes(5_000))):
            clock.now_s += 1.0
        tried_at.append(clock.now_s)
        assert struck(hang_ups, Outgoing("status", bytes(5_000))) == NEXT_STRIKES
    waits = [after - before for before, after in itertools.pairwise(tried_at)]
    assert waits[:3] == [2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert waits[-1] == LAST_S


def test_another_topic_is_given_up_sooner_where_it_is_as_large(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    struck(hang_ups, Outgoing("status", bytes(5_000)))
    assert struck(hang_ups, Outgoing("records", bytes(6_000))) == NEXT_STRIKES
    assert struck(hang_ups, Outgoing("verdict", bytes(400))) == STRIKES


def test_one_that_is_taken_after_all_wipes_the_slate(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    struck(hang_ups, Outgoing("verdict", bytes(400)))
    hang_ups.taken(Outgoing("verdict", bytes(300)))
    assert hang_ups.refuses(Outgoing("verdict", bytes(400))), "control: a smaller one says nothing"
    hang_ups.taken(Outgoing("verdict", bytes(500)))
    assert not hang_ups.refuses(Outgoing("verdict", bytes(400)))
    assert struck(hang_ups, Outgoing("verdict", bytes(400))) == STRIKES


def test_one_that_is_nearly_as_large_and_is_taken_is_not_refused_again(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    struck(hang_ups, Outgoing("status", bytes(5_000)))
    hang_ups.taken(Outgoing("status", bytes(4_500)))  # its time was over
    assert not hang_ups.refuses(Outgoing("status", bytes(4_500)))
    assert hang_ups.refuses(Outgoing("status", bytes(4_501)))


def test_a_smaller_one_that_is_given_up_lowers_what_its_topic_takes(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    struck(hang_ups, Outgoing("frame", bytes(5_000)))
    assert not hang_ups.refuses(Outgoing("frame", bytes(3_000)))
    assert struck(hang_ups, Outgoing("frame", bytes(3_000))) == NEXT_STRIKES
    assert hang_ups.refuses(Outgoing("frame", bytes(3_000)))
    struck(hang_ups, Outgoing("frame", bytes(8_000)))
    assert hang_ups.refuses(Outgoing("frame", bytes(3_000)))


def test_topics_without_number_take_no_memory_without_bound(clock: Clock) -> None:
    hang_ups = HangUps(clock)
    for number in range(2 * MAX_TOPICS):
        struck(hang_ups, Outgoing(f"answers/{number:04}", bytes(100)))
    refused = [
        number
        for number in range(2 * MAX_TOPICS)
        if hang_ups.refuses(Outgoing(f"answers/{number:04}", bytes(100)))
    ]
    assert refused == list(range(MAX_TOPICS, 2 * MAX_TOPICS))
