"""What is cut out around a finding: inside the frame, never empty, at the scale that was asked."""

import random

import pytest

from edge.contracts.plan import CropPlan
from edge.pipeline.crops import Window, window

WIDTH, HEIGHT = 200, 100
TIGHT = CropPlan(margin=0.0, min_side_px=1, square=False)
SQUARE = CropPlan(margin=0.25, min_side_px=32, square=True)


@pytest.mark.parametrize(
    ("box", "crop", "expected"),
    [
        ((10, 20, 30, 40), TIGHT, Window(10, 20, 20, 20)),
        ((10.2, 20.2, 30.4, 40.4), TIGHT, Window(10, 20, 21, 21)),
        ((50, 20, 90, 40), SQUARE, Window(40, 0, 60, 60)),
        ((100, 50, 104, 52), SQUARE, Window(86, 35, 32, 32)),
    ],
    ids=["tight", "whole pixels", "grown to a square", "grown to the least side"],
)
def test_a_window_lies_around_its_box(
    box: tuple[float, float, float, float], crop: CropPlan, expected: Window
) -> None:
    assert window(box, crop, WIDTH, HEIGHT) == expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 4, 4), Window(0, 0, 32, 32)),
        ((196, 96, 200, 100), Window(168, 68, 32, 32)),
        ((0, 50, 0, 50), Window(0, 34, 32, 32)),
        ((200, 100, 200, 100), Window(168, 68, 32, 32)),
    ],
    ids=["first corner", "last corner", "empty at the edge", "empty in the corner"],
)
def test_at_the_edge_a_window_is_moved_and_not_cut(
    box: tuple[float, float, float, float], expected: Window
) -> None:
    assert window(box, SQUARE, WIDTH, HEIGHT) == expected


def test_a_frame_smaller_than_the_least_side_is_shown_whole() -> None:
    assert window((1, 1, 2, 2), SQUARE, 7, 5) == Window(0, 0, 7, 5)


def test_an_empty_box_shows_a_pixel_where_no_side_is_asked_for() -> None:
    assert window((5, 5, 5, 5), TIGHT, WIDTH, HEIGHT)[2:] == (1, 1)


def test_no_box_in_a_frame_leads_outside_of_it() -> None:
    drawn = random.Random(1)
    for _ in range(5_000):
        width, height = drawn.randint(1, 300), drawn.randint(1, 300)
        x0, x1 = sorted(drawn.uniform(0, width) for _ in range(2))
        y0, y1 = sorted(drawn.uniform(0, height) for _ in range(2))
        crop = CropPlan(drawn.uniform(0, 16), drawn.randint(1, 400), drawn.random() < 0.5)
        left, top, across, down = window((x0, y0, x1, y1), crop, width, height)
        assert 0 <= left <= left + across <= width
        assert 0 <= top <= top + down <= height
        assert across >= min(crop.min_side_px, width)
        assert down >= min(crop.min_side_px, height)
