"""Defects: each is where and what its box says, and nothing else on the board changed."""

import cv2
import numpy as np
import pytest

from edge.linesim import KINDS, SIDE, Board, Box, render_part
from edge.linesim.defects import draw_defect


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_every_change_lies_inside_the_box_with_a_margin(kind: str, seed: int) -> None:
    board = Board(seed)
    copper, box = draw_defect(board.copper, kind, rng(seed))
    rows, columns = np.nonzero(copper != board.copper)
    assert box.label == kind
    assert box.x0 + 9 <= columns.min()
    assert columns.max() < box.x1 - 8
    assert box.y0 + 9 <= rows.min()
    assert rows.max() < box.y1 - 8
    assert 0 <= box.x0 < box.x1 <= SIDE
    assert 0 <= box.y0 < box.y1 <= SIDE


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_takes_or_adds_copper_and_never_both(kind: str) -> None:
    board = Board(11)
    copper, _ = draw_defect(board.copper, kind, rng(4))
    change = copper.astype(int) - board.copper
    assert set(np.unique(change)) == {0, 1 if kind in {"short", "spur", "copper"} else -1}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("kind", "copper_pieces", "laminate_pieces"), [("copper", 1, 0), ("pin-hole", 0, 1)]
)
def test_islands_stand_alone(
    kind: str, copper_pieces: int, laminate_pieces: int, seed: int
) -> None:
    board = Board(seed)
    copper, _ = draw_defect(board.copper, kind, rng(seed))
    assert pieces(copper) - pieces(board.copper) == copper_pieces
    assert pieces(1 - copper) - pieces(1 - board.copper) == laminate_pieces


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["mousebite", "spur"])
def test_bites_neither_cut_nor_bridge(kind: str, seed: int) -> None:
    board = Board(seed)
    copper, _ = draw_defect(board.copper, kind, rng(seed))
    assert pieces(copper) == pieces(board.copper)
    assert pieces(1 - copper) == pieces(1 - board.copper)


@pytest.mark.parametrize("seed", range(8))
def test_an_open_parts_the_copper_of_its_window(seed: int) -> None:
    board = Board(seed)
    copper, box = draw_defect(board.copper, "open", rng(seed))
    window = (slice(box.y0, box.y1), slice(box.x0, box.x1))
    assert pieces(copper[window]) > pieces(board.copper[window])


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_shows_in_the_picture_and_nowhere_else(kind: str) -> None:
    board = Board(9)
    part = render_part(board, 3, [kind])
    good = render_part(board, 4)
    differs = ((part.image > 127) != (good.image > 127)).astype(np.uint8)
    thick = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    (box,) = part.boxes
    inside = thick[box.y0 : box.y1, box.x0 : box.x1].copy()
    thick[box.y0 : box.y1, box.x0 : box.x1] = 0
    assert inside.sum() >= 16
    assert not cv2.morphologyEx(thick, cv2.MORPH_OPEN, np.ones((4, 4), np.uint8)).any()


def test_defects_of_one_part_keep_apart() -> None:
    boxes = render_part(Board(0), 1, KINDS).boxes
    assert [box.label for box in boxes] == list(KINDS)
    assert not any(a.touches(b) for a in boxes for b in boxes if a is not b)


def test_sizes_are_those_of_the_data_set() -> None:
    # DeepPCB's training boxes: 2 % are longer than 119 px (opens), 2 % shorter than 23 px.
    boxes = [render_part(Board(s), 0, [kind]).boxes[0] for s in range(10) for kind in KINDS]
    sides = [side for b in boxes for side in (b.x1 - b.x0, b.y1 - b.y0)]
    assert min(sides) >= 20
    assert max(sides) <= 119
    assert 28 <= np.median(sides) <= 44


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'scratch' is no defect; known are open, short"):
        draw_defect(Board(0).copper, "scratch", rng(0))


def test_a_board_without_room_says_so() -> None:
    with pytest.raises(ValueError, match="no room for a defect of kind pin-hole"):
        draw_defect(np.zeros((SIDE, SIDE), np.uint8), "pin-hole", rng(0))


def test_boxes_touch_only_within_the_margin() -> None:
    box = Box(10, 10, 20, 20, "open")
    assert not box.touches(Box(20, 10, 30, 20, "open"))
    assert box.touches(Box(20, 10, 30, 20, "open"), margin=1)


def pieces(mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    return cv2.connectedComponents(np.ascontiguousarray(mask), connectivity=4)[0] - 1
