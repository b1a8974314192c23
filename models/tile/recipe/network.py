"""The segmenter: a small pyramid over one tile, a heat map at a quarter of its size.

Its first layers are those of the steel classifier, with their weights to begin with: seventy
training tiles do not teach a network what scratches on metal look like, a thousand crops of strip
do.

Two heads learn together: where a defect is (pixels), and whether there is one (the whole frame,
from the same features). The heat map that leaves the network is their geometric mean, so that a
spot counts less on a tile that as a whole looks good: one map, one meaning, and its peak is the
score.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.recipe.layers import Bottleneck, conv_bn_relu
from models.steel.recipe.network import FEATURE_WIDTHS, surface_features

STRIDE = 4
_TO_4, _TO_8, _TO_16 = slice(0, 5), slice(5, 8), slice(8, 10)
"""Which of the feature layers lead to a quarter, an eighth and a sixteenth of the size."""
DROPPED = 0.2


class Segmenter(nn.Module):
    """Pixel and frame logits of tiles scaled to 0..1."""

    def __init__(self, merged: int = 64, fine: int = 32) -> None:
        super().__init__()
        _, w4, w8, w16 = FEATURE_WIDTHS
        self.features = surface_features()
        self.lateral16 = conv_bn_relu(w16, merged, kernel=1)
        self.merge16 = Bottleneck(merged, merged)
        self.lateral8 = conv_bn_relu(w8, merged, kernel=1)
        self.merge8 = Bottleneck(merged, merged)
        self.down8 = conv_bn_relu(merged, fine, kernel=1)
        self.lateral4 = conv_bn_relu(w4, fine, kernel=1)
        self.merge4 = Bottleneck(fine, fine)
        self.pixels = nn.Sequential(conv_bn_relu(fine, fine), nn.Conv2d(fine, 1, 1))
        self.frame_features = conv_bn_relu(merged, merged, stride=2)
        self.frame = nn.Linear(2 * merged, 1)
        nn.init.constant_(self.pixels[-1].bias, -4.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float [N, 3, 192, 192], 0..1, to pixel logits [N, 1, 48, 48] and frame logits [N, 1]."""
        p4 = self.features[_TO_4](x)
        p8 = self.features[_TO_8](p4)
        p16 = self.features[_TO_16](p8)
        merged16 = self.merge16(self.lateral16(p16))
        merged8 = self.merge8(self.lateral8(p8) + _up(merged16))
        merged4 = self.merge4(self.lateral4(p4) + _up(self.down8(merged8)))
        seen = self.frame_features(merged8)
        # Mean and peak: unevenness is everywhere a little, a blowhole in one place.
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        return self.pixels(merged4), self.frame(F.dropout(pooled, DROPPED, self.training))


class ExportedSegmenter(nn.Module):
    """As the runtime sees it: bytes in, a heat map 0..1 out. Takes over `segmenter`."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter
        with torch.no_grad():
            segmenter.features[0][0].weight.mul_(1 / 255)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """uint8 [1, 3, 192, 192] to heat [1, 1, 48, 48]."""
        pixels, frame = self.segmenter(x.float())
        return (torch.sqrt(torch.sigmoid(pixels) * torch.sigmoid(frame)[:, :, None, None]),)


def segmentation_loss(
    outputs: tuple[Tensor, Tensor], masks: Tensor, bad: Tensor
) -> dict[str, Tensor]:
    """What both heads should have said.

    Args:
        outputs: of `Segmenter`.
        masks: float [N, 1, 192, 192], 1 where the defect is.
        bad: float [N, 1], 1 of a frame with a defect.
    """
    pixels, frame = outputs
    coarse = F.avg_pool2d(masks, STRIDE)
    # A thin crack covers a small part of its cells; they count as hit from a quarter on.
    target = (coarse * 4).clamp(max=1)
    entropy = F.binary_cross_entropy_with_logits(pixels, target, reduction="none")
    found = torch.sigmoid(pixels)
    focus = (target - found).abs().detach()
    # Each frame alone: an uneven surface has a hundred times the cells of a blowhole, and would
    # drown it in a common sum.
    area = target.sum((1, 2, 3))
    pixel_loss = (entropy * focus * (1 + 4 * target)).sum((1, 2, 3)) / (area + 10)
    overlap = (found * target).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (found.sum((1, 2, 3)) + area + 1)
    return {
        "pixel": pixel_loss.mean(),
        "dice": (dice * bad[:, 0]).sum() / bad.sum().clamp(min=1),
        "frame": F.binary_cross_entropy_with_logits(frame, bad * 0.95 + 0.025),
    }


def _up(x: Tensor) -> Tensor:
    # A scale factor, not a size: exported as a constant that ONNX Runtime can quantise through.
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
