"""The guest `tile`, and how `boxes` puts its tiles together again."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_guests import Pixels, ReferenceGuests, letterboxed, preprocess

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import TensorSpec
from edge.errors import GuestError
from edge.wasm.roles import Postprocessor, Transform

Rows = list[list[tuple[float, ...]]]
"""Findings of each tile: x0, y0, x1, y1, score, label."""

pytest_plugins = ("reference_guest_fixtures",)


def tiles_of(
    width: int, height: int, rows: int, columns: int, overlap: float
) -> list[tuple[int, int, int, int]]:
    """x, y, width and height of each tile, by the rules of guests/tile/README.md."""

    def axis(side: int, count: int) -> tuple[int, list[int]]:
        length = min(side, math.ceil(side / (count - (count - 1) * overlap)))
        return length, [
            (side - length) * n // (count - 1) if count > 1 else 0 for n in range(count)
        ]

    (w, xs), (h, ys) = axis(width, columns), axis(height, rows)
    return [(x, y, w, h) for y in ys for x in xs]


def picture(seed: int, width: int, height: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(8, 90),
    height=st.integers(8, 70),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    overlap=st.sampled_from([0, 0.1, 0.25, 0.5]),
)
def test_each_tile_is_the_letterbox_of_its_part_of_the_frame(
    guests: ReferenceGuests,
    seed: int,
    width: int,
    height: int,
    rows: int,
    columns: int,
    overlap: float,
) -> None:
    frame = picture(seed, width, height)
    guest = guests.configured("tile", {"rows": rows, "columns": columns, "overlap": overlap})
    shape = (rows * columns, 3, 16, 20)
    found, transform = preprocess(guest, frame, None, "float32", shape, PixelFormat.RGB)
    tiles = tiles_of(width, height, rows, columns, overlap)
    assert tiles[-1][0] + tiles[-1][2] == width
    assert tiles[-1][1] + tiles[-1][3] == height
    for n, (x, y, w, h) in enumerate(tiles):
        wanted = letterboxed(frame[y : y + h, x : x + w], 20, 16, 114)
        np.testing.assert_allclose(found[n] * 255, wanted.transpose(2, 0, 1), atol=0.03)
    assert transform[0] > 0


def merged(
    guests: ReferenceGuests,
    found: Rows,
    transform: Transform,
    frame: tuple[int, int],
    tiles: dict[str, Any],
    **parameters: Any,
) -> list[tuple[float, ...]]:
    """Findings of a model that gives these rows (x0, y0, x1, y1, score, label) of each tile."""
    guest = guests.configured("boxes", {"layout": "nms", "tiles": tiles, **parameters})
    most = max(map(len, found)) or 1
    spec = TensorSpec("output0", "float32", (len(found), most, 6))
    role = Postprocessor(guest, (spec,), class_count=2)
    role.outputs[0][...] = 0
    for n, rows in enumerate(found):
        for i, row in enumerate(rows):
            role.outputs[0][n, i] = row
    return [tuple(row) for row in role.defects(role.run(transform, *frame)).tolist()]


@pytest.mark.parametrize("region", [None, {"left": 0.25, "top": 0.125, "right": 0.75, "bottom": 1}])
def test_a_mark_is_found_where_it_is_whatever_tile_shows_it(
    guests: ReferenceGuests, region: dict[str, float] | None
) -> None:
    """A white mark in the frame is looked for in the tiles, as a model would, and mapped back."""
    grid: dict[str, Any] = {"rows": 2, "columns": 3, "overlap": 0.25}
    if region is not None:
        grid["region"] = region
    width, height = 384, 256
    guest = guests.configured("tile", grid)
    for x, y in ((100, 40), (190, 120), (270, 230), (150, 140)):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[y : y + 8, x : x + 12] = 255
        shape = (6, 3, 128, 128)
        tensor, transform = preprocess(guest, frame, None, "uint8", shape, PixelFormat.BGR)
        rows: Rows = []
        for n in range(6):
            # Half of full white: where resampling has the mark's edge.
            ys, xs = np.nonzero((tensor[n, 0] > 127) & (tensor[n, 0] != 114))
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 0.9, 1) if len(xs) else None
            rows.append([tuple(map(float, box))] if box else [])
        assert any(rows), (x, y)
        found = merged(guests, rows, transform, (width, height), grid, iou=0.3)
        assert any(np.abs(np.array(row[:4]) - (x, y, x + 12, y + 8)).max() < 2 for row in found), (
            x,
            y,
            found,
        )


def test_what_two_tiles_see_is_one_finding_and_of_one_tile_are_two(
    guests: ReferenceGuests,
) -> None:
    grid = {"columns": 2, "overlap": 0.5}
    # Tiles of 40 pixels begin at 0 and 20.
    both: Rows = [[(22.0, 2.0, 38.0, 12.0, 0.8, 1.0)], [(2.0, 2.0, 18.0, 12.0, 0.9, 1.0)]]
    identity = (1.0, 1.0, 0.0, 0.0)
    (row,) = merged(guests, both, identity, (60, 40), grid)
    assert row == pytest.approx((22, 2, 38, 12, 0.9, 1))
    apart: Rows = [both[0], [(2.0, 22.0, 18.0, 32.0, 0.9, 1.0)]]
    assert len(merged(guests, apart, identity, (60, 40), grid)) == 2


def test_a_model_of_another_number_of_tiles_is_refused(guests: ReferenceGuests) -> None:
    guest = guests.configured("tile", {"columns": 2})
    with pytest.raises(GuestError, match=r"\[rows \* columns, 3, height, width\]"):
        preprocess(guest, picture(1, 40, 40), None, "uint8", (3, 3, 16, 16), PixelFormat.RGB)
    with pytest.raises(GuestError, match=r"nms needs one float32 output"):
        merged(guests, [[], [], []], (1.0, 1.0, 0.0, 0.0), (60, 40), {"columns": 2})
