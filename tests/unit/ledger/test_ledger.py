import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ledgers import Line, entry, frame

from edge.contracts import verdict as verdicts
from edge.errors import StorageError
from edge.ledger import ledger as ledgers
from edge.ledger import reading, schema, store
from edge.ledger.ledger import Ledger
from edge.ledger.store import Retention
from edge.ledger.verify import Report, verify

Open = Callable[..., Ledger]


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def opened(line: Line, folder: Path) -> Iterator[Open]:
    """Opens the ledger; what is left open is closed at the end."""
    ledgers: list[Ledger] = []

    def open_one(**given: Any) -> Ledger:
        ledger = Ledger(folder, "box1", line.deliver, on_trouble=line.troubles.append, **given)
        ledgers.append(ledger)
        return ledger

    yield open_one
    for ledger in ledgers:
        ledger.close(0)


def _commit(ledger: Ledger, line: Line, first: int, last: int) -> list[int]:
    """Append the frames first..last, wait for their commits, and return their places."""
    before = len(line.places)
    for number in range(first, last + 1):
        ledger.append(entry(number), frame(number), line.places.append)
    line.until(lambda: len(line.places) == before + last - first + 1)
    return line.places[before:]


def _report(folder: Path) -> Report:
    path = reading.find(folder)
    assert path is not None
    with reading.opened(path) as copy:
        return verify(copy.origin, copy.marks, copy.rows())


def _head(folder: Path, seq: int) -> bytes:
    path = reading.find(folder)
    assert path is not None
    with reading.opened(path) as copy:
        return next(row.head for row in copy.rows() if row.seq == seq)


def test_records_commit_in_the_order_of_append(opened: Open, line: Line, folder: Path) -> None:
    ledger = opened()
    assert _commit(ledger, line, 1, 300) == list(range(1, 301))
    assert ledger.committed == 300
    assert ledger.waiting == 0
    assert ledger.counts.batches < 300
    report = _report(folder)
    assert (report.finding, report.records) == (None, 300)


