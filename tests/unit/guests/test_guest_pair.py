"""The guest `pair`: frame and reference as two grey channels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_guests import ReferenceGuests, letterboxed, preprocess

from edge.contracts.frame import PixelFormat
from edge.errors import GuestError, IncompatibleError

pytest_plugins = ("reference_guest_fixtures",)

GRAY, BGR, RGB = PixelFormat.GRAY8, PixelFormat.BGR, PixelFormat.RGB


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def luma(bgr: Any) -> Any:
    blue, green, red = (bgr[..., i].astype(np.int64) for i in range(3))
    return ((3735 * blue + 19235 * green + 9798 * red + (1 << 14)) >> 15).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(640, 640), (17, 33), (1, 1), (5, 7)])
def test_images_of_the_inputs_size_arrive_bit_for_bit(
    guests: ReferenceGuests, height: int, width: int
) -> None:
    frame, reference = noise(height, width, seed=1), noise(height, width, seed=2)
    guest = guests.configured("pair", {})
    found, transform = preprocess(guest, frame, reference, "uint8", (1, 2, height, width), GRAY)
    np.testing.assert_array_equal(found[0, 0], frame)
    np.testing.assert_array_equal(found[0, 1], reference)
    assert transform == (1, 1, 0, 0)


@pytest.mark.parametrize("width", [8, 33, 640])
@pytest.mark.parametrize("pixel_format", [BGR, RGB])
def test_colour_becomes_grey_by_the_weights_of_bt601(
    guests: ReferenceGuests, pixel_format: PixelFormat, width: int
) -> None:
    frame, reference = noise(9, width, 3, seed=1), noise(9, width, 3, seed=2)
    guest = guests.configured("pair", {})
    found, _ = preprocess(guest, frame, reference, "uint8", (1, 2, 9, width), pixel_format)
    for channel, image in enumerate((frame, reference)):
        bgr = image if pixel_format is BGR else image[..., ::-1]
        np.testing.assert_array_equal(found[0, channel], luma(bgr))


def test_a_luma_of_exactly_one_half_is_rounded_up(guests: ReferenceGuests) -> None:
    blue, green = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    halves = np.argwhere((3735 * blue + 19235 * green + 9798 * 200) % 32768 == 16384)
    frame = np.array([[(*pair, 200) for pair in halves]], np.uint8)
    assert frame.shape[1] >= 1
    for width in (1, 9):  # one by one, and eight at a time
        row = np.repeat(frame[:, :1], width, axis=1)
        guest = guests.configured("pair", {})
        found, _ = preprocess(guest, row, row, "uint8", (1, 2, 1, width), BGR)
        np.testing.assert_array_equal(found[0, 0], luma(row))


@pytest.mark.parametrize(("scale", "top"), [(None, 1.0), (1.0, 255.0)])
def test_a_float_input_is_scaled_by_the_parameter(
    guests: ReferenceGuests, scale: float | None, top: float
) -> None:
    frame = noise(11, 19)
    frame[0, 0] = 255
    guest = guests.configured("pair", {} if scale is None else {"scale": scale})
    found, _ = preprocess(guest, frame, frame, "float32", (1, 2, 11, 19), GRAY)
    np.testing.assert_allclose(found[0, 1], frame * (top / 255), rtol=1e-6)
    assert found[0, 0, 0, 0] == np.float32(top)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    into=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    dtype=st.sampled_from(["uint8", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_other_sizes_are_letterboxed_alike(
    guests: ReferenceGuests, rows: int, columns: int, into: tuple[int, int], dtype: str, seed: int
) -> None:
    frame, reference = noise(rows, columns, seed=seed), noise(rows, columns, seed=seed + 1)
    guest = guests.configured("pair", {"pad": 7, **({"scale": 1.0} if dtype == "float32" else {})})
    found, transform = preprocess(guest, frame, reference, dtype, (1, 2, *into), GRAY)
    for channel, image in enumerate((frame, reference)):
        expected = letterboxed(image, into[1], into[0], 7)[..., 0]
        assert np.abs(found[0, channel] - expected).max() <= (0.52 if dtype == "uint8" else 0.02)
    assert transform[0] > 0
    assert transform[1] > 0


def test_a_larger_reference_of_the_same_aspect_is_laid_by_the_frames_geometry(
    guests: ReferenceGuests,
) -> None:
    frame, reference = noise(48, 64), noise(96, 128)
    found, transform = preprocess(
        guests.configured("pair", {}), frame, reference, "uint8", (1, 2, 64, 64), GRAY
    )
    np.testing.assert_array_equal(found[0, 0, 8:56], frame)
    expected = letterboxed(reference, 64, 64, 114)[..., 0]
    assert np.abs(found[0, 1] - expected).max() <= 0.52
    assert (found[0, :, :8] == 114).all()
    assert transform == (1, 1, 0, 8)


def test_a_reference_of_another_aspect_is_refused(guests: ReferenceGuests) -> None:
    guest = guests.configured("pair", {})
    with pytest.raises(GuestError, match="reference image is not of the frame's aspect ratio"):
        preprocess(guest, noise(48, 64), noise(48, 63), "uint8", (1, 2, 64, 64), GRAY)


def test_a_missing_reference_is_refused(guests: ReferenceGuests) -> None:
    guest = guests.configured("pair", {})
    with pytest.raises(GuestError, match="the reference image is missing"):
        preprocess(guest, noise(48, 64), None, "uint8", (1, 2, 64, 64), GRAY)


@pytest.mark.parametrize(
    ("shape", "dtype", "problem"),
    [
        ((1, 3, 64, 64), "uint8", r"must be of shape \[1, 2, height, width\]"),
        ((2, 2, 64, 64), "uint8", r"must be of shape \[1, 2, height, width\]"),
        ((1, 2, 64, 64), "int32", "must be uint8 or float32"),
    ],
)
def test_another_model_input_is_refused(
    guests: ReferenceGuests, shape: tuple[int, int, int, int], dtype: str, problem: str
) -> None:
    guest = guests.configured("pair", {})
    with pytest.raises(GuestError, match=problem):
        preprocess(guest, noise(64, 64), noise(64, 64), dtype, shape, GRAY)


def test_a_scale_for_a_byte_input_is_refused(guests: ReferenceGuests) -> None:
    guest = guests.configured("pair", {"scale": 1.0})
    with pytest.raises(GuestError, match=r"parameters\.scale: has no meaning"):
        preprocess(guest, noise(8, 8), noise(8, 8), "uint8", (1, 2, 8, 8), GRAY)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"pad": 256}, r"parameters\.pad: expected a whole number 0\.\.255"),
        ({"pad": "grey"}, r"parameters\.pad: expected a whole number"),
        ({"scale": 0}, r"parameters\.scale: expected a number 0\.000001\.\.1000000"),
        ({"padding": 1}, r"parameters\.padding: no such parameter"),
    ],
)
def test_wrong_parameters_are_named(
    guests: ReferenceGuests, parameters: dict[str, Any], problem: str
) -> None:
    with pytest.raises(IncompatibleError, match=problem):
        guests.configured("pair", parameters)
