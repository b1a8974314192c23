"""The guest `heat`: from an anomaly map to regions."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_guests import ReferenceGuests

from edge.contracts.plan import TensorSpec
from edge.errors import GuestError, IncompatibleError
from edge.wasm.roles import Postprocessor, Transform

pytest_plugins = ("reference_guest_fixtures",)

Map = npt.NDArray[np.float32]
IDENTITY: Transform = (1.0, 1.0, 0.0, 0.0)
FRAME = (4096, 4096)


def run(
    guests: ReferenceGuests,
    heat: Map,
    parameters: dict[str, Any],
    transform: Transform = IDENTITY,
    frame: tuple[int, int] = FRAME,
    **around: Any,
) -> list[tuple[float, ...]]:
    """The findings as (x0, y0, x1, y1, score), in the guest's order."""
    guest = guests.configured("heat", parameters, **around)
    role = Postprocessor(guest, (TensorSpec("map", "float32", (1, 1, *heat.shape)),), class_count=1)
    role.outputs[0][0, 0] = heat
    return [row[:5] for row in role.defects(role.run(transform, *frame)).tolist()]


def regions(heat: Map, threshold: float, neighbours: int) -> list[set[tuple[int, int]]]:
    """Connected components by flood filling, in the order of their first cells."""
    left = {(int(y), int(x)) for y, x in np.argwhere(heat >= np.float32(threshold))}
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if neighbours == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        component, edge = {start}, [start]
        while edge:
            y, x = edge.pop()
            for dy, dx in steps:
                cell = (y + dy, x + dx)
                if cell in left:
                    left.remove(cell)
                    component.add(cell)
                    edge.append(cell)
        found.append(component)
    return found


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 41),
    height=st.integers(1, 29),
    density=st.sampled_from([0.02, 0.2, 0.45, 0.6, 1.0]),
    neighbours=st.sampled_from([4, 8]),
    mean=st.booleans(),
    least=st.sampled_from([0.0, 3.0]),
)
def test_it_agrees_with_flood_filling(
    guests: ReferenceGuests,
    seed: int,
    width: int,
    height: int,
    density: float,
    neighbours: int,
    mean: bool,
    least: float,
) -> None:
    rng = np.random.default_rng(seed)
    heat = np.where(rng.random((height, width)) < density, 0.5 + rng.random((height, width)) / 2, 0)
    heat = (np.round(heat * 64) / 64).astype(np.float32)
    parameters = {
        "threshold": 0.5,
        "neighbours": neighbours,
        "score": "mean" if mean else "max",
        "min_area_px": least,
    }
    wanted = []
    for component in regions(heat, 0.5, neighbours):
        if len(component) < least:
            continue
        ys, xs = [y for y, _ in component], [x for _, x in component]
        values = [float(heat[cell]) for cell in component]
        score = sum(values) / len(values) if mean else max(values)
        wanted.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1, np.float32(score)))
    wanted.sort(key=lambda row: -row[4])
    found = run(guests, heat, parameters)
    assert len(found) == min(len(wanted), 300)
    np.testing.assert_array_equal(np.array(found), np.array(wanted[:300], np.float64))


def test_the_map_is_stretched_over_the_input_and_mapped_to_the_frame(
    guests: ReferenceGuests,
) -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3:5] = 1
    inputs = [{"name": "images", "dtype": "float32", "shape": [1, 3, 64, 64]}]
    transform = (10.0, 10.0, 0.0, 8.0)  # padded at the top by 8
    found = run(guests, heat, {}, transform, (640, 480), inputs=inputs)
    assert found == [(240, 80, 400, 160, 1)]
    # Two cells are 2 * 80 * 80 pixels of the frame.
    assert run(guests, heat, {"min_area_px": 12_800}, transform, (640, 480), inputs=inputs)
    assert not run(guests, heat, {"min_area_px": 12_801}, transform, (640, 480), inputs=inputs)


def test_heat_in_the_padding_is_no_finding(guests: ReferenceGuests) -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[0] = 1
    assert run(guests, heat, {}, (1.0, 1.0, 0.0, 2.0), (8, 4)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [(0, 0), (3, 6), (7, 7)])
@pytest.mark.parametrize("around", [0.0, 1.0])
def test_a_map_that_is_not_of_numbers_fails_the_frame(
    guests: ReferenceGuests, value: float, at: tuple[int, int], around: float
) -> None:
    heat = np.full((8, 8), around, np.float32)
    heat[at] = value
    with pytest.raises(GuestError, match="not of finite numbers"):
        run(guests, heat, {})


def test_noise_fails_the_frame_and_drops_nothing(guests: ReferenceGuests) -> None:
    heat = np.zeros((512, 512), np.float32)
    heat[::2, ::2] = 1
    assert len(run(guests, heat, {"neighbours": 4})) == 300
    heat[1::2, 1::2] = 1
    with pytest.raises(GuestError, match="more hot runs than 65536"):
        run(guests, heat, {"neighbours": 4})


def test_low_and_high_give_the_score(guests: ReferenceGuests) -> None:
    heat = np.array([[3.0, 0, 5.0, 0, 9.0]], np.float32)
    found = run(guests, heat, {"threshold": 1, "low": 1, "high": 5})
    assert [row[4] for row in found] == [1, 1, 0.5]
    with pytest.raises(IncompatibleError, match=r"parameters\.low: low is above high"):
        run(guests, heat, {"low": 2})
