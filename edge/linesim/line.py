"""Parts as they come down the line: a scan, the board type that it should be, and the truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.linesim.board import Board
from edge.linesim.defects import KINDS, Box, draw_defect
from edge.linesim.scan import Camera, scan

_PART: Final = 3
_PLAN: Final = 4
_MAX_BOARDS: Final = 1_000
_DEFECTS_OF_TEN: Final = (1, 1, 1, 1, 1, 1, 2, 2, 3, 4)
"""Defects of a bad part, each entry one tenth of them: most bad boards have a single fault."""


@dataclass(frozen=True, eq=False)
class Part:
    """One part and its truth.

    Attributes:
        part_id: Unique on its line.
        reference_id: Of the board that it should be.
        image: uint8 [640, 640] grey.
        boxes: Its defects; none means that the part is good.
    """

    part_id: str
    reference_id: str
    image: NDArray[np.uint8]
    boxes: tuple[Box, ...]

    @property
    def is_good(self) -> bool:
        """Whether the part has no defect."""
        return not self.boxes


def render_part(
    board: Board,
    index: int,
    defect_kinds: Sequence[str] = (),
    camera: Camera | None = None,
    part_id: str = "",
) -> Part:
    """Make one part of a board type with the given defects, and scan it.

    Args:
        board: What the part should be.
        index: Which part of this type; the same index is the same part.
        defect_kinds: Each of `KINDS`, in any number.
        camera: How the scan is taken.
        part_id: Its name; default: the board's name and the index.

    Raises:
        ValueError: A kind is unknown, or the board has no room for a defect.
    """
    rng = np.random.default_rng([board.seed, _PART, index])
    copper = board.copper
    boxes: tuple[Box, ...] = ()
    for kind in defect_kinds:
        copper, box = draw_defect(copper, kind, rng, boxes)
        boxes = (*boxes, box)
    image = scan(copper, rng, camera or Camera())
    return Part(part_id or f"{board.reference_id}-{index:06d}", board.reference_id, image, boxes)


def boards_of(seed: int, boards: int = 4) -> tuple[Board, ...]:
    """The board types of the line of this seed."""
    return tuple(Board(seed * _MAX_BOARDS + number) for number in range(boards))


def line(
    seed: int, ok_share: float = 0.7, boards: int = 4, camera: Camera | None = None
) -> Iterator[Part]:
    """Parts without end, the same for the same arguments.

    Args:
        seed: Names the line.
        ok_share: Share of good parts, 0..1.
        boards: Board types that are made in turn, each in small lots, 1..1000.
        camera: How the scans are taken.

    Raises:
        ValueError: A share or a number of boards outside its range.
    """
    if not 0 <= ok_share <= 1:
        raise ValueError(f"ok_share is a share, 0..1, found {ok_share}")
    if not 1 <= boards <= _MAX_BOARDS:
        raise ValueError(f"a line makes 1 to {_MAX_BOARDS} board types, found {boards}")
    types = boards_of(seed, boards)
    for index in count():
        plan = np.random.default_rng([seed, _PLAN, index])
        board = types[int(plan.integers(boards))]
        kinds: list[str] = []
        if plan.integers(1_000_000) >= int(ok_share * 1_000_000):
            number = _DEFECTS_OF_TEN[int(plan.integers(10))]
            kinds = [KINDS[int(kind)] for kind in plan.integers(len(KINDS), size=number)]
        yield render_part(board, index, kinds, camera, part_id=f"line{seed}-{index:06d}")
