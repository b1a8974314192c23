r"""From a checkpoint to `model.onnx`: fp32, bytes in, probabilities out, any number of crops.

`python -m models.pcb_kinds.recipe.export --checkpoint models/pcb_kinds/.train/checkpoint.pt \
    --out models/pcb_kinds`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.pcb_kinds.recipe.data import BATCH, CONTRACT
from models.pcb_kinds.recipe.network import Classifier, ExportedClassifier
from models.recipe.exporting import export

TOLERANCE = 1e-4


def main() -> None:
    """Exports one checkpoint: its averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    classifier = Classifier()
    classifier.load_state_dict(torch.load(arguments.checkpoint, weights_only=True)["average"])
    network = ExportedClassifier(classifier.eval()).eval()
    shape = CONTRACT.input.rows(BATCH).shape
    file = arguments.out / "model.onnx"
    export(network, file, shape, ["probabilities"], [TOLERANCE], any_batch=True)


if __name__ == "__main__":
    main()
