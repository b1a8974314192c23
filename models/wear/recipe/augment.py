"""The same place under another lamp, moved a little, seen from the other side.

Between two pictures of BSData the camera moved by up to three pixels and the light changed: what
changes so must not count as wear. All chance comes from the generator that is passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Planes = NDArray[np.uint8]


def augment(pair: Planes, rng: np.random.Generator) -> Planes:
    """One training sample of a pair uint8 [2, H, W]; frame and reference vary apart."""
    for axis in (1, 2):
        if rng.random() < 0.5:
            pair = np.flip(pair, axis)
    height, width = pair.shape[1:]
    scale = rng.uniform(1.0, 1.5)
    centre = (rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height)
    common = cv2.getRotationMatrix2D(centre, rng.uniform(-3, 3), scale)
    varied = []
    for plane in pair:
        matrix = common.copy()
        matrix[:, 2] += rng.normal(0, 1.2, 2)
        moved = cv2.warpAffine(
            np.ascontiguousarray(plane), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
        varied.append(_relit(np.asarray(moved, np.uint8), rng))
    return np.stack(varied)


def _relit(plane: Planes, rng: np.random.Generator) -> Planes:
    levels = np.linspace(0, 1, 256) ** rng.uniform(0.75, 1.33) * rng.uniform(0.8, 1.25)
    plane = (levels * 255 + rng.uniform(-12, 12)).clip(0, 255).round().astype(np.uint8)[plane]
    # Light that falls from another side: a slope over the picture.
    slope = np.linspace(-1, 1, plane.shape[1]) * rng.normal(0, 10)
    plane = (plane + slope).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), rng.uniform(0.3, 1.2)), np.uint8)
    if rng.random() < 0.3:
        plane = (
            (plane + rng.normal(0, rng.uniform(1, 6), plane.shape)).clip(0, 255).astype(np.uint8)
        )
    return plane
