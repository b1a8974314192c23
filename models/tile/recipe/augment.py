"""What tiles may look like: other exposures, other poses, and the defects of other tiles.

Pure functions on one sample: plane uint8 [192, 192] and mask uint8 [192, 192]. Arguments are never
written to. All chance comes from the generator that is passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from models.tile.recipe.data import PAD, SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]
    Sample = tuple[Plane, Plane, NDArray[np.int64]]
    """Plane, mask, and where the tile lies in them."""

GRAFT_MARGIN_PX = 4


def augment(
    sample: Sample, donor: Callable[[], Sample], rng: np.random.Generator, grafted: float = 0.5
) -> tuple[Plane, Plane]:
    """One training sample; `grafted` is how often it gets a defect of another tile."""
    plane, mask, _ = sample
    if rng.random() < grafted:
        plane, mask = graft(sample, donor(), rng)
    turn = int(rng.integers(4))
    if turn & 1:
        plane, mask = plane[:, ::-1], mask[:, ::-1]
    if turn & 2:
        plane, mask = plane[::-1], mask[::-1]
    plane, mask = np.ascontiguousarray(plane), np.ascontiguousarray(mask)
    if rng.random() < 0.8:
        plane, mask = _moved(plane, mask, rng)
    return _relit(plane, rng), mask


def graft(sample: Sample, donor: Sample, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """One defect of another tile, as a factor on the grey levels here, with soft edges."""
    plane, mask, inside = sample
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(donor[1], connectivity=8)
    if count < 2:
        return plane, mask
    number = int(rng.integers(1, count))
    x, y, width, height = (int(v) for v in boxes[number, :4])
    m = GRAFT_MARGIN_PX
    x0, y0 = max(x - m, int(donor[2][0])), max(y - m, int(donor[2][1]))
    x1, y1 = min(x + width + m, int(donor[2][2])), min(y + height + m, int(donor[2][3]))
    piece = donor[0][y0:y1, x0:x1].astype(np.float32)
    shape = (parts[y0:y1, x0:x1] == number).astype(np.uint8)
    if rng.random() < 0.5:
        piece, shape = piece[:, ::-1], shape[:, ::-1]
    if rng.random() < 0.5:
        piece, shape = piece[::-1], shape[::-1]
    around = piece[shape == 0]
    rows, columns = piece.shape
    room_x = int(inside[2] - inside[0]) - columns
    room_y = int(inside[3] - inside[1]) - rows
    if room_x < 0 or room_y < 0 or around.size < 8:
        return plane, mask
    left = int(inside[0]) + int(rng.integers(room_x + 1))
    top = int(inside[1]) + int(rng.integers(room_y + 1))
    near = cv2.dilate(shape, np.ones((3, 3), np.uint8)).astype(np.float32)
    alpha = cv2.GaussianBlur(near, (0, 0), 1.0) * rng.uniform(0.75, 1.0)
    factor = piece / max(float(np.median(around)), 1.0)
    plane, mask = plane.copy(), mask.copy()
    window = np.s_[top : top + rows, left : left + columns]
    target = plane[window].astype(np.float32)
    local = max(float(np.median(target)), 1.0)
    blended = target * (1 - alpha) + alpha * factor * (0.5 * target + 0.5 * local)
    plane[window] = blended.clip(0, 255).astype(np.uint8)
    mask[window] |= shape
    return plane, mask


def _moved(plane: Plane, mask: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    scale = rng.uniform(0.8, 1.3)
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(-4, 4), scale)
    matrix[0, 0] *= rng.uniform(0.85, 1.18)
    matrix[:, 2] += rng.uniform(-15, 15, 2)
    moved = cv2.warpAffine(plane, matrix, (SIDE, SIDE), borderValue=PAD)
    laid = cv2.warpAffine(mask * np.uint8(255), matrix, (SIDE, SIDE))
    return np.asarray(moved, np.uint8), np.asarray(laid > 127, np.uint8)


def _relit(plane: Plane, rng: np.random.Generator) -> Plane:
    """Another exposure, another lens, another codec."""
    if rng.random() < 0.8:
        levels = np.linspace(0, 1, 256) ** rng.uniform(0.75, 1.35) * rng.uniform(0.75, 1.3)
        levels = (levels * 255 + rng.uniform(-12, 12)).clip(0, 255).round().astype(np.uint8)
        plane = levels[plane]
    if rng.random() < 0.2:
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), rng.uniform(0.4, 1.0)), np.uint8)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 6), plane.shape)
        plane = (plane + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = int(rng.integers(60, 97))
        coded = cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        plane = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return plane
