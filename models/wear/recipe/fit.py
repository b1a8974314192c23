"""Fits the rule's twenty weights and its constant to all sequences but one; seconds.

`python -m models.wear.recipe.fit --data ../shared/data --out models/wear`

Ridge regression of the frame's age on the medians of its changes. How strongly weights are held
small (`RIDGE`) and that cells are fused by their median was chosen between the two sequences that
are learnt from, each predicting the other. Writes `model.onnx`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.recipe.exporting import export
from models.recipe.figures import spearman
from models.wear.recipe.data import CONTRACT, EARLY, HELD_BACK, SEQUENCES, Sequence, load
from models.wear.recipe.network import WearNetwork, median

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIDGE = 1.0
"""Weight of the penalty beside one frame's error, features in units of their spread."""
TOLERANCE = 1e-3


@torch.no_grad()
def features(network: WearNetwork, sequence: Sequence, reference: int) -> NDArray[np.float64]:
    """float64 [57, 20]: medians of the changes of each frame against one of the early ones."""
    pairs = (torch.from_numpy(sequence.pair(at, reference)).float() for at in range(len(sequence)))
    return np.stack([median(network.changes(pair)).double().numpy() for pair in pairs])


def ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weights of the features as they are, and the constant."""
    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-3
    scaled = (x - middle) / spread
    penalty = RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (y - y.mean())) / spread
    return weights, float(y.mean() - middle @ weights)


def fitted(network: WearNetwork, learnt: list[Sequence]) -> None:
    """Sets weights and constant from these sequences; every early frame serves as a reference."""
    x = np.concatenate([features(network, s, at) for s in learnt for at in range(EARLY)])
    y = np.concatenate([s.age for s in learnt for _ in range(EARLY)]).astype(np.float64)
    weights, constant = ridge(x, y)
    network.weights.data = torch.tensor(weights, dtype=torch.float)
    network.constant.data = torch.tensor([constant], dtype=torch.float)


def main() -> None:
    """Fits, says how each sequence is followed, and exports."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds bsdata/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx")
    parser.add_argument("--hold-back", choices=SEQUENCES, default=HELD_BACK)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sequences = load(arguments.data)
    network = WearNetwork().eval()
    fitted(network, [s for s in sequences if s.name != arguments.hold_back])
    for sequence in sequences:
        found = features(network, sequence, 0) @ network.weights.double().numpy()
        role = "held back" if sequence.name == arguments.hold_back else "learnt"
        print(f"{sequence.name}, {role}: Spearman {spearman(found, sequence.age):.4f}")
    file = arguments.out / "model.onnx"
    export(network, file, CONTRACT.input.shape, ["heat"], [TOLERANCE])


if __name__ == "__main__":
    main()
