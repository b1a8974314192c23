"""Reads a folder in the data format: `parts.csv`, `boxes.csv`, `splits/*.txt`, `images/`.

`parts.csv` needs the columns `part_id` and `image`; `template`, `split`, `verdict` (OK or NG),
`label` (the kind of defect), `group` (the physical part that several frames show) and `residual_px`
are used where they are there. `boxes.csv` (`image,x1,y1,x2,y2,class`, pixels) may
be absent: then defects are not known one by one. Whatever is wrong is said with its place.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from edge.errors import ConfigError
from edge.replay.parts import TrueBox

_PART_COLUMNS: Final = ("part_id", "image")
_BOX_COLUMNS: Final = ("image", "x1", "y1", "x2", "y2", "class")
_UNMEASURED: Final = -1


@dataclass(frozen=True)
class Row:
    """One part of the data set.

    Attributes:
        image: Path of its picture.
        template: Path of its reference image; None where it has none.
        is_good: What the table says; where it says nothing, whether it has no box.
        boxes: Its defects; None where the folder has no boxes.csv.
        residual_px: Unexplained difference to the template; -1 where not measured.
        label: Kind of defect of the whole part; empty where the table has none.
        group: The physical part that this frame shows with others; empty: it stands for itself.
        split: The value of the column `split`.
    """

    part_id: str
    image: Path
    template: Path | None
    is_good: bool
    boxes: tuple[TrueBox, ...] | None
    residual_px: int
    label: str = ""
    group: str = ""
    split: str = ""


def read_dataset(folder: Path, split: str = "") -> tuple[Row, ...]:
    """Read all parts of a folder, or those of one split, in the order of `parts.csv`.

    Args:
        folder: The data set.
        split: Name of a list in `splits/` without `.txt`, or a value of the column `split`;
            parts that a list names and the folder lacks are left out. Empty: all parts.

    Raises:
        ConfigError: A file is missing or malformed, with file, line and column; or there is no
            such split, or it is empty.
    """
    table = folder / "parts.csv"
    boxes = _read_boxes(folder / "boxes.csv")
    listed = _read_split(folder, split)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    images: set[str] = set()
    for line, cells in _read_table(table, _PART_COLUMNS):
        row = _part(folder, table, line, cells, boxes)
        if row.part_id in seen:
            raise _fault(
                table, line, "part_id", f"{row.part_id!r} is also in line {seen[row.part_id]}"
            )
        seen[row.part_id] = line
        images.add(cells["image"])
        if not split or (row.part_id in listed if listed is not None else cells["split"] == split):
            rows.append(row)
    if not seen:
        raise ConfigError(table, "is empty")
    for image, (line, _) in (boxes or {}).items():
        if image not in images:
            raise _fault(folder / "boxes.csv", line, "image", f"{image!r} is not in parts.csv")
    if not rows:
        raise ConfigError(table, f"holds no part of the split {split!r}")
    return tuple(rows)


_Boxes = Mapping[str, tuple[int, tuple[TrueBox, ...]]]
"""For each image the line of its first box, and its boxes."""


def _part(
    folder: Path, table: Path, line: int, cells: Mapping[str, str], boxes: _Boxes | None
) -> Row:
    part_id = cells["part_id"]
    if not part_id:
        raise _fault(table, line, "part_id", "is empty")
    image = _picture(folder, table, line, "image", cells["image"])
    template = cells.get("template", "")
    found = None if boxes is None else boxes.get(cells["image"], (0, ()))[1]
    verdict = cells.get("verdict", "")
    if verdict not in ("OK", "NG", ""):
        raise _fault(table, line, "verdict", f"expected OK or NG, found {verdict[:40]!r}")
    if verdict == "OK" and found:
        raise _fault(table, line, "verdict", f"OK, but boxes.csv has {len(found)} defects of it")
    if not verdict and found is None:
        raise _fault(
            table, line, "verdict", "is empty, and there is no boxes.csv to derive it from"
        )
    residual = cells.get("residual_px", "")
    return Row(
        part_id,
        image,
        _picture(folder, table, line, "template", template) if template else None,
        is_good=verdict == "OK" if verdict else not found,
        boxes=found,
        residual_px=_whole(table, line, "residual_px", residual) if residual else _UNMEASURED,
        label=cells.get("label", ""),
        group=cells.get("group", ""),
        split=cells.get("split", ""),
    )


def _picture(folder: Path, table: Path, line: int, column: str, name: str) -> Path:
    relative = PurePosixPath(name)
    if not name or relative.is_absolute() or ".." in relative.parts:
        raise _fault(table, line, column, f"expected a path below images/, found {name[:80]!r}")
    path = folder / "images" / relative
    if not path.is_file():
        raise _fault(table, line, column, f"there is no file {path}")
    return path


def _read_boxes(table: Path) -> _Boxes | None:
    if not table.is_file():
        return None
    lines: dict[str, int] = {}
    boxes: dict[str, list[TrueBox]] = defaultdict(list)
    for line, cells in _read_table(table, _BOX_COLUMNS):
        x0, y0, x1, y1 = (_whole(table, line, key, cells[key]) for key in _BOX_COLUMNS[1:5])
        if x1 <= x0:
            raise _fault(table, line, "x2", f"expected more than x1 = {x0}, found {x1}")
        if y1 <= y0:
            raise _fault(table, line, "y2", f"expected more than y1 = {y0}, found {y1}")
        if not cells["class"]:
            raise _fault(table, line, "class", "is empty")
        lines.setdefault(cells["image"], line)
        boxes[cells["image"]].append(TrueBox(cells["class"], (x0, y0, x1, y1)))
    return {image: (line, tuple(boxes[image])) for image, line in lines.items()}


def _read_split(folder: Path, split: str) -> frozenset[str] | None:
    """The part ids of a list in `splits/`; None: there is no such list, ask the column."""
    if not split:
        return None
    lists = {path.stem: path for path in sorted((folder / "splits").glob("*.txt"))}
    if split in lists:
        return frozenset(id_.strip() for id_ in _read_text(lists[split]).split("\n"))
    named = {cells.get("split", "") for _, cells in _read_table(folder / "parts.csv", ())}
    if split not in named:
        known = ", ".join(sorted({*lists, *named} - {""})) or "none"
        raise ConfigError(folder, f"there is no split {split!r}", f"known are: {known}")
    return None


def _read_table(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row; the header is line 1."""
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        missing = [column for column in required if column not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{path}, line 1", f"the column {missing[0]} is missing")
        for cells in reader:
            if None in cells or None in cells.values():
                columns = len(reader.fieldnames or ())
                raise ConfigError(
                    f"{path}, line {reader.line_num}",
                    f"expected {columns} cells, found another number",
                )
            yield reader.line_num, cells
    except csv.Error as failed:
        raise ConfigError(f"{path}, line {reader.line_num}", f"is not CSV: {failed}") from failed


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as failed:
        raise ConfigError(path, f"cannot be read: {failed.strerror}") from failed
    except UnicodeDecodeError as failed:
        raise ConfigError(path, f"is not UTF-8: {failed}") from failed


def _whole(table: Path, line: int, column: str, text: str) -> int:
    if not text.isdecimal():
        raise _fault(table, line, column, f"expected a whole number from 0, found {text[:40]!r}")
    return int(text)


def _fault(table: Path, line: int, column: str, problem: str) -> ConfigError:
    return ConfigError(f"{table}, line {line}, column {column}", problem)
