"""From a checkpoint to `model.onnx`: fp32, grey values in, boxes and scores out.

`python -m models.pcb.recipe.export --checkpoint models/pcb/.train/checkpoint.pt --out models/pcb`

The averaged weights of the checkpoint are exported, batch normalisation is folded into the
convolutions, and the file is compared with the network on random and on board-like input.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.pcb.recipe.data import SIDE
from models.pcb.recipe.network import Detector, ExportedDetector
from models.recipe.exporting import export

BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3


def main() -> None:
    """Exports one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = torch.load(arguments.checkpoint, weights_only=True)["average"]
    detector = Detector(planes=weights["stem.0.weight"].shape[1])
    detector.load_state_dict(weights)
    exported = ExportedDetector(detector.eval()).eval()
    export(
        exported,
        arguments.out / "model.onnx",
        (1, exported.channels, SIDE, SIDE),
        ["boxes", "scores"],
        [BOX_TOLERANCE_PX, SCORE_TOLERANCE],
    )


if __name__ == "__main__":
    main()
