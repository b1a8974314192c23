"""From `model.onnx` to `model.int8.onnx`, calibrated on training pairs.

How is said in `models.recipe.quantise`.

`python -m models.pcb.recipe.quantise --data ../shared/data --models models/pcb`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.pcb.recipe.augment import augment
from models.pcb.recipe.data import deeppcb_folder, load_training
from models.recipe.quantise import quantise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet

KEPT_FLOAT = ("/box_head/", "/class_head/class_head.1/")
"""Box sides need finer steps than 8 bits of a logarithm give; the last class layer is tiny."""
CALIBRATION_PAIRS = 96


def calibration(pairs: PairSet) -> Iterator[NDArray[np.uint8]]:
    """Training pairs, every second one augmented."""
    for index in np.random.default_rng(0).permutation(len(pairs))[:CALIBRATION_PAIRS]:
        pair = pairs.images[index], pairs.boxes[index]
        if index % 2:
            pair = augment(pair, lambda pair=pair: pair, np.random.default_rng(int(index)))  # type: ignore[misc]
        yield pair[0][None]


def quantisable(node: str) -> bool:
    """Names are paths of modules; what lies outside the network proper decodes its boxes."""
    return node.startswith("/detector/") and not any(part in node for part in KEPT_FLOAT)


def main() -> None:
    """Quantises models/pcb/model.onnx, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--models", type=Path, required=True, help="folder of model.onnx")
    parser.add_argument("--eight-bits", action="store_true", help="for VNNI and ARM alone")
    arguments = parser.parse_args()
    quantise(
        arguments.models / "model.onnx",
        arguments.models / "model.int8.onnx",
        calibration(load_training(deeppcb_folder(arguments.data))),
        quantisable,
        seven_bits=not arguments.eight_bits,
    )


if __name__ == "__main__":
    main()
