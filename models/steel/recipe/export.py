r"""From a checkpoint to `model.onnx`: fp32, bytes in, probabilities out.

`python -m models.steel.recipe.export --checkpoint models/steel/.train/checkpoint.pt \
    --out models/steel`
"""

from __future__ import annotations

from models.recipe.exporting import command, export
from models.steel.recipe.data import CONTRACT
from models.steel.recipe.network import Classifier, ExportedClassifier

TOLERANCE = 1e-4


def main() -> None:
    """Exports one checkpoint: its averaged weights."""
    weights, file = command(__doc__)
    classifier = Classifier()
    classifier.load_state_dict(weights)
    network = ExportedClassifier(classifier.eval()).eval()
    export(network, file, CONTRACT.input.shape, ["probabilities"], [TOLERANCE])


if __name__ == "__main__":
    main()
