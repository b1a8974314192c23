"""The line: deterministic, with the share of good parts that was asked for, and writable."""

import csv
from itertools import islice
from pathlib import Path

import pytest

from edge.linesim import KINDS, boards_of, line
from edge.linesim.folder import BOX_COLUMNS, PART_COLUMNS, write_folder


def test_a_line_is_the_same_again() -> None:
    first, second = (list(islice(line(3, boards=2), 6)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.part_id == other.part_id
        assert one.boxes == other.boxes
        assert (one.image == other.image).all()


def test_parts_are_unique_and_refer_to_boards_of_the_line() -> None:
    parts = list(islice(line(3, boards=3), 20))
    known = {board.reference_id for board in boards_of(3, 3)}
    assert len({part.part_id for part in parts}) == 20
    assert {part.reference_id for part in parts} <= known


@pytest.mark.parametrize(("ok_share", "good"), [(0.0, 0), (1.0, 12)])
def test_the_share_of_good_parts_is_kept_at_its_ends(ok_share: float, good: int) -> None:
    parts = list(islice(line(1, ok_share, boards=1), 12))
    assert sum(part.is_good for part in parts) == good


def test_the_share_of_good_parts_is_about_what_was_asked_for() -> None:
    parts = list(islice(line(2, 0.7, boards=1), 120))
    assert 0.55 < sum(part.is_good for part in parts) / len(parts) < 0.85
    assert {box.label for part in parts for box in part.boxes} == set(KINDS)


@pytest.mark.parametrize("ok_share", [-0.1, 1.1])
def test_a_share_outside_its_range_is_refused(ok_share: float) -> None:
    with pytest.raises(ValueError, match="ok_share is a share"):
        next(line(1, ok_share))


@pytest.mark.parametrize("boards", [0, 1001])
def test_a_number_of_boards_outside_its_range_is_refused(boards: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000 board types"):
        next(line(1, boards=boards))


def test_a_written_folder_holds_every_part_with_its_truth(tmp_path: Path) -> None:
    parts = list(islice(line(4, 0.5, boards=2), 8))
    assert write_folder(tmp_path, parts, boards_of(4, 2)) == 8
    with (tmp_path / "parts.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert tuple(rows[0]) == PART_COLUMNS
    assert [row["part_id"] for row in rows] == [part.part_id for part in parts]
    assert [row["verdict"] for row in rows] == ["OK" if part.is_good else "NG" for part in parts]
    assert {row["residual_px"] for row in rows} == {"0"}
    with (tmp_path / "boxes.csv").open(newline="") as table:
        boxes = list(csv.DictReader(table))
    assert tuple(boxes[0]) == BOX_COLUMNS
    assert len(boxes) == sum(len(part.boxes) for part in parts)
    for row in rows:
        assert (tmp_path / "images" / row["image"]).is_file()
        assert (tmp_path / "images" / row["template"]).is_file()


def test_a_part_of_an_unknown_board_is_refused(tmp_path: Path) -> None:
    parts = list(islice(line(4, boards=1), 1))
    with pytest.raises(ValueError, match="no board board-4000 was passed"):
        write_folder(tmp_path, parts, boards_of(5, 1))
