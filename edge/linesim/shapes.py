"""Copper shapes on the artwork, and the clearance that keeps them apart."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Point = tuple[int, int]

SIDE: Final = 640
"""Height and width of every board and scan, in pixels."""


@dataclass(frozen=True)
class Shape:
    """A path of copper, or a polygon of it.

    Attributes:
        points: x, y in pixels; may lie outside the board.
        width: Of the path in pixels, caps are round; for a polygon twice the rounding of its
            corners.
        filled: Whether the path is closed and filled.
        holes: Drills, as x, y, radius in pixels.
    """

    points: tuple[Point, ...]
    width: int
    filled: bool = False
    holes: tuple[tuple[int, int, int], ...] = ()

    def draw(self, mask: Mask, grow: int = 0) -> None:
        """Set the shape to 1 in `mask`, larger by `grow` pixels on each side, without holes."""
        path = np.array(self.points, np.int32)
        width = self.width + 2 * grow
        if self.filled:
            cv2.fillPoly(mask, [path], 1)
        if width > 0:
            cv2.polylines(mask, [path], self.filled, 1, width)
            for x, y in self.points:
                cv2.circle(mask, (x, y), width // 2, 1, -1)

    def drill(self, mask: Mask) -> None:
        """Set the shape's holes to 0 in `mask`."""
        for x, y, radius in self.holes:
            cv2.circle(mask, (x, y), radius, 0, -1)


class Artwork:
    """The copper layer while it is being drawn.

    Attributes:
        copper: uint8 [640, 640], 1 where there is copper.
    """

    def __init__(self) -> None:
        self.copper: Mask = np.zeros((SIDE, SIDE), np.uint8)
        self._solid: Mask = np.zeros((SIDE, SIDE), np.uint8)

    def place(self, shape: Shape, clearance: int, joins: tuple[Shape, ...] = ()) -> bool:
        """Draw `shape` if it keeps `clearance` pixels to all copper but the shapes it `joins`."""
        wanted: Mask = np.zeros((SIDE, SIDE), np.uint8)
        shape.draw(wanted, clearance)
        for joined in joins:
            own: Mask = np.zeros((SIDE, SIDE), np.uint8)
            joined.draw(own)
            wanted[own > 0] = 0
        if (wanted & self._solid).any():
            return False
        drawn: Mask = np.zeros((SIDE, SIDE), np.uint8)
        shape.draw(drawn)
        shape.drill(drawn)
        for joined in joins:
            joined.drill(drawn)
        self.copper |= drawn
        shape.draw(self._solid)
        return True


def disc(x: int, y: int, radius: int, hole: int = 0) -> Shape:
    """A round pad, with a drill of radius `hole` where that is more than 0."""
    return Shape(((x, y),), 2 * radius, holes=((x, y, hole),) if hole else ())


def block(
    x0: int, y0: int, x1: int, y1: int, *, chamfer: int = 0, rounding: int = 3, hole: int = 0
) -> Shape:
    """A rectangle with its corners cut by `chamfer` pixels, and a drill in its middle."""
    c = chamfer
    points: tuple[Point, ...] = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    if c:
        points = (
            (x0 + c, y0),
            (x1 - c, y0),
            (x1, y0 + c),
            (x1, y1 - c),
            (x1 - c, y1),
            (x0 + c, y1),
            (x0, y1 - c),
            (x0, y0 + c),
        )
    holes = (((x0 + x1) // 2, (y0 + y1) // 2, hole),) if hole else ()
    return Shape(points, rounding, filled=True, holes=holes)
