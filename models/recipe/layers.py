"""Layers that quantise well: plain convolutions, folded normalisation, ReLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with "same" padding, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Bottleneck(nn.Module):
    """Residual block, 1x1 then 3x3; starts as the identity."""

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or channels // 2
        self.reduce = conv_bn_relu(channels, hidden, kernel=1)
        self.expand = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] to the same shape."""
        return F.relu(x + self.norm(self.expand(self.reduce(x))))


def bottlenecks(channels: int, count: int) -> list[Bottleneck]:
    """Several in a row."""
    return [Bottleneck(channels) for _ in range(count)]
