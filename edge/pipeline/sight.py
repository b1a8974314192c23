"""What a picture is like: a look at some ten thousand of its pixels, whatever its size.

The pixels are read where they lie. Brightness and its kin come from a grid of pixels; sharpness
from the four neighbours of each of these, so that it is the sharpness of the whole resolution.
"""

import math
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from edge.contracts.sight import Sight

_SAMPLES: Final = 12_000
"""Of a picture at the most."""
_BLACK: Final = 4
_WHITE: Final = 251
"""Grey levels from which a pixel counts as clipped: JPEG moves the ends by a few."""
_LEAST_SIDE: Final = 3

Pixels = npt.NDArray[np.uint8]


def look(pixels: Pixels) -> Sight | None:
    """Look at a picture.

    Args:
        pixels: Height and width, or these and three channels with green in the middle; read only.

    Returns:
        What it is like; None of one that is less than three pixels wide or high.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _LEAST_SIDE:
        return None
    # An odd step meets every place within the 8 x 8 blocks of a JPEG.
    step = math.ceil(math.sqrt(height * width / _SAMPLES)) | 1
    grey = np.ascontiguousarray(_luma(pixels, step))
    mean, deviation = (float(each.item()) for each in cv2.meanStdDev(grey))
    dark, bright = (int(np.count_nonzero(each)) for each in (grey <= _BLACK, grey >= _WHITE))
    moments = cv2.moments(grey)
    # Half a pixel: its middle. Where all is black, the light has no other middle than the picture.
    across, down = (
        float(moments[first] / moments["m00"] + 0.5) / side if moments["m00"] else 0.5
        for first, side in (("m10", grey.shape[1]), ("m01", grey.shape[0]))
    )
    return Sight(
        brightness=round(mean, 2),
        contrast=round(deviation, 2),
        dark=round(100 * dark / grey.size, 2),
        bright=round(100 * bright / grey.size, 2),
        # Of a picture of one grey level the noise is no sharpness.
        sharpness=round(_detail(pixels, step) / max(deviation, 1.0), 4),
        across=round(100 * across, 3),
        down=round(100 * down, 3),
    )


def _luma(pixels: Pixels, step: int) -> Pixels:
    """Grey levels of the grid: of colours (R + 2 G + B) / 4, the same for RGB and BGR.

    Source of the weights: the reversible colour transform of JPEG 2000 (ITU-T T.800, G.2).
    """
    grid = pixels[1:-1:step, 1:-1:step]
    if grid.ndim == 2:  # noqa: PLR2004 - height and width
        return grid
    first, green, last = (grid[..., channel] for channel in range(3))
    summed = np.add(first, last, dtype=np.uint16)
    summed += green
    summed += green
    summed >>= 2
    return summed.astype(np.uint8)


def _detail(pixels: Pixels, step: int) -> float:
    """Standard deviation of the Laplacian, at the grid's pixels; of colours that of green.

    Source: Pertuz, Puig and Garcia, "Analysis of focus measure operators for shape-from-focus",
    Pattern Recognition 46 (2013), LAPV; there its square.
    """
    plane: Any = pixels if pixels.ndim == 2 else pixels[..., 1]  # noqa: PLR2004
    laplacian = np.multiply(plane[1:-1:step, 1:-1:step], 4, dtype=np.int16)
    laplacian -= plane[:-2:step, 1:-1:step]
    laplacian -= plane[2::step, 1:-1:step]
    laplacian -= plane[1:-1:step, :-2:step]
    laplacian -= plane[1:-1:step, 2::step]
    return float(cv2.meanStdDev(laplacian)[1].item())
