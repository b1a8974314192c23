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
from models.pcb.recipe.data import deeppcb_folder, load_training, model_input, planes_shown
from models.recipe.quantise import quantise
from models.recipe.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet

KEPT_FLOAT = ("/box_head/box_head.1/", "/class_head/class_head.1/")
"""The last layers, 1x1 and tiny: box sides need finer steps than 8 bits of a logarithm give."""
CALIBRATION_PAIRS = 96


def calibration(pairs: PairSet, channels: int) -> Iterator[NDArray[np.uint8]]:
    """Training frames as inputs of so many channels; every second one is augmented."""
    planes = planes_shown(channels)
    for index in np.random.default_rng(0).permutation(len(pairs))[:CALIBRATION_PAIRS]:
        pair = pairs.images[index], pairs.boxes[index]
        if index % 2:
            rng = np.random.default_rng(int(index))
            pair = augment(pair, lambda pair=pair: pair, rng, planes=planes)  # type: ignore[misc]
        yield model_input(pair[0], channels)


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
    source = arguments.models / "model.onnx"
    channels = open_session(source).get_inputs()[0].shape[1]
    quantise(
        source,
        arguments.models / "model.int8.onnx",
        calibration(load_training(deeppcb_folder(arguments.data)), channels),
        quantisable,
        seven_bits=not arguments.eight_bits,
    )


if __name__ == "__main__":
    main()
