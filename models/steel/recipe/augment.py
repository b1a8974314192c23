"""What a crop of a strip may look like: mirrored, moved, in other light, through another codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]


def augment(plane: Plane, rng: np.random.Generator) -> Plane:
    """One training sample from one grey plane, uint8 [128, 128]; all chance comes from `rng`."""
    if rng.random() < 0.5:
        plane = plane[:, ::-1]
    if rng.random() < 0.5:
        plane = plane[::-1]
    plane = _moved(np.ascontiguousarray(plane), rng)
    if rng.random() < 0.7:
        plane = _relit(plane, rng.uniform(0.7, 1.4), rng.uniform(-30, 30))
    if rng.random() < 0.6:
        quality = int(rng.integers(50, 97))
        coded = cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        plane = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return plane


def _moved(plane: Plane, rng: np.random.Generator) -> Plane:
    side = plane.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (side / 2, side / 2), rng.uniform(-6, 6), rng.uniform(0.85, 1.25)
    )
    matrix[:, 2] += rng.integers(-side // 8, side // 8 + 1, 2)
    moved = cv2.warpAffine(plane, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def _relit(plane: Plane, contrast: float, shift: float) -> Plane:
    levels = (np.arange(256) - 110.0) * contrast + 110 + shift
    return np.asarray(levels.clip(0, 255).round().astype(np.uint8)[plane])
