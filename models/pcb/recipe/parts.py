"""Good and bad parts made from defective pairs, for figures on the level of verdicts.

Every official pair is defective. A good part is a pair with all its annotated defects erased, and
only where nothing else differs (`residual_px` = 0); a bad part keeps exactly one of its defects,
the hardest kind to reject. No torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.pcb.recipe.augment import erase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet


def good_parts(pairs: PairSet) -> Iterator[NDArray[np.uint8]]:
    """Every trustworthy pair without its defects, uint8 [2, 640, 640]."""
    for index in np.flatnonzero(pairs.residual_px == 0):
        boxes = pairs.boxes[index]
        yield erase(pairs.images[index], boxes, np.ones(len(boxes), np.bool_))[0]


def bad_parts(pairs: PairSet, seed: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Every pair with one defect, drawn by `seed`: uint8 [2, 640, 640] and its box float32 [5]."""
    rng = np.random.default_rng(seed)
    for images, boxes in zip(pairs.images, pairs.boxes, strict=True):
        kept = int(rng.integers(len(boxes)))
        part, left = erase(images, boxes, np.arange(len(boxes)) != kept)
        yield part, left[0]
