"""The six defects of bare boards, drawn into the copper with exact truth.

Three of them take copper away and three are their mirror images, which add it:

| form | takes copper | adds copper |
| --- | --- | --- |
| a stroke across a neck | open | short |
| a bite at an edge | mousebite | spur |
| an island inside | pin-hole | copper |

A drawn mark counts only if the connectivity around it changed as its kind says; so no truth can
be wrong about what was drawn. Sizes and the margin of the boxes follow DeepPCB's training
annotations (7 to 40 px long; boxes 9 to 12 px wider on each side).
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.linesim.shapes import SIDE, Mask

KINDS: Final = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""Class names in the order of the model's outputs."""

_ADDS_COPPER: Final = frozenset({"short", "spur", "copper"})
_ACROSS: Final = frozenset({"open", "short"})
_AT_EDGE: Final = frozenset({"mousebite", "spur"})

_TRIES: Final = 400
_BORDER_PX: Final = 26
_AROUND_PX: Final = 14
_MIN_AREA_PX: Final = 32
_MIN_LENGTH_PX: Final = 7
_ANGLES: Final = 16
_MIN_NECK_PX: Final = 6
_MAX_NECK_PX: Final = 44
_MAX_CUT_PX: Final = 64
_MIN_DEPTH_PX: Final = 5
"""How far a bite must reach in: 95 of 100 do in DeepPCB; less is hardly more than a rough edge."""
_MIN_MOUTH_PX: Final = 4
_BITE_ROOM_PX: Final = 10
_ISLAND_ROOM_PX: Final = 9
_DRILL_AREA_PX: Final = 900
_REACH_PX: Final = 64
"""Half side of the window in which one defect is drawn; more than any mark is long."""


@dataclass(frozen=True)
class Box:
    """Where a defect is: x0, y0, x1, y1 in pixels, half-open, and its class."""

    x0: int
    y0: int
    x1: int
    y1: int
    label: str

    def touches(self, other: "Box", margin: int = 0) -> bool:
        """Whether two boxes come nearer to each other than `margin` pixels."""
        return (
            self.x0 < other.x1 + margin
            and other.x0 < self.x1 + margin
            and self.y0 < other.y1 + margin
            and other.y0 < self.y1 + margin
        )


def draw_defect(
    copper: Mask, kind: str, rng: np.random.Generator, taken: tuple[Box, ...] = ()
) -> tuple[Mask, Box]:
    """Draw one defect somewhere into a copy of the copper, away from the boxes already `taken`.

    Args:
        copper: uint8 [640, 640], 1 where there is copper; not written to.
        kind: One of `KINDS`.
        rng: All chance of this defect.
        taken: Boxes of other defects.

    Returns:
        The copper with the defect, and its box.

    Raises:
        ValueError: There is no such kind, or this board has no room for it.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no defect; known are {', '.join(KINDS)}")
    material = _laminate(copper) if kind in _ADDS_COPPER else copper
    depth = np.rint(cv2.distanceTransform(material, cv2.DIST_L2, 5)).astype(np.int32)
    places = _places(kind, depth)
    for _ in range(_TRIES if len(places) else 0):
        y, x = (int(v) for v in places[int(rng.integers(len(places)))])
        mark = _mark(kind, depth, x, y, rng)
        change = _without_specks(mark) & material
        box = _box_of(change, kind, rng)
        if box is None or any(box.touches(other, 8) for other in taken):
            continue
        if depth[change > 0].max() >= _MIN_DEPTH_PX and _is_what_it_says(kind, material, change):
            return np.where(change > 0, 1 - copper, copper).astype(np.uint8), box
    raise ValueError(f"no room for a defect of kind {kind} on this board")


def _laminate(copper: Mask) -> Mask:
    """1 where there is neither copper nor a drill: copper does not grow in a drill."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - copper, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] > _DRILL_AREA_PX
    large[0] = False  # label 0 is the copper
    return np.asarray(large[labels], np.uint8)


