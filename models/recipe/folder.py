"""Where the image data lies, and its tables. Nothing here writes."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def dataset_folder(name: str, data: str | Path | None = None) -> Path:
    """The folder of one data set: `data`, else `EDGE_DATA`, else ../shared/data, plus its name.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = Path(data or os.environ.get("EDGE_DATA") or PROJECT_ROOT.parent / "shared" / "data")
    folder = root / name
    if not folder.is_dir():
        raise FileNotFoundError(f"no data in {folder}: pass --data or set EDGE_DATA")
    return folder


def rows(table: Path) -> list[dict[str, str]]:
    """All rows of a CSV file with a header, in order."""
    with table.open(newline="") as lines:
        return list(csv.DictReader(lines))


def of_split(parts: Iterable[dict[str, str]], folder: Path, split: str) -> list[dict[str, str]]:
    """Those parts that the list `splits/<split>.txt` names."""
    listed = set((folder / "splits" / f"{split}.txt").read_text().split())
    return [row for row in parts if row["part_id"] in listed]
