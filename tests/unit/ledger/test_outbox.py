from collections.abc import Callable

from edge.ledger.outbox import BURST, PAUSE_S, Outbox
from edge.ledger.record import Pending


class Cloud:
    """Ledger, clock and broker of an outbox: all by hand."""

    def __init__(self, records: int, receipted: int = 0, **limits: float) -> None:
        self.now = 100.0
        self.sent: list[int] = []
        self.accepts = True
        self.asked: list[tuple[int, int]] = []
        self.pauses: list[tuple[float, Callable[[], None]]] = []
        self._done: list[Callable[[bool], None]] = []
        self._records = records
        self.outbox = Outbox(receipted, self, **limits)  # type: ignore[arg-type]
        self.outbox.committed(records)

    def now_s(self) -> float:
        return self.now

    def later(self, pause_s: float, act: Callable[[], None]) -> None:
        self.pauses.append((pause_s, act))

    def go_on(self) -> None:
        """Let all pauses pass."""
        while self.pauses:
            _, act = self.pauses.pop()
            act()

    def load(self, after: int, limit: int) -> None:
        assert limit > 0
        self.asked.append((after, limit))

    def publish(self, body: bytes, on_done: Callable[[bool], None]) -> bool:
        if self.accepts:
            self.sent.append(int(body))
            self._done.append(on_done)
        return self.accepts

    def commit(self, seq: int) -> None:
        self._records = seq
        self.outbox.committed(seq)

    def answer(self) -> None:
        """Give the outbox what it asked for."""
        after, limit = self.asked.pop()
        assert not self.asked, "asked twice"
        last = min(after + limit, self._records)
        self.outbox.loaded([Pending(seq, b"%d" % seq) for seq in range(after + 1, last + 1)])
        self.go_on()

    def acknowledge(self, taken: bool = True) -> None:
        done, self._done = self._done, []
        for tell in done:
            tell(taken)

    def run(self) -> None:
        """The broker takes everything, the ledger answers everything, until nothing moves."""
        while self.asked or self._done or self.pauses:
            if self.asked:
                self.answer()
            self.go_on()
            self.acknowledge()


