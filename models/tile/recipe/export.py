r"""From a checkpoint to `model.onnx`: fp32, bytes in, heat map out.

`python -m models.tile.recipe.export --checkpoint models/tile/.train/checkpoint.pt \
    --out models/tile`
"""

from __future__ import annotations

from models.recipe.exporting import command, export
from models.tile.recipe.data import CONTRACT
from models.tile.recipe.network import ExportedSegmenter, Segmenter

TOLERANCE = 1e-3


def main() -> None:
    """Exports one checkpoint: its averaged weights."""
    weights, file = command(__doc__)
    segmenter = Segmenter()
    segmenter.load_state_dict(weights)
    network = ExportedSegmenter(segmenter.eval()).eval()
    export(network, file, CONTRACT.input.shape, ["heat"], [TOLERANCE])


if __name__ == "__main__":
    main()
