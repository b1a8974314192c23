r"""From a checkpoint to `model.onnx`: fp32, bytes in, probabilities out, any number of crops.

`python -m models.pcb_kinds.recipe.export --checkpoint models/pcb_kinds/.train/checkpoint.pt \
    --out models/pcb_kinds`
"""

from __future__ import annotations

from models.pcb_kinds.recipe.data import BATCH, CONTRACT
from models.pcb_kinds.recipe.network import Classifier, ExportedClassifier
from models.recipe.exporting import command, export

TOLERANCE = 1e-4


def main() -> None:
    """Exports one checkpoint: its averaged weights."""
    weights, file = command(__doc__)
    classifier = Classifier()
    classifier.load_state_dict(weights)
    network = ExportedClassifier(classifier.eval()).eval()
    shape = CONTRACT.input.rows(BATCH).shape
    export(network, file, shape, ["probabilities"], [TOLERANCE], any_batch=True)


if __name__ == "__main__":
    main()
