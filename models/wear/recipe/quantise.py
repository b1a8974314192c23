"""From `model.onnx` to `model.int8.onnx`, calibrated on the sequences that training saw.

`python -m models.wear.recipe.quantise --data ../shared/data --models models/wear`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.recipe.quantise import quantise
from models.wear.recipe.data import HELD_BACK, Sequence, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KEPT_FLOAT = ("/cells/", "/figure/")
"""The last layers, which are tiny."""


def calibration(learnt: list[Sequence]) -> Iterator[NDArray[np.uint8]]:
    """Every frame beside the first of its sequence; corners span all bytes."""
    for sequence in learnt:
        for index in range(len(sequence)):
            pair = sequence.pair(index).copy()
            pair[..., 0, 0], pair[..., -1, -1] = 0, 255
            yield pair


def quantisable(node: str) -> bool:
    """What lies outside the network proper scales the cells."""
    return node.startswith("/network/") and not any(part in node for part in KEPT_FLOAT)


def main() -> None:
    """Quantises models/wear/model.onnx, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds bsdata/; default EDGE_DATA")
    parser.add_argument("--models", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    quantise(
        arguments.models / "model.onnx",
        arguments.models / "model.int8.onnx",
        calibration([s for s in load(arguments.data) if s.name != HELD_BACK]),
        quantisable,
    )


if __name__ == "__main__":
    main()
