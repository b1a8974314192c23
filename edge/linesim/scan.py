"""What the camera makes of a board: rough edges, an almost binary picture, noise, JPEG.

Real scans of this kind are binarised in the camera; what differs from scan to scan is the edge,
by a pixel or two. In DeepPCB fewer than 0.02 % of the pixels lie between 60 and 195, and test and
template differ in 14 to 72 of 100 pixels along their edges (median 25); here it is 16.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.linesim.shapes import Mask

JPEG_QUALITY: Final = 90
_LEVEL: Final = 128
_WAVE_CELLS: Final = 41
"""Cells across the picture of the slow unevenness of etching and light: 16 px each."""


@dataclass(frozen=True)
class Camera:
    """How the picture is taken.

    Attributes:
        wave: Slow unevenness of the edge, in greys of its slope; 50 is half a pixel.
        fray: Pixel-wise unevenness of the edge, in the same measure.
        soften: Whether edges are anti-aliased by a quarter of a pixel; else strictly binary.
        noise: Largest deviation of a pixel from its grey, 0..60.
        shift_px: Largest misregistration in each direction, pixels.
    """

    wave: int = 80
    fray: int = 40
    soften: bool = True
    noise: int = 0
    shift_px: int = 0


def scan(copper: Mask, rng: np.random.Generator, camera: Camera) -> NDArray[np.uint8]:
    """Take a picture: copper black, laminate white.

    Args:
        copper: uint8 [H, W], 1 where there is copper; not written to.
        rng: The chance of this one picture.
        camera: Its properties.

    Returns:
        uint8 [H, W], a fresh array.
    """
    height, width = copper.shape
    light: NDArray[np.int16] = np.asarray(
        cv2.GaussianBlur((1 - copper) * np.uint8(255), (5, 5), 1.0), np.int16
    )
    cells = rng.integers(-camera.wave, camera.wave + 1, (_WAVE_CELLS, _WAVE_CELLS))
    wave = cv2.resize(
        (cells + _LEVEL).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR_EXACT
    )
    fray = rng.integers(-camera.fray, camera.fray + 1, (height, width), np.int16)
    picture = np.where(light > np.asarray(wave, np.int16) + fray, np.uint8(255), np.uint8(0))
    if camera.shift_px:
        dy, dx = rng.integers(-camera.shift_px, camera.shift_px + 1, 2)
        picture = _shifted(picture, int(dx), int(dy))
    if camera.soften:
        picture = _softened(picture)
    if camera.noise:
        grain = rng.integers(-camera.noise, camera.noise + 1, (height, width), np.int16)
        picture = np.clip(picture.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    return picture


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Encode a grey image, uint8 [H, W], as a JPEG of the given quality, 1..100."""
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "JPEG takes every grey image of less than 65,536 pixels a side"
    return encoded.tobytes()


def _shifted(picture: NDArray[np.uint8], dx: int, dy: int) -> NDArray[np.uint8]:
    """Move by whole pixels; what comes in is a continuation of the edge."""
    height, width = picture.shape
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    columns = np.clip(np.arange(width) - dx, 0, width - 1)
    return np.asarray(picture[rows][:, columns], np.uint8)


def _softened(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Weight 12 on the pixel and 1 on each of its four neighbours, in sixteenths."""
    padded = np.pad(picture, 1, mode="edge").astype(np.uint16)
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return ((12 * padded[1:-1, 1:-1] + around + 8) // 16).astype(np.uint8)
