"""The detector: a small anchor-free network over a pair, one prediction for each 8x8 cell.

Made for int8 on a CPU: plain convolutions and ReLU, a strided stem that leaves the 640x640 plane at
once, one detection level fed by a pyramid down to stride 32. 0.66 M parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pcb.recipe.data import CLASSES
from models.pcb.recipe.targets import GRID, STRIDE, cell_centres
from models.recipe.layers import Bottleneck, bottlenecks, conv_bn_relu

MAX_LOG_REACH = 4.0
"""Reach of a box side from its cell, in strides, is exp of at most this: 437 px."""
BOX_WEIGHT = 2.0
"""Of the box loss, beside the class loss."""


class Detector(nn.Module):
    """Class logits and box sides of every cell of a frame scaled to 0..1.

    Args:
        planes: 2, frame and reference; 1, the frame alone.
        widths: channels at strides 4, 8, 16 and 32.
        head: channels of the two heads.
    """

    def __init__(
        self,
        planes: int = 2,
        widths: tuple[int, int, int, int] = (24, 48, 96, 128),
        head: int = 48,
    ) -> None:
        super().__init__()
        w4, w8, w16, w32 = widths
        self.stem = nn.Sequential(
            nn.Conv2d(planes, w4, 6, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(w4),
            nn.ReLU(inplace=True),
        )
        self.stage4 = Bottleneck(w4)
        self.stage8 = nn.Sequential(conv_bn_relu(w4, w8, stride=2), *bottlenecks(w8, 2))
        self.stage16 = nn.Sequential(conv_bn_relu(w8, w16, stride=2), *bottlenecks(w16, 3))
        self.stage32 = nn.Sequential(conv_bn_relu(w16, w32, stride=2), *bottlenecks(w32, 2))
        self.lateral32 = conv_bn_relu(w32, w16, kernel=1)
        self.lateral16 = conv_bn_relu(w16, w16, kernel=1)
        self.merge16 = Bottleneck(w16)
        self.down16 = conv_bn_relu(w16, head, kernel=1)
        self.lateral8 = conv_bn_relu(w8, head, kernel=1)
        self.merge8 = nn.Sequential(conv_bn_relu(head, head), Bottleneck(head, head))
        self.class_head = nn.Sequential(conv_bn_relu(head, head), nn.Conv2d(head, len(CLASSES), 1))
        self.box_head = nn.Sequential(conv_bn_relu(head, head), nn.Conv2d(head, 4, 1))
        # Priors: nearly every cell is background, and a median defect reaches 15 px from its cell.
        nn.init.constant_(self.class_head[-1].bias, -4.0)
        nn.init.constant_(self.box_head[-1].bias, 0.6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Looks at frames.

        Args:
            x: float [N, planes, 640, 640], 0..1, frame and where there is one reference.

        Returns:
            Class logits [N, 6, 80, 80] and logarithms of left, top, right and bottom reach in
            strides [N, 4, 80, 80].
        """
        p8 = self.stage8(self.stage4(self.stem(x)))
        p16 = self.stage16(p8)
        p32 = self.stage32(p16)
        # Scale factors, not sizes: exported as constants that ONNX Runtime can quantise through.
        up32 = F.interpolate(self.lateral32(p32), scale_factor=2.0, mode="nearest")
        merged16 = self.merge16(F.relu(self.lateral16(p16) + up32))
        up16 = F.interpolate(self.down16(merged16), scale_factor=2.0, mode="nearest")
        merged8 = self.merge8(self.lateral8(p8) + up16)
        return self.class_head(merged8), self.box_head(merged8)


class ExportedDetector(nn.Module):
    """The detector as the runtime sees it: grey values in, boxes and scores out.

    Takes over `detector`, whose first convolution swallows the scale 1/255. A detector of one plane
    becomes one of three, of which it sees the mean: those that the guest letterbox fills.
    """

    centres: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        first = detector.stem[0]
        with torch.no_grad():
            first.weight.mul_(1 / 255)
            if first.in_channels == 1:
                first.weight = nn.Parameter(first.weight.repeat(1, 3, 1, 1) / 3)
                first.in_channels = 3
        self.channels = first.in_channels
        self.register_buffer("centres", torch.from_numpy(cell_centres()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [1, 2 or 3, 640, 640], 0..255, to boxes [1, 6400, 4] and scores [1, 6400, 6]."""
        logits, reaches = self.detector(x.float())
        rows = reaches.reshape(1, 4, GRID * GRID).transpose(1, 2)
        scores = torch.sigmoid(logits.reshape(1, len(CLASSES), GRID * GRID).transpose(1, 2))
        return decode(rows, self.centres), scores


def decode(reaches: Tensor, centres: Tensor) -> Tensor:
    """Corners x0, y0, x1, y1 in pixels, [..., 4], of log reaches [..., 4] at centres [..., 2]."""
    sides = torch.exp(reaches.clamp(-MAX_LOG_REACH, MAX_LOG_REACH)) * STRIDE
    return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1)


def generalised_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of corner boxes [n, 4], row by row."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - overlap
    iou = overlap / (union + 1e-7)
    low, high = torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])
    hull = (high - low).prod(dim=1)
    return iou, iou - (hull - union) / (hull + 1e-7)


def detection_loss(
    outputs: tuple[Tensor, Tensor], cells: Tensor, boxes: Tensor, group: Tensor, trust: Tensor
) -> dict[str, Tensor]:
    """Classification and box loss of a batch, weighed as they are to be minimised.

    Scores learn the IoU of their own box, relative to the best cell of the same defect, with the
    varifocal weighting (Zhang et al. 2021); boxes learn generalised IoU where scores matter.

    Args:
        outputs: of `Detector`, for N pairs.
        cells: int64 [P], indices of answering cells in the N * 6400 cells of the batch.
        boxes: float [P, 5], the box and class that each of them answers for.
        group: int64 [P], equal for cells of the same defect, 0..P-1.
        trust: float [P], 0..1, how much each box teaches the box head; scores learn from all.
    """
    logits = outputs[0].permute(0, 2, 3, 1).reshape(-1, len(CLASSES))
    reaches = outputs[1].permute(0, 2, 3, 1).reshape(-1, 4)[cells]
    centres = torch.from_numpy(cell_centres()).to(cells.device)[cells % (GRID * GRID)]
    iou, giou = generalised_iou(decode(reaches, centres), boxes[:, :4])
    quality = iou.detach().clamp(min=0.05)
    best = torch.zeros_like(quality).scatter_reduce(0, group, quality, "amax")[group]
    quality = quality * quality / best
    targets = torch.zeros_like(logits)
    targets[cells, boxes[:, 4].long()] = quality
    scores = torch.sigmoid(logits.detach())
    weights = torch.where(targets > 0, targets + (targets - scores).abs(), 0.75 * scores.square())
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    class_loss = (entropy * weights).sum() / targets.sum().clamp(min=1)
    box_weights = (quality + 0.1) * trust
    box_loss = ((1 - giou) * box_weights).sum() / box_weights.sum().clamp(min=1)
    return {"class": class_loss, "box": BOX_WEIGHT * box_loss}