def _run(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def test_records_go_out_in_order_and_once() -> None:
    cloud = Cloud(records=200, window=8)
    cloud.outbox.connected()
    cloud.run()
    assert cloud.sent == _run(1, 200)
    cloud.commit(203)
    cloud.run()
    assert cloud.sent == _run(1, 203)
    assert cloud.outbox.owed == 203


def test_nothing_is_sent_before_there_is_a_connection() -> None:
    cloud = Cloud(records=5)
    cloud.outbox.tick()
    assert not cloud.asked
    cloud.outbox.connected()
    cloud.run()
    assert cloud.sent == _run(1, 5)


def test_after_a_restart_sending_begins_after_the_receipt() -> None:
    cloud = Cloud(records=30, receipted=20)
    cloud.outbox.connected()
    cloud.run()
    assert cloud.sent == _run(21, 30)


def test_no_more_than_the_window_is_on_the_way_to_the_broker() -> None:
    cloud = Cloud(records=100, window=4)
    cloud.outbox.connected()
    cloud.answer()
    assert cloud.sent == _run(1, 4)
    cloud.answer()
    assert cloud.sent == _run(1, 4)
    assert not cloud.asked
    cloud.acknowledge()
    assert cloud.sent == _run(1, 8)


def test_no_more_than_so_many_are_ahead_of_the_receipt() -> None:
    cloud = Cloud(records=100, window=4, ahead=10)
    cloud.outbox.connected()
    cloud.run()
    assert cloud.sent == _run(1, 10)
    cloud.outbox.receipt_taken(6)
    cloud.run()
    assert cloud.sent == _run(1, 16)


def test_without_a_receipt_all_is_sent_again_ever_more_rarely() -> None:
    cloud = Cloud(records=3, retry_s=10, last_retry_s=40)
    cloud.outbox.connected()
    cloud.run()
    resent_at = []
    for second in range(1, 181):
        cloud.now = 100.0 + second
        before = cloud.outbox.resent
        cloud.outbox.tick()
        cloud.run()
        if cloud.outbox.resent > before:
            resent_at.append(second)
    assert resent_at == [10, 30, 70, 110, 150]
    assert cloud.sent == _run(1, 3) * 6


def test_progress_of_the_receipt_sets_the_wait_back_and_what_is_receipted_is_not_sent_again() -> (
    None
):
    cloud = Cloud(records=4, retry_s=10, last_retry_s=40)
    cloud.outbox.connected()
    cloud.run()
    cloud.now += 10
    cloud.outbox.tick()
    cloud.run()
    cloud.outbox.receipt_taken(2)
    cloud.sent.clear()
    cloud.now += 9.9
    cloud.outbox.tick()
    cloud.run()
    assert cloud.sent == []
    cloud.now += 0.1
    cloud.outbox.tick()
    cloud.run()
    assert cloud.sent == [3, 4]


def test_a_full_receipt_ends_the_sending() -> None:
    cloud = Cloud(records=4, retry_s=10)
    cloud.outbox.connected()
    cloud.run()
    cloud.outbox.receipt_taken(4)
    cloud.now += 1_000
    cloud.outbox.tick()
    cloud.run()
    assert cloud.sent == _run(1, 4)
    assert cloud.outbox.owed == 0
    assert cloud.outbox.resent == 0


def test_receipts_out_of_order_and_repeated_never_go_back() -> None:
    cloud = Cloud(records=9)
    cloud.outbox.connected()
    cloud.run()
    for seq in (7, 3, 7, 1):
        cloud.outbox.receipt_taken(seq)
        assert cloud.outbox.receipted == 7
    assert cloud.outbox.owed == 2


def test_a_record_committed_after_a_quiet_hour_has_its_full_time() -> None:
    cloud = Cloud(records=0, retry_s=10)
    cloud.outbox.connected()
    cloud.now += 3_600
    cloud.commit(1)
    cloud.run()
    cloud.outbox.tick()
    assert cloud.outbox.resent == 0
    assert cloud.sent == [1]


def test_a_new_connection_begins_after_the_receipt_and_old_answers_do_not_count() -> None:
    cloud = Cloud(records=10, window=4)
    cloud.outbox.connected()
    cloud.answer()
    assert cloud.sent == [1, 2, 3, 4]
    cloud.outbox.disconnected()
    cloud.answer()
    assert cloud.sent == [1, 2, 3, 4]
    cloud.commit(12)
    assert not cloud.asked
    cloud.outbox.connected()
    cloud.acknowledge()  # of the four before
    cloud.answer()
    assert cloud.sent == [1, 2, 3, 4, 1, 2, 3, 4]
    cloud.run()
    assert cloud.sent[4:] == _run(1, 12)


def test_what_was_being_read_when_the_connection_was_made_anew_is_read_again() -> None:
    cloud = Cloud(records=10, window=4)
    cloud.outbox.connected()
    cloud.answer()
    cloud.acknowledge()
    assert cloud.asked == [(4, 4)]
    cloud.outbox.connected()
    cloud.run()
    assert cloud.sent == _run(1, 4) + _run(1, 10)


def test_a_publisher_that_takes_no_more_is_asked_again_at_the_next_tick() -> None:
    cloud = Cloud(records=3)
    cloud.outbox.connected()
    cloud.accepts = False
    cloud.answer()
    assert cloud.sent == []
    cloud.accepts = True
    cloud.outbox.tick()
    cloud.run()
    assert cloud.sent == [1, 2, 3]


def test_a_publication_that_failed_is_sent_again_by_the_timer() -> None:
    cloud = Cloud(records=2, retry_s=10)
    cloud.outbox.connected()
    cloud.answer()
    cloud.acknowledge(taken=False)
    cloud.now += 10
    cloud.outbox.tick()
    cloud.run()
    assert cloud.sent == [1, 2, 1, 2]


def test_storage_that_finds_nothing_is_asked_again_at_the_next_tick() -> None:
    cloud = Cloud(records=2)
    cloud.outbox.connected()
    cloud.asked.clear()
    cloud.outbox.loaded([])
    assert not cloud.asked
    cloud.outbox.tick()
    cloud.run()
    assert cloud.sent == [1, 2]


def test_whoever_catches_up_pauses_between_goes() -> None:
    cloud = Cloud(records=100)
    cloud.outbox.connected()
    after, limit = cloud.asked.pop()
    found = [Pending(seq, b"%d" % seq) for seq in range(after + 1, after + limit + 1)]
    cloud.outbox.loaded(found)
    assert cloud.sent == _run(1, BURST)
    cloud.outbox.tick()
    cloud.acknowledge()
    assert cloud.sent == _run(1, BURST), "answers and ticks do not end a pause"
    ((pause_s, act),) = cloud.pauses
    assert pause_s == PAUSE_S
    cloud.pauses.clear()
    act()
    assert cloud.sent == _run(1, 2 * BURST)
    assert len(cloud.pauses) == 1