def _places(kind: str, depth: NDArray[np.int32]) -> NDArray[np.intp]:
    """Row and column of each pixel where a mark of this kind may be centred: intp [n, 2].

    `depth` is each pixel's distance to the end of the material that the defect eats.
    """
    if kind in _ACROSS:
        ridge = depth >= cv2.dilate(depth.astype(np.float32), np.ones((3, 3), np.uint8))
        wanted = ridge & (depth >= _MIN_NECK_PX // 2) & (depth <= _MAX_NECK_PX // 2)
    elif kind in _AT_EDGE:
        wanted = depth == 1
    else:
        wanted = depth >= _ISLAND_ROOM_PX
    inner = np.zeros_like(wanted)
    inner[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = True
    return np.argwhere(wanted & inner)


def _mark(kind: str, depth: NDArray[np.int32], x: int, y: int, rng: np.random.Generator) -> Mask:
    if kind in _ACROSS:
        return _across(depth, x, y, rng)
    if kind in _AT_EDGE:
        return _bite(depth, x, y, rng)
    return _island(int(depth[y, x]), x, y, rng)


def _across(depth: NDArray[np.int32], x: int, y: int, rng: np.random.Generator) -> Mask:
    """A stroke over the whole neck at (x, y), along its shortest way or a little aslant."""
    reach = [_way_out(depth, x, y, angle) for angle in range(_ANGLES)]
    half = _ANGLES // 2
    shortest = min(range(half), key=lambda angle: reach[angle] + reach[angle + half])
    angle = (shortest + int(rng.integers(-1, 2)) * int(rng.integers(2))) % _ANGLES
    over = int(rng.integers(1, 4))
    ahead, back = reach[angle] + over, reach[(angle + half) % _ANGLES] + over
    (dx, dy), mark = _direction(angle), np.zeros((SIDE, SIDE), np.uint8)
    if ahead + back > _MAX_CUT_PX:
        return mark
    start = (x - back * dx // 1024, y - back * dy // 1024)
    end = (x + ahead * dx // 1024, y + ahead * dy // 1024)
    _stroke(mark, start, end, int(rng.integers(2, 5)), rng)
    if rng.integers(3) == 0:
        aside = int(rng.integers(3, 7))
        sx, sy = aside * dy // 1024, aside * dx // 1024
        _stroke(mark, (start[0] + sx, start[1] - sy), (end[0] + sx, end[1] - sy), 2, rng)
    return mark


def _bite(depth: NDArray[np.int32], x: int, y: int, rng: np.random.Generator) -> Mask:
    """A mark from the edge at (x, y) into the material, not through it."""
    ways = [(_way_out(depth, x, y, angle, from_edge=True), angle) for angle in range(_ANGLES)]
    open_ways = [(way, angle) for way, angle in ways if way >= _BITE_ROOM_PX]
    mark: Mask = np.zeros((SIDE, SIDE), np.uint8)
    if not open_ways:
        return mark
    way, angle = open_ways[int(rng.integers(len(open_ways)))]
    deep = min(int(rng.integers(5, 17)), way - 5)
    dx, dy = _direction(angle)
    start = (x - 3 * dx // 1024, y - 3 * dy // 1024)
    end = (x + deep * dx // 1024, y + deep * dy // 1024)
    if rng.integers(2):
        _stroke(mark, start, end, int(rng.integers(2, 5)), rng)
    else:
        _blob(mark, (start[0] + end[0]) // 2, (start[1] + end[1]) // 2, deep // 2 + 1, rng)
    return mark


def _island(room: int, x: int, y: int, rng: np.random.Generator) -> Mask:
    """A mark that stays inside the material, `room` pixels from its end."""
    mark: Mask = np.zeros((SIDE, SIDE), np.uint8)
    half = int(rng.integers(5, max(6, min(room * 2 // 3, 20)) + 1))
    if rng.integers(3):
        dx, dy = _direction(int(rng.integers(_ANGLES)))
        start = (x - half * dx // 1024, y - half * dy // 1024)
        end = (x + half * dx // 1024, y + half * dy // 1024)
        _stroke(mark, start, end, int(rng.integers(2, 5)), rng)
    else:
        _blob(mark, x, y, half, rng)
    return mark


def _stroke(
    mark: Mask, start: tuple[int, int], end: tuple[int, int], radius: int, rng: np.random.Generator
) -> None:
    """A bent line of dots of uneven size, as a scratch or a run of etchant leaves it."""
    (x0, y0), (x1, y1) = start, end
    bend_x, bend_y = (int(v) for v in rng.integers(-4, 5, 2))
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    swell = 0
    for step in range(steps + 1):
        bow = 4 * step * (steps - step)
        x = x0 + (x1 - x0) * step // steps + bend_x * bow // (steps * steps)
        y = y0 + (y1 - y0) * step // steps + bend_y * bow // (steps * steps)
        if step % 4 == 0:
            swell = int(rng.integers(-1, 2))
        cv2.circle(mark, (x, y), max(2, radius + swell), 1, -1)


def _blob(mark: Mask, x: int, y: int, half: int, rng: np.random.Generator) -> None:
    """A lump of two to four overlapping discs, `half` pixels to each side at most."""
    for _ in range(int(rng.integers(2, 5))):
        radius = int(rng.integers(max(2, half // 2), max(3, half * 3 // 4) + 1))
        room = max(half - radius, 0)
        dx, dy = (int(v) for v in rng.integers(-room, room + 1, 2))
        cv2.circle(mark, (x + dx, y + dy), radius, 1, -1)


def _way_out(
    depth: NDArray[np.int32], x: int, y: int, angle: int, *, from_edge: bool = False
) -> int:
    """Pixels from (x, y) along a direction to the end of the material, `_REACH_PX` at most."""
    dx, dy = _direction(angle)
    for step in range(2 if from_edge else 0, _REACH_PX):
        column, row = x + step * dx // 1024, y + step * dy // 1024
        if not (0 <= column < SIDE and 0 <= row < SIDE) or depth[row, column] == 0:
            return step
    return _REACH_PX


def _direction(angle: int) -> tuple[int, int]:
    """The direction of `angle` sixteenths of a turn, as x, y in 1024ths."""
    quarter = (1024, 946, 724, 392, 0)
    turn, rest = divmod(angle % _ANGLES, 4)
    x, y = quarter[rest], quarter[4 - rest]
    return ((x, y), (-y, x), (-x, -y), (y, -x))[turn]


def _box_of(change: Mask, kind: str, rng: np.random.Generator) -> Box | None:
    """The box of a change with a margin as DeepPCB's people drew it; None if it is no defect."""
    if cv2.countNonZero(change) < _MIN_AREA_PX:
        return None
    x0, y0, width, height = cv2.boundingRect(change)
    x1, y1 = x0 + width, y0 + height
    if max(width, height) < _MIN_LENGTH_PX:
        return None
    left, top, right, bottom = (int(v) for v in rng.integers(9, 13, 4))
    return Box(
        max(x0 - left, 0), max(y0 - top, 0), min(x1 + right, SIDE), min(y1 + bottom, SIDE), kind
    )


def _without_specks(mark: Mask) -> Mask:
    """The mark with the pinpricks between its dots filled."""
    closed = cv2.morphologyEx(mark, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return np.asarray(closed, np.uint8)


def _is_what_it_says(kind: str, material: Mask, change: Mask) -> bool:
    """Whether the change did to the connectivity around it what its kind means.

    A cut leaves one piece of material more; an island one piece of the other side more; a bite
    leaves both as they were. The last two must hold for a mark 2 px larger as well: what rough
    edges leave of a thinner bridge is chance. A bite opens to the edge by more than a point.
    """
    if _pieces(change) != 1:
        return False
    if kind in _ACROSS:
        return _effect(material, change)[0] == 1
    wider = np.asarray(cv2.dilate(change, np.ones((5, 5), np.uint8)), np.uint8) & material
    effects = (_effect(material, change), _effect(material, wider))
    if kind in _AT_EDGE:
        beyond = cv2.dilate(1 - material, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        mouth = cv2.countNonZero(np.asarray(beyond, np.uint8) & change)
        return effects == ((0, 0), (0, 0)) and mouth >= _MIN_MOUTH_PX
    return effects == ((0, 1), (0, 1))


def _effect(material: Mask, change: Mask) -> tuple[int, int]:
    """Pieces more, of the material and of what is not, in the window around a change."""
    x, y, width, height = cv2.boundingRect(change)
    window = (
        slice(max(y - _AROUND_PX, 0), y + height + _AROUND_PX),
        slice(max(x - _AROUND_PX, 0), x + width + _AROUND_PX),
    )
    before, after = material[window], (material & (1 - change))[window]
    return _pieces(after) - _pieces(before), _pieces(1 - after) - _pieces(1 - before)


def _pieces(mask: Mask) -> int:
    """Connected pieces of a mask, corners not counted as contact."""
    return cv2.connectedComponents(np.ascontiguousarray(mask), connectivity=4)[0] - 1
