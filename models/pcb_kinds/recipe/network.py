"""The classifier: a small residual network over one crop. 0.16 M parameters, made for int8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pcb_kinds.recipe.data import CLASSES
from models.recipe.layers import bottlenecks, conv_bn_relu

DROPPED = 0.1
WIDTHS = (24, 40, 64, 96)
"""Channels at a half, a quarter, an eighth and a sixteenth of the crop's size."""


class Classifier(nn.Module):
    """Class logits of crops scaled to 0..1."""

    def __init__(self) -> None:
        super().__init__()
        w2, w4, w8, w16 = WIDTHS
        self.features = nn.Sequential(
            conv_bn_relu(2, w2, stride=2),
            conv_bn_relu(w2, w4, stride=2),
            *bottlenecks(w4, 1),
            conv_bn_relu(w4, w8, stride=2),
            *bottlenecks(w8, 1),
            conv_bn_relu(w8, w16, stride=2),
            *bottlenecks(w16, 1),
        )
        self.classes = nn.Linear(w16, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, 2, 64, 64], 0..1, to logits [N, 7]."""
        pooled = self.features(x).mean((2, 3))
        return self.classes(F.dropout(pooled, DROPPED, self.training))


class ExportedClassifier(nn.Module):
    """As the runtime sees it: bytes in, probabilities out. Takes over `classifier`."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        with torch.no_grad():
            classifier.features[0][0].weight.mul_(1 / 255)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """uint8 [N, 2, 64, 64] to probabilities [N, 7]."""
        return (torch.softmax(self.classifier(x.float()), dim=1),)
