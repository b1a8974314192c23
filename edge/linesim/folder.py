"""Writes a line's parts as a folder in the data format that `edge replay` reads.

`images/` holds JPEGs, `parts.csv` one row for each part, `boxes.csv` one row for each defect.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.linesim.board import Board
from edge.linesim.line import Part
from edge.linesim.scan import Camera, encode_jpeg

PART_COLUMNS: Final = (
    "part_id", "image", "template", "split", "official_split", "verdict", "label", "n_defects",
    "residual_px",
)  # fmt: skip
BOX_COLUMNS: Final = ("image", "x1", "y1", "x2", "y2", "class")
_ERASE_MARGIN_PX: Final = 4
_RESIDUAL_THICKNESS_PX: Final = 4


def write_folder(
    folder: Path, parts: Iterable[Part], boards: Iterable[Board], camera: Camera | None = None
) -> int:
    """Write parts and the references of their boards; returns how many parts.

    Args:
        folder: Made if absent; files of the same name are replaced.
        parts: A finite number of them.
        boards: At least those that the parts refer to.
        camera: How the references are scanned.

    Raises:
        ValueError: A part refers to a board that is not among `boards`.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    references = {board.reference_id: board.reference(camera) for board in boards}
    for reference_id, reference in references.items():
        (images / f"{reference_id}_temp.jpg").write_bytes(encode_jpeg(reference))
    part_rows: list[tuple[object, ...]] = []
    box_rows: list[tuple[object, ...]] = []
    for part in parts:
        if part.reference_id not in references:
            raise ValueError(f"part {part.part_id}: no board {part.reference_id} was passed")
        name = f"{part.part_id}_test.jpg"
        (images / name).write_bytes(encode_jpeg(part.image))
        residual_px = _residual_px(part, references[part.reference_id])
        part_rows.append((
            part.part_id, name, f"{part.reference_id}_temp.jpg", "test", "test",
            "OK" if part.is_good else "NG", "", len(part.boxes), residual_px,
        ))  # fmt: skip
        box_rows.extend((name, b.x0, b.y0, b.x1, b.y1, b.label) for b in part.boxes)
    _write_table(folder / "parts.csv", PART_COLUMNS, part_rows)
    _write_table(folder / "boxes.csv", BOX_COLUMNS, box_rows)
    return len(part_rows)


def _residual_px(part: Part, reference: NDArray[np.uint8]) -> int:
    """Pixels of difference at least 4 px thick that no box explains, as data sets measure it."""
    repaired = part.image.copy()
    for box in part.boxes:
        rows = slice(max(box.y0 - _ERASE_MARGIN_PX, 0), box.y1 + _ERASE_MARGIN_PX)
        columns = slice(max(box.x0 - _ERASE_MARGIN_PX, 0), box.x1 + _ERASE_MARGIN_PX)
        repaired[rows, columns] = reference[rows, columns]
    differs = ((repaired > 127) != (reference > 127)).astype(np.uint8)  # noqa: PLR2004 - mid grey
    square = np.ones((_RESIDUAL_THICKNESS_PX, _RESIDUAL_THICKNESS_PX), np.uint8)
    return int(cv2.countNonZero(cv2.morphologyEx(differs, cv2.MORPH_OPEN, square)))


def _write_table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
