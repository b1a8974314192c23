"""The queue of publications: bounded, in order, and never stuck."""

from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt.hang_ups import STRIKES, HangUps
from edge.mqtt.messages import Outgoing
from edge.mqtt.outgoing import OutgoingQueue


def _queue(limit: int = 10, window: int = 3) -> OutgoingQueue:
    queue = OutgoingQueue(limit, HangUps(lambda: 0.0))
    queue.window = window
    return queue


def _send_all(queue: OutgoingQueue, first_mid: int = 1) -> list[Outgoing]:
    sent: list[Outgoing] = []
    while (publication := queue.peek()) is not None:
        queue.sent(publication, first_mid + len(sent))
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
    first = queue.peek()
    assert first is not None
    queue.sent(first, 1)
    assert not queue.add(Outgoing("t", b""))  # in flight counts too
    queue.answered(1)
    assert queue.add(Outgoing("t", b""))


def test_half_of_the_room_is_kept_from_what_is_bulk() -> None:
    queue = _queue(limit=10)
    for _ in range(3):  # records that are sent again, each time that a connection was lost
        taken = [queue.add(Outgoing("records", b"", bulk=True)) for _ in range(8)]
        _send_all(queue)
        queue.disconnected()
    assert not any(taken)
    assert len(queue) == 5
    assert [queue.add(Outgoing("verdict", b"")) for _ in range(6)] == [True] * 5 + [False]


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


def test_what_is_bulk_goes_last_and_leaves_half_of_the_window() -> None:
    queue = _queue(limit=100, window=8)
    records = [Outgoing("records", b"%d" % number, bulk=True) for number in range(50)]
    for record in records:
        queue.add(record)
    assert _send_all(queue) == records[:4]
    verdict = Outgoing("verdict", b"now")
    queue.add(verdict)
    assert _send_all(queue, 5) == [verdict], "a verdict waits for none of them"
    assert queue.answered(1) is records[0]
    queue.add(verdict)
    assert _send_all(queue, 6) == [verdict, records[4]]
    queue.disconnected()
    assert _send_all(queue) == [verdict, verdict, *records[1:5]]


def test_bulk_goes_on_where_the_broker_takes_one_at_a_time() -> None:
    queue = _queue(window=1)
    record = Outgoing("records", b"1", bulk=True)
    queue.add(record)
    assert _send_all(queue) == [record]


STEPS = st.sampled_from(["add", "add bulk", "send", "answer", "disconnect"])


@given(st.lists(STEPS, max_size=200))
def test_every_publication_ends_exactly_once_and_none_overtakes_its_kind(steps: list[str]) -> None:
    queue, mid, number = _queue(limit=8), 0, 0
    in_flight: list[int] = []
    ended: list[Outgoing] = []
    added: list[Outgoing] = []
    for step in steps:
        if step.startswith("add"):
            publication = Outgoing("t", b"%d" % number, bulk=step == "add bulk")
            number += 1
            if queue.add(publication):
                added.append(publication)
        elif step == "send" and (next_one := queue.peek()) is not None:
            mid += 1
            queue.sent(next_one, mid)
            in_flight.append(mid)
        elif step == "answer" and in_flight:
            done = queue.answered(in_flight.pop(0))
            assert done is not None
            ended.append(done)
        elif step == "disconnect":
            in_flight.clear()
            lost, condemned = queue.disconnected()
            assert lost == []
            if condemned is not None:
                ended.append(condemned)
        assert len(queue) <= 8
        assert len(in_flight) <= queue.window
    for bulk in (False, True):
        mine = [each for each in ended if each.bulk is bulk]
        assert mine == [each for each in added if each.bulk is bulk][: len(mine)]
    assert len(queue) == len(added) - len(ended)
