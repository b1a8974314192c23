"""What a person says of a verdict: a record of its own that binds the one it speaks of."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from ledgers import Line, entry, frame

from edge.contracts.verdict import Kind
from edge.ledger import reading
from edge.ledger import record as records
from edge.ledger.entry import MAX_REASON_CHARS, Correction
from edge.ledger.ledger import Ledger
from edge.ledger.record import Override
from edge.ledger.verify import verify

SAID = Correction(
    verdict=Kind.PASS, by="line lead", reason="a reflex on the pad", seq=1, via="uid 1000 (anna)"
)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def ledger(tmp_path: Path, line: Line) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger", "box1", line.deliver)
    yield opened
    opened.close(0)


def _record(ledger: Ledger, line: Line, number: int, *, pipeline: str = "pcb") -> None:
    before = len(line.places)
    ledger.append(entry(number, pipeline=pipeline), frame(number), line.places.append)
    line.until(lambda: len(line.places) > before)


def _bodies(tmp_path: Path) -> list[bytes]:
    path = reading.find(tmp_path)
    assert path is not None
    with reading.opened(path) as copy:
        return [row.body for row in copy.rows()]


def test_an_override_is_chained_and_names_what_it_speaks_of(
    tmp_path: Path, ledger: Ledger, line: Line
) -> None:
    for number in (1, 2, 3):
        _record(ledger, line, number)
    assert line.answer(ledger.override, SAID) == ("", 4)
    _record(ledger, line, 4)
    bodies = _bodies(tmp_path)
    said = records.decode(bodies[3])
    assert isinstance(said, Override)
    assert (said.of, said.was, said.verdict) == (1, Kind.REJECT, Kind.PASS)
    assert said.of_leaf == records.leaf_hash(bodies[0]).hex()
    assert (said.by, said.via, said.reason) == (SAID.by, SAID.via, SAID.reason)
    assert (said.part_id, said.frame_id) == ("part-0", "frame-1")
    path = reading.find(tmp_path)
    assert path is not None
    with reading.opened(path) as copy:
        report = verify(copy.origin, copy.marks, copy.rows())
    assert (report.records, report.finding) == (5, None)
    assert ledger.committed == 5


def test_a_part_means_its_last_verdict(tmp_path: Path, ledger: Ledger, line: Line) -> None:
    for number in (2, 3, 4):  # 2 and 3 are of part-1
        _record(ledger, line, number)
    correction = msgspec.structs.replace(SAID, seq=0, part_id="part-1")
    assert line.answer(ledger.override, correction) == ("", 4)
    said = records.decode(_bodies(tmp_path)[3])
    assert isinstance(said, Override)
    assert said.of == 2
    # And once more: the last word counts, and every one of them stays.
    again = msgspec.structs.replace(correction, verdict=Kind.REVIEW)
    assert line.answer(ledger.override, again) == ("", 5)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"seq": 9}, "record 9 is not there"),
        ({"seq": 1 << 64}, "record 18446744073709551616 is not there"),
        ({"seq": 2}, "record 2 is an override itself"),
        ({"seq": 0, "part_id": "part-77"}, "no verdict of part 'part-77' is kept here"),
        ({"seq": 0, "part_id": "part-0", "pipeline": "glue"}, "no verdict of part"),
    ],
)
def test_what_nobody_judged_cannot_be_overridden(
    ledger: Ledger, line: Line, change: dict[str, object], refusal: str
) -> None:
    _record(ledger, line, 1)
    assert line.answer(ledger.override, SAID) == ("", 2)
    told, seq = line.answer(ledger.override, msgspec.structs.replace(SAID, **change))
    assert refusal in told
    assert seq == 0
    assert ledger.committed == 2


def test_a_part_of_two_pipelines_needs_the_name_of_one(ledger: Ledger, line: Line) -> None:
    _record(ledger, line, 1)
    _record(ledger, line, 1, pipeline="glue")
    ambiguous = msgspec.structs.replace(SAID, seq=0, part_id="part-0")
    assert "judged by glue, pcb: name the pipeline" in line.answer(ledger.override, ambiguous)[0]
    named = msgspec.structs.replace(ambiguous, pipeline="glue")
    assert line.answer(ledger.override, named) == ("", 3)


def test_an_override_is_no_verdict_of_its_frame(ledger: Ledger, line: Line) -> None:
    _record(ledger, line, 1)
    before = line.answer(ledger.find, "pcb", "frame-1")
    line.answer(ledger.override, SAID)
    assert line.answer(ledger.find, "pcb", "frame-1") == before
    assert [given.frame_id for given in line.answer(ledger.recent, "pcb", 10)] == ["frame-1"]
    _record(ledger, line, 1)  # delivered again: it has its place already
    assert line.places == [1, 1]


def test_the_cloud_gets_it_in_its_place(ledger: Ledger, line: Line) -> None:
    _record(ledger, line, 1)
    line.answer(ledger.override, SAID)
    sent = [json.loads(each.body)["type"] for each in line.answer(ledger.pending, 0, 10)]
    assert sent == ["verdict", "override"]


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0},
        {"part_id": "p-1"},
        {"seq": -1},
        {"by": ""},
        {"by": " "},
        {"by": "x" * 65},
        {"by": "line\x1b[2Jlead"},
        {"reason": ""},
        {"reason": "x" * (MAX_REASON_CHARS + 1)},
        {"reason": "two\nlines"},
        {"seq": 0, "part_id": "x" * 129},
    ],
)
def test_a_request_that_says_too_little_or_too_much_is_refused(change: dict[str, object]) -> None:
    assert not SAID.problem()
    assert msgspec.structs.replace(SAID, **change).problem()
