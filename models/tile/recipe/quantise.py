"""From `model.onnx` to `model.int8.onnx`, calibrated on frames of training tiles.

`python -m models.tile.recipe.quantise --data ../shared/data --models models/tile`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.recipe.quantise import quantise
from models.tile.recipe.data import Tiles, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CALIBRATION_FRAMES = 128
KEPT_FLOAT = ("/pixels/pixels.1/", "/frame/")
"""The last layers, which are tiny."""


def calibration(tiles: Tiles) -> Iterator[NDArray[np.uint8]]:
    """Training frames; of the first one corner is black and one white, to span all bytes."""
    for at, index in enumerate(
        np.random.default_rng(0).permutation(len(tiles))[:CALIBRATION_FRAMES]
    ):
        plane = tiles.planes[index].copy()
        if at == 0:
            plane[0, 0], plane[-1, -1] = 0, 255
        yield np.stack([plane] * 3)[None]


def quantisable(node: str) -> bool:
    """What lies outside the network proper turns logits into heat."""
    return node.startswith("/segmenter/") and not any(part in node for part in KEPT_FLOAT)


def main() -> None:
    """Quantises models/tile/model.onnx, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds mt/; default EDGE_DATA")
    parser.add_argument("--models", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    quantise(
        arguments.models / "model.onnx",
        arguments.models / "model.int8.onnx",
        calibration(load("train", arguments.data)),
        quantisable,
    )


if __name__ == "__main__":
    main()
