"""From a checkpoint to `model.onnx`: fp32, grey values in, boxes and scores out.

`python -m models.pcb.recipe.export --checkpoint models/pcb/.train/checkpoint.pt --out models/pcb`

The averaged weights of the checkpoint are exported, batch normalisation is folded into the
convolutions, and the file is compared with the network on random and on board-like input.
"""

from __future__ import annotations

from models.pcb.recipe.data import SIDE
from models.pcb.recipe.network import Detector, ExportedDetector
from models.recipe.exporting import command, export

BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3


def main() -> None:
    """Exports one checkpoint."""
    weights, file = command(__doc__)
    detector = Detector(planes=weights["stem.0.weight"].shape[1])
    detector.load_state_dict(weights)
    exported = ExportedDetector(detector.eval()).eval()
    export(
        exported,
        file,
        (1, exported.channels, SIDE, SIDE),
        ["boxes", "scores"],
        [BOX_TOLERANCE_PX, SCORE_TOLERANCE],
    )


if __name__ == "__main__":
    main()
