"""The queue of publications: bounded, in order, and never stuck."""

from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt.messages import Outgoing
from edge.mqtt.outgoing import STRIKES, OutgoingQueue


def _queue(limit: int = 10, window: int = 3) -> OutgoingQueue:
    queue = OutgoingQueue(limit)
    queue.window = window
    return queue


def _send_all(queue: OutgoingQueue, first_mid: int = 1) -> list[Outgoing]:
    sent: list[Outgoing] = []
    while (publication := queue.peek()) is not None:
        queue.sent(first_mid + len(sent))
        sent.append(publication)
    return sent


def test_the_window_holds_back_what_the_broker_has_not_asked_for() -> None:
    queue = _queue()
    publications = [Outgoing("t", b"%d" % number) for number in range(5)]
    assert all(queue.add(publication) for publication in publications)
    assert _send_all(queue) == publications[:3]
    assert queue.answered(2) is publications[1]
    assert queue.answered(2) is None
    assert _send_all(queue, 4) == publications[3:4]
    assert len(queue) == 4


def test_beyond_the_limit_nothing_is_taken() -> None:
    queue = _queue(limit=2)
    assert [queue.add(Outgoing("t", b"")) for _ in range(3)] == [True, True, False]
    queue.peek()
    queue.sent(1)
    assert not queue.add(Outgoing("t", b""))  # in flight counts too
    queue.answered(1)
    assert queue.add(Outgoing("t", b""))


def test_after_a_lost_connection_the_unanswered_come_first_and_in_order() -> None:
    queue = _queue()
    publications = [Outgoing("t", b"%d" % number, qos=number % 2) for number in range(5)]
    for publication in publications:
        queue.add(publication)
    assert _send_all(queue) == publications[:3]
    lost, condemned = queue.disconnected()
    assert lost == [publications[0], publications[2], publications[4]]
    assert condemned is None
    assert _send_all(queue) == [publications[1], publications[3]]


def test_what_was_the_oldest_unanswered_too_often_is_given_up_and_nothing_else() -> None:
    queue = _queue()
    poison, innocent = Outgoing("t", b"poison"), Outgoing("t", b"innocent")
    queue.add(poison)
    queue.add(innocent)
    for strike in range(1, STRIKES + 1):
        _send_all(queue)
        _, condemned = queue.disconnected()
        assert condemned is (poison if strike == STRIKES else None)
        queue.disconnected()  # an end before anything was sent is no strike
    assert _send_all(queue) == [innocent]


def test_a_flaky_line_that_carries_something_each_time_condemns_nothing() -> None:
    queue = _queue(limit=100, window=2)
    for number in range(STRIKES * 3):
        queue.add(Outgoing("t", b"%d" % number))
    for _ in range(STRIKES * 2):
        _send_all(queue)
        assert queue.answered(1) is not None
        assert queue.disconnected() == ([], None)


@given(st.lists(st.sampled_from(["add", "send", "answer", "disconnect"]), max_size=200))
def test_every_publication_ends_exactly_once_and_none_overtakes(steps: list[str]) -> None:
    queue, mid, number = _queue(limit=8), 0, 0
    in_flight: list[int] = []
    ended: list[bytes] = []
    added: list[bytes] = []
    for step in steps:
        if step == "add":
            publication = Outgoing("t", b"%d" % number)
            number += 1
            if queue.add(publication):
                added.append(publication.payload)
        elif step == "send" and queue.peek() is not None:
            mid += 1
            queue.sent(mid)
            in_flight.append(mid)
        elif step == "answer" and in_flight:
            done = queue.answered(in_flight.pop(0))
            assert done is not None
            ended.append(done.payload)
        elif step == "disconnect":
            in_flight.clear()
            lost, condemned = queue.disconnected()
            assert lost == []
            if condemned is not None:
                ended.append(condemned.payload)
        assert len(queue) <= 8
        assert len(in_flight) <= queue.window
    assert ended == added[: len(ended)]
    assert len(queue) == len(added) - len(ended)
