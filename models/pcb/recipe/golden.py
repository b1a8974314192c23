"""Draws the golden frames of `models/pcb/deployment`: one good board, one bad, and their reference.

`python -m models.pcb.recipe.golden FOLDER`. They come from `edge.linesim`, so they are ours. JPEG
encoders differ from version to version: they were drawn once, are committed, and are pinned.
"""

import sys
from pathlib import Path
from typing import Final

from edge.linesim import Board, encode_jpeg, render_part

BOARD: Final = 3
PART: Final = 1
DEFECTS: Final = ("open", "short")


def draw(folder: Path) -> None:
    """Write the three images."""
    board = Board(BOARD)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.jpg").write_bytes(encode_jpeg(board.reference()))
    (folder / "good.jpg").write_bytes(encode_jpeg(render_part(board, PART).image))
    (folder / "bad.jpg").write_bytes(encode_jpeg(render_part(board, PART, DEFECTS).image))


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