def test_answers_come_on_the_event_loops_thread(folder: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        ledger = Ledger(folder, "box1", loop.call_soon_threadsafe)
        committed: asyncio.Future[int] = loop.create_future()
        # set_result from another thread would not wake the loop: this would run into the deadline.
        ledger.append(entry(1), frame(1), committed.set_result)
        async with asyncio.timeout(60):
            assert await committed == 1
            assert await asyncio.to_thread(ledger.close) == 0

    asyncio.run(run(), debug=True)


def test_a_ledger_goes_on_where_it_was_closed(opened: Open, line: Line, folder: Path) -> None:
    first = opened()
    _commit(first, line, 1, 5)
    assert first.close() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.db", "ledger.lock", "reserve"]
    again = opened()
    assert again.committed == 5
    assert _commit(again, line, 6, 8) == [6, 7, 8]
    assert _report(folder).records == 8


def test_closing_commits_what_waits(opened: Open, line: Line, folder: Path) -> None:
    ledger = opened()
    for number in range(200):
        ledger.append(entry(number), frame(number), line.places.append)
    assert ledger.close() == 0
    assert _report(folder).records == 200
    line.until(lambda: len(line.places) == 200)
    with pytest.raises(StorageError, match="closed"):
        ledger.append(entry(1), frame(1), line.places.append)


def test_a_frame_that_comes_again_keeps_its_place(opened: Open, line: Line, folder: Path) -> None:
    ledger = opened()
    _commit(ledger, line, 1, 3)
    second_opinion = entry(2)
    for _ in range(2):
        ledger.append(second_opinion, frame(2), line.places.append)
    line.until(lambda: len(line.places) == 5)
    assert line.places == [1, 2, 3, 2, 2]
    assert _report(folder).records == 3


def test_other_pixels_or_another_pipeline_under_an_old_frame_id_are_another_record(
    opened: Open, line: Line
) -> None:
    ledger = opened()
    ledger.append(entry(1), b"monday", line.places.append)
    ledger.append(entry(1), b"tuesday", line.places.append)
    ledger.append(entry(1, pipeline="lid"), b"monday", line.places.append)
    line.until(lambda: len(line.places) == 3)
    assert line.places == [1, 2, 3]


def test_verdicts_are_found_again_after_a_restart(opened: Open, line: Line) -> None:
    first = opened()
    _commit(first, line, 1, 30)
    first.append(entry(99, pipeline="lid"), frame(99), line.places.append)
    first.close()
    again = opened()
    recent = line.answer(again.recent, "pcb", 10)
    assert [given.frame_id for given in recent] == [f"frame-{n}" for n in range(21, 31)]
    assert [given.fingerprint for given in recent] == list(range(21, 31))
    assert verdicts.from_json(recent[-1].verdict) == entry(30).verdict
    assert line.answer(again.find, "pcb", "frame-1").fingerprint == 1
    assert line.answer(again.find, "pcb", "frame-99") is None
    assert line.answer(again.find, "lid", "frame-99").fingerprint == 99


# Receipts


def test_receipts_take_records_out_of_the_outbox_in_any_order(
    opened: Open, line: Line, folder: Path
) -> None:
    ledger = opened()
    _commit(ledger, line, 1, 10)
    heads = {seq: _head(folder, seq) for seq in (3, 5, 7)}
    for seq, reached in ((5, 5), (3, 5), (5, 5), (7, 7), (3, 7)):
        assert line.answer(ledger.receive, seq, heads[seq]) == ("", reached)
        assert [found.seq for found in line.answer(ledger.pending, 0, 2)] == [
            reached + 1,
            reached + 2,
        ]
    assert ledger.receipted == 7
    ledger.close()
    assert opened().receipted == 7


def test_pending_records_are_the_canonical_bytes_in_order(opened: Open, line: Line) -> None:
    ledger = opened()
    _commit(ledger, line, 1, 10)
    found = line.answer(ledger.pending, 4, 3)
    assert [(each.seq, msgspec.json.decode(each.body)["seq"]) for each in found] == [
        (5, 5),
        (6, 6),
        (7, 7),
    ]
    assert line.answer(ledger.pending, 10, 3) == []


@pytest.mark.parametrize(
    ("seq", "head", "why"),
    [
        (11, None, "does not exist"),
        (0, None, "does not exist"),
        (-1, None, "does not exist"),
        (4, b"x" * 32, "the head at record 4 is"),
        (4, b"", "the head at record 4 is"),
        (4, "head of 5", "the head at record 4 is"),
        (2, b"x" * 32, "the head at record 2 is"),
    ],
)
def test_a_receipt_that_does_not_fit_is_refused_by_name_and_changes_nothing(
    opened: Open, line: Line, folder: Path, seq: int, head: Any, why: str
) -> None:
    ledger = opened()
    _commit(ledger, line, 1, 10)
    line.answer(ledger.receive, 3, _head(folder, 3))
    given = _head(folder, 5) if head in (None, "head of 5") else head
    refusal, reached = line.answer(ledger.receive, seq, given)
    assert why in refusal
    assert reached == 3
    assert ledger.counts.refused_receipts == 1
    assert [found.seq for found in line.answer(ledger.pending, 0, 1)] == [4]


# Retention


def test_only_what_was_receipted_is_pruned_and_the_rest_can_be_verified(
    opened: Open, line: Line, folder: Path
) -> None:
    ledger = opened(retention=Retention(max_records=4))
    _commit(ledger, line, 1, 20)
    assert ledger.counts.pruned == 0
    early = _head(folder, 5)
    line.answer(ledger.receive, 10, _head(folder, 10))
    line.until(lambda: ledger.counts.pruned == 10)
    report = _report(folder)
    assert (report.first, report.records, report.finding) == (11, 10, None)
    assert line.answer(ledger.receive, 5, early) == ("", 10)  # late, and pruned: nothing to do
    ledger.close()
    again = opened(retention=Retention(max_records=4))
    assert _commit(again, line, 21, 22) == [21, 22]
    assert _report(folder).finding is None


def test_old_records_go_after_their_receipt(opened: Open, line: Line, folder: Path) -> None:
    ledger = opened(retention=Retention(max_age_s=3_600))
    now_ns = time.time_ns()
    for number in range(1, 7):
        old = entry(number, decided_at_ns=now_ns - (7_200_000_000_000 if number < 4 else 0))
        ledger.append(old, frame(number), line.places.append)
    line.until(lambda: len(line.places) == 6)
    line.answer(ledger.receive, 6, _head(folder, 6))
    line.until(lambda: ledger.counts.pruned == 3)
    assert _report(folder).first == 4


def test_all_records_may_be_pruned_and_the_chain_goes_on(
    opened: Open, line: Line, folder: Path
) -> None:
    ledger = opened(retention=Retention(max_records=0))
    _commit(ledger, line, 1, 3)
    line.answer(ledger.receive, 3, _head(folder, 3))
    line.until(lambda: ledger.counts.pruned == 3)
    report = _report(folder)
    assert (report.records, report.last, report.finding) == (0, 3, None)
    ledger.close()
    again = opened()
    assert _commit(again, line, 4, 4) == [4]
    assert _report(folder).finding is None


def _is_past(ledger: Ledger, seq: int) -> bool:
    return ledger.committed > seq


def test_a_full_quota_holds_records_back_until_a_receipt_makes_room(
    opened: Open, line: Line, folder: Path
) -> None:
    ledger = opened(retention=Retention(max_bytes=1 << 20))
    accepted = 0
    while not ledger.trouble:
        try:
            ledger.append(entry(accepted), frame(accepted), line.places.append)
            accepted += 1
        except StorageError:  # faster than the disk: not what is looked for here
            line.until(lambda: ledger.waiting < 512 or bool(ledger.trouble))
    assert "quota" in ledger.trouble
    assert ledger.waiting == accepted - ledger.committed > 0
    while ledger.waiting:  # each receipt makes room for about as many as it covers
        covered = ledger.committed
        line.answer(ledger.receive, covered, _head(folder, covered))
        line.until(partial(_is_past, ledger, covered))
    line.until(lambda: len(line.places) == accepted)
    assert line.places == list(range(1, accepted + 1))
    line.until(lambda: ledger.trouble == "")
    assert line.troubles[-1] == ""
    assert _report(folder).finding is None


# Trouble


@pytest.fixture
def failing_writes() -> Iterator[Callable[[bool], None]]:
    """Lets all writes beyond 8 KiB of a file fail, in this whole process, until told otherwise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(fail: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_192 if fail else soft, hard))

    yield switch
    switch(False)


def test_storage_that_fails_costs_no_record_that_was_accepted(
    opened: Open,
    line: Line,
    folder: Path,
    failing_writes: Callable[[bool], None],
) -> None:
    ledger = opened()
    _commit(ledger, line, 1, 10)
    failing_writes(True)
    for number in range(11, 21):
        ledger.append(entry(number), frame(number), line.places.append)
    line.until(lambda: ledger.counts.failures >= 3)
    assert "ledger.db" in ledger.trouble
    assert line.troubles == [ledger.trouble]
    assert ledger.waiting == 10
    assert len(line.places) == 10
    failing_writes(False)
    line.until(lambda: len(line.places) == 20)
    line.until(lambda: line.troubles[-1] == "")
    assert line.places == list(range(1, 21))
    report = _report(folder)
    assert (report.records, report.finding) == (20, None)


def test_too_much_waiting_is_refused_and_nothing_accepted_is_lost(
    opened: Open,
    line: Line,
    folder: Path,
    failing_writes: Callable[[bool], None],
) -> None:
    ledger = opened()
    failing_writes(True)
    for number in range(ledgers.MAX_WAITING):
        ledger.append(entry(number), frame(number), line.places.append)
    with pytest.raises(StorageError, match="wait for the disk"):
        ledger.append(entry(-1), frame(-1), line.places.append)
    failing_writes(False)
    line.until(lambda: len(line.places) == ledgers.MAX_WAITING)
    assert _report(folder).records == ledgers.MAX_WAITING


def test_closing_in_trouble_gives_up_at_its_deadline_and_says_how_many(
    opened: Open, line: Line, folder: Path, failing_writes: Callable[[bool], None]
) -> None:
    ledger = opened()
    _commit(ledger, line, 1, 2)
    failing_writes(True)
    for number in range(3, 6):
        ledger.append(entry(number), frame(number), line.places.append)
    assert ledger.close(grace_s=0.3) == 3
    failing_writes(False)
    assert opened().committed == 2


def test_a_bug_is_raised_on_the_loops_thread_and_ends_the_ledger(opened: Open, line: Line) -> None:
    ledger = opened()
    wrong: Any = msgspec.structs.replace(entry(1), signals={"signal.lamp": object()})
    ledger.append(wrong, frame(1), line.places.append)
    with pytest.raises(AttributeError):
        line.until(lambda: False)
    assert "bug" in ledger.trouble
    with pytest.raises(StorageError, match="bug"):
        ledger.append(entry(2), frame(2), line.places.append)
    assert line.places == []


# Opening


def test_a_second_process_is_refused_while_the_first_lives(
    opened: Open, line: Line, folder: Path
) -> None:
    ledger = opened()
    code = (
        "import sys, pathlib; from edge.ledger.ledger import Ledger\n"
        "Ledger(pathlib.Path(sys.argv[1]), 'box1', lambda call: call()).close()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert "another process writes this ledger" in second.stderr
    _commit(ledger, line, 1, 1)
    ledger.close()
    third = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (third.returncode, third.stderr) == (0, "")


@pytest.fixture
def closed(opened: Open, line: Line, folder: Path) -> Path:
    """A closed ledger of 50 records; returns its database."""
    ledger = opened()
    _commit(ledger, line, 1, 50)
    ledger.close()
    return folder / "ledger.db"


def _refused(opened: Open, path: Path) -> str:
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StorageError) as refused:
        opened()
    assert (path.read_bytes() if path.exists() else None) == before, "it was changed"
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_a_file_that_is_no_database_is_refused(opened: Open, closed: Path) -> None:
    closed.write_bytes(b"not a database" * 1_000)
    assert "damaged" in _refused(opened, closed)


def test_a_page_of_zeros_is_refused(opened: Open, closed: Path) -> None:
    content = bytearray(closed.read_bytes())
    content[-3 * 4_096 :] = bytes(3 * 4_096)
    closed.write_bytes(content)
    refusal = _refused(opened, closed)
    assert "damaged" in refusal or "chain breaks" in refusal


def test_an_altered_record_near_the_end_is_refused(opened: Open, closed: Path) -> None:
    content = closed.read_bytes()
    assert content.count(b'"frame_id":"frame-49"') == 1
    closed.write_bytes(content.replace(b'"frame_id":"frame-49"', b'"frame_id":"frame-94"'))
    assert "chain breaks at record 49" in _refused(opened, closed)


@pytest.mark.parametrize("content", [None, b""])
def test_a_ledger_that_is_gone_is_not_begun_anew(
    opened: Open, closed: Path, content: bytes | None
) -> None:
    closed.unlink()
    if content is not None:
        closed.write_bytes(content)
    assert "is gone" in _refused(opened, closed)
    (closed.parent / "ledger.lock").unlink()
    assert opened().committed == 0


def test_the_ledger_of_another_device_is_refused(closed: Path, line: Line) -> None:
    with pytest.raises(StorageError, match="belongs to device 'box1', and this is 'box2'"):
        Ledger(closed.parent, "box2", line.deliver)


def test_an_exchanged_ledger_is_refused(
    opened: Open, closed: Path, tmp_path: Path, line: Line
) -> None:
    Ledger(tmp_path / "other", "box1", line.deliver).close()
    closed.write_bytes((tmp_path / "other" / "ledger.db").read_bytes())
    assert "was exchanged" in _refused(opened, closed)


def test_a_later_schema_is_refused_and_left_alone(opened: Open, closed: Path) -> None:
    content = bytearray(closed.read_bytes())
    later = schema.SCHEMA_VERSION + 1
    content[60:64] = later.to_bytes(4, "big")  # user_version: sqlite.org/fileformat2.html, 1.3
    closed.write_bytes(content)
    assert f"schema version {later}" in _refused(opened, closed)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, line: Line) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Ledger(tmp_path / "file" / "ledger", "box1", line.deliver)


def test_more_is_pruned_than_fits_one_transaction(opened: Open, line: Line, folder: Path) -> None:
    ledger = opened(retention=Retention(max_records=0))
    last = store.PRUNE_RECORDS + 10
    _commit(ledger, line, 1, last)
    line.answer(ledger.receive, last, _head(folder, last))
    line.until(lambda: ledger.counts.pruned == last)
