import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import Line, entry, frame

from edge.ledger import reading
from edge.ledger import record as records
from edge.ledger.ledger import Ledger
from edge.ledger.store import Retention
from edge.ledger.verify import Finding, Origin, Place, Report, Row, verify

RECORDS = 24
PRUNED = 6
RECEIPTED = 12
FIRST = PRUNED + 1
SEQS = st.integers(FIRST, RECORDS)


class Content(NamedTuple):
    origin: Origin
    marks: dict[str, Place]
    rows: list[Row]

    def check(self, rows: list[Row] | None = None, expected: Place | None = None) -> Report:
        return verify(self.origin, self.marks, self.rows if rows is None else rows, expected)

    def altered(self, seq: int, **columns: Any) -> list[Row]:
        return [row._replace(**columns) if row.seq == seq else row for row in self.rows]

    def row(self, seq: int) -> Row:
        return self.rows[seq - FIRST]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed ledger, pruned below record 7, receipted up to 12, 24 records in all."""
    path = tmp_path_factory.mktemp("state") / "ledger"
    line = Line()
    ledger = Ledger(path, "box1", line.deliver, retention=Retention(max_records=RECORDS - PRUNED))
    for number in range(RECORDS):
        ledger.append(entry(number), frame(number), line.places.append)
    line.until(lambda: len(line.places) == RECORDS)
    head = _read(path, settled=False).row_of(RECEIPTED).head
    assert line.answer(ledger.receive, RECEIPTED, head) == ("", RECEIPTED)
    line.until(lambda: ledger.counts.pruned == PRUNED)
    ledger.close()
    return path


class _Rows(NamedTuple):
    content: Content

    def row_of(self, seq: int) -> Row:
        return next(row for row in self.content.rows if row.seq == seq)


def _read(path: Path, *, settled: bool = True) -> _Rows:
    database = reading.find(path)
    assert database is not None
    with reading.opened(database) as ledger:
        content = Content(ledger.origin, ledger.marks, list(ledger.rows()))
    assert not settled or content.rows[0].seq == FIRST
    return _Rows(content)


@pytest.fixture(scope="module")
def content(folder: Path) -> Content:
    return _read(folder).content


def _found(report: Report) -> Finding:
    assert report.finding is not None, "nothing was found"
    return report.finding


def test_a_ledger_that_was_left_alone_is_sound_pruned_or_not(content: Content) -> None:
    report = content.check()
    assert report.finding is None
    assert (report.first, report.last, report.records) == (FIRST, RECORDS, RECORDS - PRUNED)
    assert report.head == content.rows[-1].head.hex()


@settings(max_examples=300, deadline=None)
@given(seq=SEQS, at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_byte_of_a_record_that_changes_is_found_there(
    content: Content, seq: int, at: int, flip: int
) -> None:
    body = bytearray(content.row(seq).body)
    body[at % len(body)] ^= flip
    report = content.check(content.altered(seq, body=bytes(body)))
    assert _found(report).seq == seq
    assert report.records == seq - FIRST


@settings(max_examples=60, deadline=None)
@given(seq=SEQS, at=st.integers(0, 31), flip=st.integers(1, 255))
def test_any_byte_of_a_head_or_of_a_frame_digest_that_changes_is_found_there(
    content: Content, seq: int, at: int, flip: int
) -> None:
    for column in ("head", "frame"):
        value = bytearray(getattr(content.row(seq), column))
        value[at] ^= flip
        report = content.check(content.altered(seq, **{column: bytes(value)}))
        assert (_found(report).seq, _found(report).kind) == (seq, "altered")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("frame_id", "frame-x"),
        ("part_id", ""),
        ("pipeline", "pcc"),
        ("at_ns", 1),
        ("body", None),
        ("body", b"{}"),
    ],
)
def test_a_column_that_says_something_else_than_its_record_is_found(
    content: Content, column: str, value: object
) -> None:
    found = _found(content.check(content.altered(9, **{column: value})))
    assert (found.seq, found.kind) == (9, "altered")


@settings(max_examples=60, deadline=None)
@given(first=SEQS, count=st.integers(1, 5))
def test_records_that_are_missing_are_named(content: Content, first: int, count: int) -> None:
    gone = range(first, min(first + count, RECORDS + 1))
    found = _found(content.check([row for row in content.rows if row.seq not in gone]))
    assert (found.seq, found.kind) == (first, "removed")
    assert all(str(seq) in found.detail for seq in (gone[0], gone[-1]))


@settings(max_examples=60, deadline=None)
@given(first=SEQS)
def test_a_gap_that_was_closed_by_renumbering_is_found_where_it_was(
    content: Content, first: int
) -> None:
    rows = [row for row in content.rows if row.seq < first]
    rows += [row._replace(seq=row.seq - 1) for row in content.rows if row.seq > first]
    assert _found(content.check(rows)).seq == first


@settings(max_examples=60, deadline=None)
@given(one=SEQS, other=SEQS)
def test_records_that_were_swapped_are_found_at_the_first(
    content: Content, one: int, other: int
) -> None:
    if one == other:
        return
    first, second = content.row(one), content.row(other)
    rows = [
        second._replace(seq=one)
        if row.seq == one
        else first._replace(seq=other)
        if row.seq == other
        else row
        for row in content.rows
    ]
    found = _found(content.check(rows))
    assert (found.seq, found.kind) == (min(one, other), "displaced")


@settings(max_examples=30, deadline=None)
@given(place=SEQS, original=SEQS)
def test_a_record_that_was_put_in_is_found(content: Content, place: int, original: int) -> None:
    rows = [row for row in content.rows if row.seq < place]
    rows.append(content.row(original)._replace(seq=place))
    rows += [row._replace(seq=row.seq + 1) for row in content.rows if row.seq >= place]
    # A repetition of the very record that lies there shows one place later.
    assert _found(content.check(rows)).seq == (place + 1 if original == place else place)


def test_a_record_behind_the_last_one_is_found(content: Content) -> None:
    last = content.rows[-1]
    body = last.body.replace(b'"seq":%d' % RECORDS, b'"seq":%d' % (RECORDS + 1))
    body = body.replace(content.row(RECORDS - 1).head.hex().encode(), last.head.hex().encode())
    added = last._replace(seq=RECORDS + 1, body=body, head=records.next_head(last.head, body))
    found = _found(content.check([*content.rows, added]))
    assert (found.seq, found.kind) == (RECORDS + 1, "inserted")


def _rewritten(content: Content, first: int, last: int) -> list[Row]:
    """What a forger does who knows the format: alters `first` and mends the chain to `last`."""
    rows, head = [], b""
    for row in content.rows:
        body = row.body
        if row.seq == first:
            body = body.replace(b'"verdict":"reject"', b'"verdict":"pass"')
            assert body != row.body
        elif first < row.seq <= last:
            prev = content.row(row.seq - 1).head.hex().encode()
            body = body.replace(prev, head.hex().encode())
        if first <= row.seq <= last:
            before = content.row(first - 1).head if row.seq == first else head
            head = records.next_head(before, body)
            rows.append(row._replace(body=body, head=head))
        else:
            rows.append(row)
    return rows


@pytest.mark.parametrize(("first", "last"), [(9, 9), (9, 11), (14, 20)])
def test_a_forger_who_mends_the_chain_is_found_where_he_stopped(
    content: Content, first: int, last: int
) -> None:
    found = _found(content.check(_rewritten(content, first, last)))
    assert (found.seq, found.kind) == (last if last != RECEIPTED else RECEIPTED, "altered")


def test_a_forger_who_mends_the_chain_to_its_end_is_found_by_marks_receipt_or_known_head(
    content: Content,
) -> None:
    forged = _rewritten(content, 14, RECORDS)
    assert _found(content.check(forged)).kind == "mark"
    marks = {**content.marks, "head": Place(RECORDS, forged[-1].head)}
    without_witness = content._replace(marks=marks)
    # The negative control: who writes all of the file can only be told by a head from elsewhere.
    assert without_witness.check(forged).finding is None
    known = Place(RECORDS, content.rows[-1].head)
    assert _found(without_witness.check(forged, known)).kind == "rewritten"
    before_receipt = content._replace(rows=_rewritten(content, 9, RECORDS), marks=marks)
    found = _found(before_receipt.check())
    assert (found.seq, found.kind) == (RECEIPTED, "rewritten")


@pytest.mark.parametrize(
    ("mark", "place", "seq"),
    [
        ("head", Place(RECORDS, b"x" * 32), RECORDS),
        ("head", Place(RECORDS - 1, b"x" * 32), RECORDS),
        ("head", Place(RECORDS + 1, b"x" * 32), RECORDS + 1),
        ("anchor", Place(PRUNED, b"x" * 32), FIRST),
        ("anchor", Place(PRUNED - 1, b"x" * 32), PRUNED),
        ("anchor", Place(0, b"x" * 32), 0),
        ("receipt", Place(RECEIPTED, b"x" * 32), RECEIPTED),
        ("receipt", Place(RECORDS + 5, b"x" * 32), RECORDS + 1),
    ],
)
def test_a_mark_that_was_altered_is_found(
    content: Content, mark: str, place: Place, seq: int
) -> None:
    altered = content._replace(marks={**content.marks, mark: place})
    assert _found(altered.check()).seq == seq


def test_a_record_of_another_ledger_is_found(content: Content) -> None:
    other = content._replace(origin=Origin("0" * 16, "box1", 1))
    found = _found(other.check())
    assert (found.seq, found.kind) == (FIRST, "inserted")


def test_a_known_head_that_lies_on_the_chain_is_no_finding(content: Content) -> None:
    for seq in (PRUNED, FIRST, RECORDS):
        head = content.marks["anchor"].head if seq == PRUNED else content.row(seq).head
        assert content.check(expected=Place(seq, head)).finding is None


def test_a_file_altered_by_another_tool_is_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ledger.db"
    copy.write_bytes((folder / "ledger.db").read_bytes())
    with sqlite3.connect(copy) as database:
        database.execute(
            "UPDATE record SET body = CAST(replace(CAST(body AS TEXT), 'part-', 'bart-') AS BLOB) "
            "WHERE seq = 20"
        )
    database.close()
    found = _found(_read(copy.parent).content.check())
    assert found.seq == 20
