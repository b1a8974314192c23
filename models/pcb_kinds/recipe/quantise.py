"""From `model.onnx` to `model.int8.onnx`, calibrated on crops of training pairs.

`python -m models.pcb_kinds.recipe.quantise --crops FOLDER --models models/pcb_kinds`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models.pcb_kinds.recipe.data import load
from models.recipe.quantise import quantise

CALIBRATION_CROPS = 400


def quantisable(node: str) -> bool:
    """All but the pooling and the last layer, which is tiny."""
    return node.startswith("/classifier/features/")


def main() -> None:
    """Quantises models/pcb_kinds/model.onnx, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--crops", type=Path, required=True, help="folder that `data` filled")
    parser.add_argument("--models", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    crops = load(arguments.crops)
    chosen = np.random.default_rng(0).permutation(len(crops))[:CALIBRATION_CROPS]
    quantise(
        arguments.models / "model.onnx",
        arguments.models / "model.int8.onnx",
        (np.array(crops.images[index][None]) for index in chosen),
        quantisable,
    )


if __name__ == "__main__":
    main()
