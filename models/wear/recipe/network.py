"""The wear score: how much the texture of a surface has changed, read off by one linear rule.

Frame and reference go through the same fixed filters: four sizes of detail, four directions and a
centre against its surround, on the logarithm of grey, so that a brighter lamp changes nothing. What
counts is the logarithm of their energy in each of 7x14 cells, frame against reference, since a
camera that moved by a few pixels leaves it as it is. Wear changes the whole surface, glints and
dirt a few cells: so the rule looks at the median over cells. Twenty weights and a constant are
fitted (`fit`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.wear.recipe.data import HEIGHT, WIDTH

ROWS, COLUMNS = 7, 14
LEVELS = 4
FILTERS = 5
FEATURES = LEVELS * FILTERS
_LIGHT = 16.0
"""Grey levels added before the logarithm: below it, noise would count as texture."""
_ENERGY = 1e-5
"""Added before the second logarithm: the energy of quantisation noise."""


def filters() -> Tensor:
    """Horizontal, vertical, two diagonals, centre against surround; float [5, 1, 3, 3]."""
    kernels = [
        ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 8),
        ([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], 8),
        ([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], 8),
        ([[0, -1, -2], [1, 0, -1], [2, 1, 0]], 8),
        ([[-1, -2, -1], [-2, 12, -2], [-1, -2, -1]], 16),
    ]
    return torch.stack([torch.tensor(rows, dtype=torch.float) / over for rows, over in kernels])[
        :, None
    ]


class WearNetwork(nn.Module):
    """Energies, and the rule over them; `weights` and `constant` are fitted."""

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernels", filters(), persistent=False)
        self.weights = nn.Parameter(torch.zeros(FEATURES), requires_grad=False)
        self.constant = nn.Parameter(torch.zeros(1), requires_grad=False)

    def changes(self, pairs: Tensor) -> Tensor:
        """Grey float [1, 2, 224, 560], 0..255, to changes of energy [20, 98], one column a cell."""
        light = torch.log(pairs.reshape(2, 1, HEIGHT, WIDTH) + _LIGHT)
        energies = []
        for level in range(LEVELS):
            found = F.conv2d(F.pad(light, (1, 1, 1, 1), mode="replicate"), self.kernels)
            cell = (HEIGHT // ROWS >> level, WIDTH // COLUMNS >> level)
            energies.append(torch.log(F.avg_pool2d(found * found, cell) + _ENERGY))
            light = F.avg_pool2d(light, 2)
        both = torch.cat(energies, dim=1).reshape(2, FEATURES, ROWS * COLUMNS)
        return both[0] - both[1]

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """uint8 [1, 2, 224, 560] to heat [1, 1, 7, 14], 0..1, whose peak is the frame's wear."""
        changes = self.changes(x.float())
        figure = (median(changes) @ self.weights + self.constant).clamp(0, 1)
        cells = (self.weights @ changes + self.constant).clamp(1e-4, 1)
        return ((cells / cells.amax() * figure).reshape(1, 1, ROWS, COLUMNS),)


def median(changes: Tensor) -> Tensor:
    """Of each row of an even number of columns; by sorting half of it, which ONNX can say."""
    middle = torch.topk(changes, changes.shape[1] // 2 + 1, dim=1).values[:, -2:]
    return middle.mean(dim=1)
