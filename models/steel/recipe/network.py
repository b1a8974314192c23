"""The classifier: a small residual network over one crop. 0.4 M parameters, made for int8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.recipe.layers import bottlenecks, conv_bn_relu
from models.steel.recipe.data import CLASSES

DROPPED = 0.2


FEATURE_WIDTHS = (24, 48, 96, 128)
"""Channels at a half, a quarter, an eighth and a sixteenth of the image's size."""


def surface_features() -> nn.Sequential:
    """The layers that look; another model of metal surfaces may begin with these weights."""
    w2, w4, w8, w16 = FEATURE_WIDTHS
    return nn.Sequential(
        conv_bn_relu(3, w2, stride=2),
        *bottlenecks(w2, 1),
        conv_bn_relu(w2, w4, stride=2),
        *bottlenecks(w4, 2),
        conv_bn_relu(w4, w8, stride=2),
        *bottlenecks(w8, 2),
        conv_bn_relu(w8, w16, stride=2),
        *bottlenecks(w16, 1),
    )


class Classifier(nn.Module):
    """Class logits of crops scaled to 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = surface_features()
        self.classes = nn.Linear(FEATURE_WIDTHS[-1], len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, 3, 128, 128], 0..1, to logits [N, 7]."""
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
        """uint8 [1, 3, 128, 128] to probabilities [1, 7]."""
        return (torch.softmax(self.classifier(x.float()), dim=1),)
