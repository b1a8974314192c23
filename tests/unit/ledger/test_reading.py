"""What is found in a ledger, and by which way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import Line, entry, frame

from edge.contracts.verdict import Kind
from edge.ledger import reading
from edge.ledger.entry import Correction
from edge.ledger.ledger import Ledger
from edge.ledger.reading import Reading
from edge.ledger.verify import Row

RECORDS = 300


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Reading]:
    """Verdicts of two pipelines on the same frames, and a word on one of them."""
    line = Line()
    ledger = Ledger(tmp_path / "ledger", "box1", line.deliver)
    for number in range(1, RECORDS + 1):
        for pipeline in ("side", "top"):
            ledger.append(entry(number, pipeline=pipeline), frame(number), line.places.append)
    line.until(lambda: len(line.places) == 2 * RECORDS)
    assert line.answer(ledger.override, Correction(Kind.PASS, "lead", "a hair", seq=3))[0] == ""
    ledger.close(0)
    path = reading.find(tmp_path)
    assert path is not None
    with reading.opened(path) as opened:
        yield opened


def test_a_frame_is_found_in_every_pipeline_that_judged_it(copy: Reading) -> None:
    found = list(copy.newest_of_frame("frame-2", 2 * RECORDS, 10))
    assert [(row.seq, row.pipeline) for row in found] == [(4, "top"), (3, "side")]
    assert [row.seq for row in copy.of_frame("frame-2")] == [3, 4, 2 * RECORDS + 1]
    assert [row.seq for row in copy.newest_of_frame("frame-2", 4, 10)] == [3]
    assert [row.seq for row in copy.newest_of_frame("frame-2", 2 * RECORDS, 1)] == [4]
    assert list(copy.newest_of_frame("frame-", 2 * RECORDS, 10)) == []


def test_the_newest_of_a_part_are_found_below_a_place(copy: Reading) -> None:
    last = 2 * RECORDS + 1
    assert [row.seq for row in copy.of_part("part-1")] == [3, 4, 5, 6, last]
    assert [row.seq for row in copy.newest_of_part("part-1", last + 1, 3)] == [last, 6, 5]
    assert [row.seq for row in copy.newest_of_part("part-1", 5, 3)] == [4, 3]


def test_a_verdict_is_found_by_its_frame_or_part_without_reading_the_others(copy: Reading) -> None:
    assert _steps(copy, lambda: copy.newest_of_frame("frame-90", 999, 9)) < RECORDS
    assert _steps(copy, lambda: copy.of_part("part-40")) < RECORDS
    assert _steps(copy, lambda: copy.newest_of_part("part-40", 999, 9)) < RECORDS
    assert _steps(copy, lambda: copy.of_frame("frame-90")) > 2 * RECORDS  # control


def _steps(copy: Reading, look: Callable[[], Iterator[Row]]) -> int:
    """How many instructions SQLite takes for a look."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    database = copy._database
    database.set_progress_handler(count, 1)
    assert list(look())
    database.set_progress_handler(None, 1)
    return taken
