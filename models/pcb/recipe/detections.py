"""From the network's outputs to detections, and from detections to figures. numpy only.

A detection is a row of float32 [n, 6]: x0, y0, x1, y1 in pixels, score 0..1, index of the class; a
truth is a row of float32 [n, 5]: the corners and the class. What `suppress` does is what the
reference deployment's postprocess guest must do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.pcb.recipe.data import CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rows = NDArray[np.float32]

NMS_IOU = 0.4
"""Of the annotated boxes of the training pairs just two overlap by more (IoU 0.405)."""
FLOOR = 0.02
"""Lowest score that a precision-recall curve looks at; decisions use the card's threshold."""
MAX_CANDIDATES = 300


@dataclass(frozen=True)
class Matches:
    """Detections of a set of frames against its truths at one IoU, best score first.

    Attributes:
        scores: float64 [n].
        hits: bool [n], the detection found a truth of its class that none before it had found.
        classes: int64 [n], of the detections.
        truths: int64 [6], truths of each class.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    classes: NDArray[np.int64]
    truths: NDArray[np.int64]

    def average_precision(self) -> dict[str, float]:
        """Area below each class's interpolated precision-recall curve (VOC 2010, all points)."""
        return {name: self._average_precision(index) for index, name in enumerate(CLASSES)}

    def _average_precision(self, index: int) -> float:
        hits = self.hits[self.classes == index]
        if not len(hits) or not self.truths[index]:
            return 0.0
        found = np.cumsum(hits)
        precision = found / np.arange(1, len(hits) + 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        return float(best_from_here[hits].sum() / self.truths[index])

    def f_score(self, threshold: float) -> float:
        """Harmonic mean of precision and recall, all classes pooled, of scores >= threshold."""
        reported = self.scores >= threshold
        hits = int(self.hits[reported].sum())
        return 2 * hits / max(int(reported.sum()) + int(self.truths.sum()), 1)

    def plateau(self, tolerance: float = 0.001) -> float:
        """Middle of the thresholds whose F is within `tolerance` of the best F.

        The best threshold alone is an accident of single detections; the curve is flat around it.
        """
        counts = np.arange(1, len(self.hits) + 1)
        f = 2 * np.cumsum(self.hits) / (counts + self.truths.sum())
        good = self.scores[f >= f.max() - tolerance]
        return float((good.min() + good.max()) / 2)


def overlaps(a: Rows, b: Rows) -> NDArray[np.float32]:
    """IoU of every box in `a` with every box in `b`, float32 [len(a), len(b)]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    shared = (high - low).clip(0).prod(axis=-1)
    area_a = (a[:, 2:4] - a[:, :2]).prod(axis=-1)
    area_b = (b[:, 2:4] - b[:, :2]).prod(axis=-1)
    return np.asarray(shared / (area_a[:, None] + area_b[None] - shared + 1e-9), np.float32)


def suppress(boxes: Rows, scores: Rows, floor: float = FLOOR, iou: float = NMS_IOU) -> Rows:
    """One detection for each defect, best score first.

    1. A cell speaks for its best class alone. 2. Scores below `floor` are dropped, then all but the
    best 300. 3. In falling order of score, equal scores in the order of cells, a detection drops
    every later one that overlaps it by `iou` or more, of whatever class.

    Args:
        boxes: float32 [A, 4], pixels.
        scores: float32 [A, 6], 0..1.
        floor: lowest score that is kept.
        iou: lowest overlap that makes two detections one.
    """
    classes, best = scores.argmax(axis=1), scores.max(axis=1)
    order = np.argsort(-best, kind="stable")[:MAX_CANDIDATES]
    order = order[best[order] >= floor]
    candidates = np.concatenate(
        [boxes[order], best[order, None], classes[order, None].astype(np.float32)], axis=1
    )
    clash = overlaps(candidates, candidates) >= iou
    kept = np.ones(len(candidates), np.bool_)
    for index in range(len(candidates)):
        if kept[index]:
            kept[index + 1 :] &= ~clash[index, index + 1 :]
    return np.asarray(candidates[kept], np.float32)


def match(detections: Sequence[Rows], truths: Sequence[Rows], iou: float) -> Matches:
    """Judges the detections of each frame: best first, each takes the best free truth of its class.

    Args:
        detections: for each frame float32 [n, 6].
        truths: for each frame float32 [m, 5].
        iou: lowest overlap that counts as found.
    """
    judged = [np.zeros((0, 3))]
    counts = np.zeros(len(CLASSES), np.int64)
    for found, truth in zip(detections, truths, strict=True):
        ranked = found[np.argsort(-found[:, 4], kind="stable")]
        counts += np.bincount(truth[:, 4].astype(int), minlength=len(CLASSES))
        overlap = overlaps(ranked, truth)
        overlap[ranked[:, 5, None] != truth[None, :, 4]] = -1
        hits = np.zeros(len(ranked))
        for index in range(len(ranked) if len(truth) else 0):
            best = int(overlap[index].argmax())
            if overlap[index, best] >= iou:
                hits[index] = 1
                overlap[:, best] = -1
        judged.append(np.column_stack([ranked[:, 4], hits, ranked[:, 5]]))
    rows = np.concatenate(judged)
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    return Matches(rows[:, 0], rows[:, 1] > 0, rows[:, 2].astype(np.int64), counts)


def official_average_precision(detections: Sequence[Rows], truths: Sequence[Rows]) -> float:
    """The single figure of the data set's own script: one curve over all classes and frames.

    As there: truths in listed order take the first free detection with IoU > 0.33; its class is
    compared only then; the area is the sum of precisions at the hits over the number of truths.
    """
    scores: list[float] = []
    hits: list[bool] = []
    for found, truth in zip(detections, truths, strict=True):
        near = overlaps(truth, found) > 0.33
        hit = np.zeros(len(found), np.bool_)
        for index in range(len(truth)):
            free = np.flatnonzero(near[index])
            if len(free):
                hit[free[0]] = found[free[0], 5] == truth[index, 4]
                near[:, free[0]] = False
        scores.extend(found[:, 4].tolist())
        hits.extend(hit.tolist())
    ranked = np.array(hits)[np.argsort(-np.array(scores), kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].sum() / sum(len(truth) for truth in truths))
