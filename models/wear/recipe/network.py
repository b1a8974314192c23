"""The wear score: a small network over frame and reference, a map of cells and one figure.

The figure learns the age of the frame, 0 new to 1 worn; the cells learn to add up to it, and so
show where it comes from. The map that leaves the network is scaled so that its peak is the figure.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.recipe.layers import Bottleneck, conv_bn_relu
from models.wear.recipe.data import HEIGHT, WIDTH

STRIDE = 16
DROPPED = 0.3


class WearNetwork(nn.Module):
    """Cells and figure of pairs scaled to 0..1.

    Frame and reference go through the same layers, and what differs counts: their features, unlike
    their pixels, forgive a camera that moved by a few pixels.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 64)) -> None:
        super().__init__()
        w4, w8, w16 = widths
        self.stem = nn.Sequential(
            nn.Conv2d(1, w4, 6, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(w4),
            nn.ReLU(inplace=True),
        )
        self.features = nn.Sequential(
            Bottleneck(w4, w4),
            conv_bn_relu(w4, w8, stride=2),
            Bottleneck(w8),
            conv_bn_relu(w8, w16, stride=2),
        )
        self.changes = nn.Sequential(conv_bn_relu(w16, w16), conv_bn_relu(w16, w16, kernel=1))
        self.cells = nn.Conv2d(w16, 1, 1)
        self.figure = nn.Linear(2 * w16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float [N, 2, 224, 560], 0..1, to cells 0..1 [N, 1, 14, 35] and figures 0..1 [N, 1]."""
        seen = self.features(self.stem(x.reshape(-1, 1, HEIGHT, WIDTH)))
        seen = seen.reshape(-1, 2, *seen.shape[1:])
        changes = self.changes(seen[:, 0] - seen[:, 1])
        pooled = torch.cat([changes.mean((2, 3)), changes.amax((2, 3))], dim=1)
        figure = torch.sigmoid(self.figure(F.dropout(pooled, DROPPED, self.training)))
        return torch.sigmoid(self.cells(changes)), figure


class ExportedWear(nn.Module):
    """As the runtime sees it: bytes in, a heat map 0..1 out. Takes over `network`."""

    def __init__(self, network: WearNetwork) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            network.stem[0].weight.mul_(1 / 255)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """uint8 [1, 2, 224, 560] to heat [1, 1, 14, 35], whose peak is the figure."""
        cells, figure = self.network(x.float())
        peak = cells.amax((2, 3), keepdim=True)
        return (cells / peak.clamp(min=1e-4) * figure[:, :, None, None],)


def wear_loss(outputs: tuple[Tensor, Tensor], age: Tensor) -> dict[str, Tensor]:
    """How far figures and mean cells are from the age, and how far pairs are out of order.

    Args:
        outputs: of `WearNetwork`.
        age: float [N, 1], 0..1.
    """
    cells, figure = outputs
    mean = cells.mean((2, 3))
    order = torch.sign(age - age.T)
    wrong = F.softplus(-8 * order * (figure - figure.T)) * (age - age.T).abs()
    return {
        "figure": F.smooth_l1_loss(figure, age, beta=0.1),
        "cells": 0.5 * F.smooth_l1_loss(mean, age, beta=0.1),
        "order": wrong.mean(),
    }
