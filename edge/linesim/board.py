"""A reference board: seeded artwork of pours, buses, pads, vias and the traces between them.

Placement is greedy: a shape that would come too near to other copper is left out. That is all
the design rule there is, and it is enough for boards on which a defect is the only fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.linesim.scan import Camera, scan
from edge.linesim.shapes import SIDE, Artwork, Mask, Point, Shape, block, disc

__all__ = ["SIDE", "Board"]

_ARTWORK: Final = 1
_REFERENCE: Final = 2
_TRIES_A_PAD: Final = 12


@dataclass(frozen=True)
class _Style:
    """What the boards of one designer have in common; pixels."""

    trace: int
    clearance: int
    pitch: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Style":
        trace = int(rng.integers(7, 17))
        clearance = int(rng.integers(10, 17))
        return cls(trace, clearance, trace + clearance + int(rng.integers(2, 10)))


class Board:
    """A board type: its copper, and the scan of its golden sample.

    Args:
        seed: Names the board; the same seed is the same board on every machine.

    Attributes:
        reference_id: `board-` and the seed.
        copper: uint8 [640, 640], 1 where there is copper; read-only.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.reference_id = f"board-{seed:04d}"
        self.copper = _artwork(np.random.default_rng([seed, _ARTWORK]))
        self.copper.setflags(write=False)

    def reference(self, camera: Camera | None = None) -> NDArray[np.uint8]:
        """Scan the golden sample: uint8 [640, 640] grey, copper black; a fresh array."""
        rng = np.random.default_rng([self.seed, _REFERENCE])
        return scan(self.copper, rng, camera or Camera())


def _artwork(rng: np.random.Generator) -> Mask:
    art, style = Artwork(), _Style.draw(rng)
    if rng.integers(3) > 0:
        _draw_bus(art, style, rng)
    _draw_pours(art, style, rng)
    pads = [*_draw_rows(art, style, rng), *_draw_scattered(art, style, rng)]
    _draw_traces(art, style, pads, rng)
    _draw_vias(art, style, rng)
    turned = np.rot90(art.copper, int(rng.integers(4)))
    return np.ascontiguousarray(turned[:, ::-1] if rng.integers(2) else turned)


def _draw_bus(art: Artwork, style: _Style, rng: np.random.Generator) -> None:
    """Parallel traces from edge to edge with one jog of 45 degrees."""
    y, knee = int(rng.integers(10, 320)), int(rng.integers(120, 420))
    drop = int(rng.integers(-160, 200))
    sign = 1 if drop >= 0 else -1
    for lane in range(int(rng.integers(3, 9))):
        width = style.trace * (3 if rng.integers(6) == 0 else 1)
        y += width // 2
        # Lanes turn one after the other, so that their distance holds through the slope.
        x = knee - sign * lane * style.pitch * 2 // 5
        path = ((-60, y), (x, y), (x + abs(drop), y + drop), (700, y + drop))
        art.place(Shape(path, width), style.clearance)
        y += width // 2 + style.clearance + int(rng.integers(1, 8))


def _draw_pours(art: Artwork, style: _Style, rng: np.random.Generator) -> None:
    """Large areas of copper, some of them running off the board, with drills."""
    for _ in range(int(rng.integers(4, 12))):
        x, y = (int(v) for v in rng.integers(-60, 600, 2))
        width, height = (int(v) for v in rng.integers(50, 220, 2))
        pour = block(x, y, x + width, y + height, chamfer=int(rng.integers(0, 24)), rounding=5)
        drills = tuple(
            (int(rng.integers(x + 20, x + width - 19)), int(rng.integers(y + 20, y + height - 19)),
             int(rng.integers(5, 9)))
            for _ in range(int(rng.integers(0, 3)))
        )  # fmt: skip
        art.place(Shape(pour.points, pour.width, filled=True, holes=drills), style.clearance + 2)


def _draw_rows(art: Artwork, style: _Style, rng: np.random.Generator) -> Iterator[Shape]:
    """Rows of equal pads, as of a chip or a connector."""
    for _ in range(int(rng.integers(2, 5))):
        x, y = (int(v) for v in rng.integers(20, 480, 2))
        width = style.trace + int(rng.integers(2, 14))
        height = int(rng.integers(width, 3 * width))
        step = width + style.clearance + int(rng.integers(2, 10))
        for index in range(int(rng.integers(3, 9))):
            left = x + index * step
            pad = block(left, y, left + width, y + height, rounding=int(rng.integers(1, 6)))
            if art.place(pad, style.clearance):
                yield pad


def _draw_scattered(art: Artwork, style: _Style, rng: np.random.Generator) -> Iterator[Shape]:
    """Single pads: round and drilled, round, or square."""
    for _ in range(int(rng.integers(16, 34))):
        x, y = (int(v) for v in rng.integers(20, SIDE - 20, 2))
        radius = style.trace // 2 + int(rng.integers(8, 19))
        kind = int(rng.integers(3))
        pad = (
            disc(x, y, radius, hole=radius * 2 // 5)
            if kind == 0
            else disc(x, y, radius)
            if kind == 1
            else block(x - radius, y - radius, x + radius, y + radius)
        )
        if art.place(pad, style.clearance):
            yield pad


def _draw_traces(art: Artwork, style: _Style, pads: list[Shape], rng: np.random.Generator) -> None:
    """From each pad a trace to another pad, or off the board, wherever one fits."""
    for start in pads:
        for _ in range(_TRIES_A_PAD):
            goal = pads[int(rng.integers(len(pads)))]
            leaves = rng.integers(4) == 0
            end = _beyond_edge(rng) if leaves else _middle(goal)
            if goal is start and not leaves:
                continue
            width = style.trace + (int(rng.integers(0, 9)) if rng.integers(4) == 0 else 0)
            trace = Shape(_octilinear(_middle(start), end, rng), width)
            if art.place(trace, style.clearance, (start,) if leaves else (start, goal)):
                break


def _draw_vias(art: Artwork, style: _Style, rng: np.random.Generator) -> None:
    """Rings, where there is still room."""
    for _ in range(int(rng.integers(0, 12))):
        x, y = (int(v) for v in rng.integers(16, SIDE - 16, 2))
        radius = int(rng.integers(9, 14))
        art.place(disc(x, y, radius, hole=radius - 5), style.clearance)


def _octilinear(start: Point, end: Point, rng: np.random.Generator) -> tuple[Point, ...]:
    """A path of straight and 45-degree runs; which comes first, and where it turns, is chance."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    slope = min(abs(dx), abs(dy))
    sx, sy = (1 if dx > 0 else -1), (1 if dy > 0 else -1)
    run_x, run_y = (abs(dx) - slope) * sx, (abs(dy) - slope) * sy
    share = int(rng.integers(0, 5))
    first: Point = (x0 + run_x * share // 4, y0 + run_y * share // 4)
    second: Point = (first[0] + slope * sx, first[1] + slope * sy)
    return (start, first, second, end)


def _middle(pad: Shape) -> Point:
    points = np.array(pad.points)
    x, y = (points.min(axis=0) + points.max(axis=0)) // 2
    return int(x), int(y)


def _beyond_edge(rng: np.random.Generator) -> Point:
    along, outside = int(rng.integers(0, SIDE)), int(rng.choice([-40, SIDE + 40]))
    return (along, outside) if rng.integers(2) else (outside, along)
