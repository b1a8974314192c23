import contextlib
import itertools
from collections.abc import Callable, Iterator

from edge.ledger.outbox import GO_S, PAUSE_S, YIELD_S, Outbox
from edge.ledger.record import Pending


class Cloud:
    """Ledger, clock and broker of an outbox: all by hand."""

    def __init__(self, records: int, receipted: int = 0, **limits: float) -> None:
        self.now = 100.0
        self.sent: list[int] = []
        self.accepts = True
        self.line_waits = False
        self.publishing_s = 0.0
        self.pieces: list[int] = []
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
            self.pass_pause()

    def pass_pause(self) -> None:
        """Let the one pause pass."""
        ((pause_s, act),) = self.pauses
        self.pauses.clear()
        self.now += pause_s
        act()

    def load(self, after: int, limit: int) -> None:
        assert limit > 0
        self.asked.append((after, limit))

    def frames_wait(self) -> bool:
        return self.line_waits

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        before = len(self.sent)
        yield
        self.pieces.append(len(self.sent) - before)

    def publish(self, body: bytes, on_done: Callable[[bool], None]) -> bool:
        self.now += self.publishing_s
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
    cloud.outbox.tick()
    assert cloud.sent == _run(1, 4)
    assert not cloud.asked
    cloud.acknowledge()
    cloud.go_on()
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
    assert cloud.asked == [(0, 10)]
    cloud.outbox.receipt_taken(4)  # by another connection, say
    cloud.outbox.connected()
    cloud.run()
    assert cloud.sent == _run(5, 10)


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


def catching_up(publishing_s: float) -> Cloud:
    """A cloud that a week of records is owed to, the first of them read."""
    cloud = Cloud(records=100_000)
    cloud.publishing_s = publishing_s
    cloud.outbox.connected()
    after, limit = cloud.asked.pop()
    cloud.outbox.loaded([Pending(seq, b"%d" % seq) for seq in range(after + 1, limit + 1)])
    return cloud


def test_a_go_has_its_time_and_leaves_in_one_piece_and_then_there_is_a_pause() -> None:
    cloud = catching_up(publishing_s=GO_S / 7.5)
    assert cloud.pieces == [8]
    cloud.outbox.tick()
    cloud.acknowledge()
    assert cloud.pieces == [8], "answers and ticks do not end a pause"
    assert cloud.pauses[0][0] == PAUSE_S
    cloud.pass_pause()
    assert cloud.pieces == [8, 8]


def test_on_a_slow_machine_a_go_carries_fewer_but_never_none() -> None:
    assert catching_up(publishing_s=GO_S / 1.5).pieces == [2]
    assert catching_up(publishing_s=GO_S * 50).pieces == [1]


def test_while_frames_wait_records_give_way_but_not_for_ever() -> None:
    cloud = catching_up(publishing_s=GO_S / 7.5)
    cloud.line_waits = True
    gone_at = []
    for _ in range(20):
        before = len(cloud.sent)
        cloud.pass_pause()
        cloud.acknowledge()
        if len(cloud.sent) > before:
            gone_at.append(cloud.now)
    between = [later - former for former, later in itertools.pairwise(gone_at)]
    assert between
    assert all(YIELD_S <= each <= YIELD_S + PAUSE_S + GO_S for each in between)
    cloud.line_waits = False
    before = len(cloud.sent)
    cloud.pass_pause()
    assert len(cloud.sent) > before, "the verdict is out: the next pause is the last"


def test_a_record_of_a_quiet_line_goes_out_at_once_though_the_next_frame_waits() -> None:
    cloud = Cloud(records=1)
    cloud.outbox.connected()
    cloud.run()
    cloud.now += 1.0
    cloud.line_waits = True
    cloud.commit(2)
    cloud.answer()
    assert cloud.sent == [1, 2]


def test_the_next_records_are_read_while_those_before_them_go_out() -> None:
    cloud = catching_up(publishing_s=0.0)
    assert cloud.sent == _run(1, 64)
    assert not cloud.asked, "256 were read, and more than a window is left"
    for _ in range(2):
        cloud.acknowledge()
        cloud.pass_pause()
    assert cloud.sent == _run(1, 192)
    cloud.acknowledge()
    cloud.pass_pause()
    assert cloud.asked == [(256, 256)]
