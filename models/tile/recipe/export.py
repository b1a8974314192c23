r"""From a checkpoint to `model.onnx`: fp32, bytes in, heat map out.

`python -m models.tile.recipe.export --checkpoint models/tile/.train/checkpoint.pt \
    --out models/tile`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.recipe.exporting import export
from models.tile.recipe.data import CONTRACT
from models.tile.recipe.network import ExportedSegmenter, Segmenter

TOLERANCE = 1e-3


def main() -> None:
    """Exports one checkpoint: its averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = Segmenter()
    segmenter.load_state_dict(torch.load(arguments.checkpoint, weights_only=True)["average"])
    network = ExportedSegmenter(segmenter.eval()).eval()
    file = arguments.out / "model.onnx"
    export(network, file, CONTRACT.input.shape, ["heat"], [TOLERANCE])


if __name__ == "__main__":
    main()
