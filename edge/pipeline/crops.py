"""Crops: which pixels around a finding the second model of a cascade is shown.

Pure arithmetic, the same when a model is trained (`models/pcb_kinds`) and when it judges.
"""

import math
from typing import NamedTuple

from edge.contracts.plan import CropPlan


class Window(NamedTuple):
    """A part of a frame, in whole pixels; inside the frame, never empty."""

    left: int
    top: int
    width: int
    height: int


def window(
    box: tuple[float, float, float, float], crop: CropPlan, width: int, height: int
) -> Window:
    """Return what is cut out around a box.

    The box grows by the margin on each side, then to a square where that is wanted, then to the
    least side. A window that would reach over the edge is moved inside at its size, so that what it
    shows keeps its scale; it is cut down only where the frame itself is smaller.

    Args:
        box: x0, y0, x1, y1 in pixels of the frame, finite; it may be empty.
        crop: How much there is around it.
        width: Pixels of the frame, at least 1.
        height: Likewise.
    """
    x0, y0, x1, y1 = box
    grown = 1 + 2 * crop.margin
    across, down = (x1 - x0) * grown, (y1 - y0) * grown
    if crop.square:
        across = down = max(across, down)
    left, across_px = _span((x0 + x1) / 2, max(across, crop.min_side_px), width)
    top, down_px = _span((y0 + y1) / 2, max(down, crop.min_side_px), height)
    return Window(left, top, across_px, down_px)


def _span(middle: float, length: float, most: int) -> tuple[int, int]:
    """Return start and length in whole pixels, inside 0..most."""
    whole = min(math.ceil(length), most)
    start = math.floor(middle - whole / 2 + 0.5)
    return min(max(start, 0), most - whole), whole
