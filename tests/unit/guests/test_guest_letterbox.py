"""The guest `letterbox`: one frame as a padded, normalised RGB input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_guests import ReferenceGuests, letterboxed, preprocess

from edge.contracts.frame import PixelFormat
from edge.errors import GuestError, IncompatibleError

pytest_plugins = ("reference_guest_fixtures",)

GRAY, BGR, RGB = PixelFormat.GRAY8, PixelFormat.BGR, PixelFormat.RGB


def picture(pixel_format: PixelFormat, rows: int, columns: int, seed: int) -> Any:
    shape = (rows, columns) if pixel_format is GRAY else (rows, columns, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def as_rgb(image: Any, pixel_format: PixelFormat) -> Any:
    if pixel_format is GRAY:
        return np.repeat(image[..., None], 3, axis=-1)
    return image[..., ::-1] if pixel_format is BGR else image


def expected_levels(image: Any, pixel_format: PixelFormat, height: int, width: int) -> Any:
    return letterboxed(as_rgb(image, pixel_format), width, height, 114).transpose(2, 0, 1)


sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=80, deadline=None)
@given(
    source=sizes,
    into=sizes,
    pixel_format=st.sampled_from([GRAY, BGR, RGB]),
    dtype=st.sampled_from(["uint8", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@example(source=(1, 1), into=(5, 5), pixel_format=BGR, dtype="float32", seed=0)
@example(source=(2, 1), into=(90, 90), pixel_format=BGR, dtype="uint8", seed=0)
@example(source=(64, 48), into=(32, 32), pixel_format=BGR, dtype="float32", seed=0)
@example(source=(64, 48), into=(32, 32), pixel_format=RGB, dtype="uint8", seed=0)
@example(source=(6, 46), into=(30, 23), pixel_format=BGR, dtype="uint8", seed=0)
@example(source=(33, 50), into=(33, 64), pixel_format=RGB, dtype="float32", seed=0)
@example(source=(90, 1), into=(3, 7), pixel_format=GRAY, dtype="float32", seed=0)
def test_it_is_within_a_grey_level_of_real_arithmetic(
    guests: ReferenceGuests,
    source: tuple[int, int],
    into: tuple[int, int],
    pixel_format: PixelFormat,
    dtype: str,
    seed: int,
) -> None:
    image = picture(pixel_format, *source, seed)
    guest = guests.configured("letterbox", {})
    found, _ = preprocess(guest, image, None, dtype, (1, 3, *into), pixel_format)
    levels = found[0].astype(np.float64) * (255 if dtype == "float32" else 1)
    expected = expected_levels(image, pixel_format, *into)
    assert np.abs(levels - expected).max() <= (0.02 if dtype == "float32" else 0.52)


@pytest.mark.parametrize(("rows", "columns"), [(480, 640), (1080, 1920)])
def test_camera_frames_become_a_640_input(guests: ReferenceGuests, rows: int, columns: int) -> None:
    image = picture(BGR, rows, columns, 3)
    guest = guests.configured("letterbox", {})
    found, transform = preprocess(guest, image, None, "float32", (1, 3, 640, 640), BGR)
    assert np.abs(found[0] * 255.0 - expected_levels(image, BGR, 640, 640)).max() <= 0.02
    inner = rows * 640 // columns
    assert transform == (columns / 640, rows / inner, 0, (640 - inner) // 2)


def test_the_transform_leads_from_the_input_back_to_the_frame(guests: ReferenceGuests) -> None:
    image = picture(BGR, 100, 300, 0)
    _, (scale_x, scale_y, offset_x, offset_y) = preprocess(
        guests.configured("letterbox", {}), image, None, "float32", (1, 3, 96, 96), BGR
    )
    corners = [((x - offset_x) * scale_x, (y - offset_y) * scale_y) for x, y in [(0, 32), (96, 64)]]
    assert corners == [(0, 0), (300, 100)]


def test_scale_mean_and_std_apply_to_each_plane_and_to_the_padding(
    guests: ReferenceGuests,
) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = picture(BGR, 20, 40, 5)
    guest = guests.configured("letterbox", {"mean": mean, "std": std, "pad": 10, "scale": 1 / 255})
    found, _ = preprocess(guest, image, None, "float32", (1, 3, 40, 40), BGR)
    levels = letterboxed(as_rgb(image, BGR), 40, 40, 10).transpose(2, 0, 1)
    expected = (levels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


@settings(max_examples=100, deadline=None)
@given(scale=st.floats(1e-6, 1e6, allow_nan=False))
def test_numbers_are_read_as_python_writes_them(guests: ReferenceGuests, scale: float) -> None:
    guest = guests.configured("letterbox", {"scale": scale})
    one = np.ones((1, 1), np.uint8)
    found, _ = preprocess(guest, one, None, "float32", (1, 3, 1, 1), GRAY)
    assert (found == np.float32(scale)).all()


def test_two_instances_give_the_same_bytes(guests: ReferenceGuests) -> None:
    image = picture(BGR, 77, 131, 9)
    first, second = (
        preprocess(guests.configured("letterbox", {}), image, None, "float32", (1, 3, 64, 96), BGR)
        for _ in range(2)
    )
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1] == second[1]


def test_one_instance_takes_frames_of_any_sequence_of_sizes_and_formats(
    guests: ReferenceGuests,
) -> None:
    lasting = guests.configured("letterbox", {})
    for rows, columns, into in [(30, 40, 24), (30, 40, 20), (30, 50, 20), (60, 40, 20)]:
        for pixel_format in (BGR, GRAY, BGR):
            image, shape = picture(pixel_format, rows, columns, rows), (1, 3, into, into)
            fresh = guests.configured("letterbox", {})
            first, second = (
                preprocess(guest, image, None, "uint8", shape, pixel_format)
                for guest in (lasting, fresh)
            )
            np.testing.assert_array_equal(first[0], second[0])
            assert first[1] == second[1]


def test_a_frame_larger_than_its_tables_is_refused(guests: ReferenceGuests) -> None:
    image = np.zeros((1, 16_385), np.uint8)
    guest = guests.configured("letterbox", {})
    with pytest.raises(GuestError, match="the frame is larger than 16384 pixels on a side"):
        preprocess(guest, image, None, "uint8", (1, 3, 8, 8), GRAY)


@pytest.mark.parametrize(
    ("shape", "dtype", "parameters", "problem"),
    [
        ((1, 1, 8, 8), "uint8", {}, r"must be of shape \[1, 3, height, width\]"),
        ((1, 3, 8, 8), "float16", {}, "must be uint8 or float32"),
        ((1, 3, 8, 8), "uint8", {"mean": [1, 1, 1]}, "no meaning for a uint8 model input"),
    ],
)
def test_another_model_input_is_refused(
    guests: ReferenceGuests,
    shape: tuple[int, int, int, int],
    dtype: str,
    parameters: dict[str, Any],
    problem: str,
) -> None:
    guest = guests.configured("letterbox", parameters)
    with pytest.raises(GuestError, match=problem):
        preprocess(guest, picture(GRAY, 8, 8, 0), None, dtype, shape, GRAY)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"mean": [0, 0]}, r"parameters\.mean: expected 3 numbers"),
        ({"std": [1, 0, 1]}, r"parameters\.std\[1\]: expected a number 0\.000001\.\.1000000"),
        ({"std": 1}, r"parameters\.std: expected an array"),
        ({"pad": -1}, r"parameters\.pad: expected a whole number 0\.\.255"),
        ({"colour": "rgb"}, r"parameters\.colour: no such parameter"),
    ],
)
def test_wrong_parameters_are_named(
    guests: ReferenceGuests, parameters: dict[str, Any], problem: str
) -> None:
    with pytest.raises(IncompatibleError, match=problem):
        guests.configured("letterbox", parameters)
