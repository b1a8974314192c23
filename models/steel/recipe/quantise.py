"""From `model.onnx` to `model.int8.onnx`, calibrated on training crops.

`python -m models.steel.recipe.quantise --data ../shared/data --models models/steel`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models.recipe.quantise import quantise
from models.steel.recipe.data import load

CALIBRATION_CROPS = 200


def quantisable(node: str) -> bool:
    """All but the pooling and the last layer, which is tiny."""
    return node.startswith("/classifier/features/")


def main() -> None:
    """Quantises models/steel/model.onnx, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds xsdd/; default EDGE_DATA")
    parser.add_argument("--models", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    crops = load("train", arguments.data)
    chosen = np.random.default_rng(0).permutation(len(crops))[:CALIBRATION_CROPS]
    quantise(
        arguments.models / "model.onnx",
        arguments.models / "model.int8.onnx",
        (crops.images[index][None] for index in chosen),
        quantisable,
    )


if __name__ == "__main__":
    main()
