"""Which cells of the detector's grid answer for which box; fixed before training sees a prediction.

Centre sampling: a cell answers for a box when its centre lies inside the box and near the box's
centre; of several boxes the smallest wins. No torch, so that loader threads can do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.pcb.recipe.data import SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIDE = 8
"""Pixels between two cells; cell (i, j) has its centre at (8 j + 4, 8 i + 4)."""
GRID = SIDE // STRIDE
CENTRE_RADIUS_PX = 13.0
"""Of a median DeepPCB defect (34 px a side) nine to sixteen cells answer: those at its middle."""


def cell_centres() -> NDArray[np.float32]:
    """float32 [6400, 2]: x, y in pixels of each cell, rows of the grid first."""
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) * STRIDE
    x, y = np.meshgrid(axis, axis)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def assign(boxes: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each cell the index of the box that it answers for, -1 for background: int64 [A].

    Args:
        boxes: float32 [n, 5], x0, y0, x1, y1 in pixels, class.
        centres: float32 [A, 2] of `cell_centres`.
    """
    owner = np.full(len(centres), -1, np.int64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-areas, kind="stable"):
        x0, y0, x1, y1 = boxes[index, :4]
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2], np.float32)
        near = (np.abs(centres - middle) <= CENTRE_RADIUS_PX).all(axis=1)
        inside = ((centres > (x0, y0)) & (centres < (x1, y1))).all(axis=1)
        owner[near & inside] = index
    return owner
