"""Judges an ONNX file of the segmenter: frames, parts of several exposures, pixels, time. No torch.

`python -m models.tile.recipe.evaluate --data ../shared/data --model models/tile/model.int8.onnx`

Threshold and votes come from the training tiles that were held back from training, or are given
with `--chosen`, as for another variant of the same weights. Test tiles are then judged
once. `--report` keeps the figures as JSON for `card`; `--check REPORT` compares with one instead,
and fails where a figure differs.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from models.recipe.figures import auroc, rate
from models.recipe.report import add_report_arguments, finish
from models.recipe.session import measure_latency, open_session, outputs
from models.tile.recipe.data import HELD_BACK, SIDE, Tiles, load

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

MOST_VOTES = 4
DOUBTED_SHARE = 0.05
"""Of held-back bad frames: the share that lies below the band in which a person looks."""
EXPOSURES = 6


@dataclass(frozen=True)
class Parts:
    """Frames fused to parts: a part is bad when one of its frames is annotated."""

    bad: NDArray[np.bool_]
    ranked: list[NDArray[np.float64]]
    """Of each part the scores of its frames, strongest first."""

    def scores(self, votes: int) -> NDArray[np.float64]:
        """What k-of-n voting compares with the threshold: the k-th strongest frame of each part.

        A part of fewer frames is never rejected, as in the policy: it scores 0.
        """
        return np.array([r[votes - 1] if votes <= len(r) else 0.0 for r in self.ranked])


def heat_maps(session: ort.InferenceSession, tiles: Tiles) -> NDArray[np.float32]:
    """float32 [N, 48, 48] of frames."""
    return np.stack(
        [outputs(session, np.stack([plane] * 3)[None])[0][0, 0] for plane in tiles.planes]
    )


def fuse(tiles: Tiles, scores: NDArray[np.float64]) -> Parts:
    """The parts that the frames show."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(tiles.groups):
        members[group].append(index)
    rows = list(members.values())
    return Parts(
        np.array([tiles.bad[row].any() for row in rows]),
        [np.sort(scores[row])[::-1] for row in rows],
    )


def choose(tiles: Tiles, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Threshold of a frame and votes of a part, from held-back training tiles.

    The threshold is the middle of those with the best sum of found bad and passed good frames; the
    votes are those with the best AUROC over parts, the fewest of equals.
    """
    bad, good = scores[tiles.bad], scores[~tiles.bad]
    candidates = np.unique(scores)
    sums = np.array([(bad >= at).mean() + (good < at).mean() for at in candidates])
    best = candidates[sums >= sums.max() - 0.01]
    parts = fuse(tiles, scores)
    by_votes = [_part_auroc(parts, votes) for votes in range(1, MOST_VOTES + 1)]
    return {
        "score": round(float((best.min() + best.max()) / 2), 2),
        "votes": int(np.argmax(by_votes)) + 1,
        "review": round(float(np.quantile(bad, DOUBTED_SHARE)), 2),
        "frame_auroc": round(auroc(bad, good), 4),
        "part_auroc_by_votes": [round(value, 4) for value in by_votes],
    }


def judge(tiles: Tiles, heat: NDArray[np.float32], chosen: dict[str, Any]) -> dict[str, Any]:
    """Figures of frames, of parts and of pixels, at what `choose` gave."""
    score, votes, review = chosen["score"], chosen["votes"], chosen["review"]
    scores = heat.max(axis=(1, 2)).astype(np.float64)
    labels = np.array(tiles.labels)
    good = scores[~tiles.bad]
    parts = fuse(tiles, scores)
    fused = parts.scores(votes)
    return {
        "frames": len(tiles),
        "frame_auroc": round(auroc(scores[tiles.bad], good), 4),
        "frame_auroc_of": {
            name: round(auroc(scores[labels == name], good), 4)
            for name in sorted(set(tiles.labels) - {""})
        },
        "frame_verdicts": {
            "escape": rate(scores[tiles.bad] < score),
            "overkill": rate(good >= score),
        },
        "frames_below_review": {
            "bad": rate(scores[tiles.bad] < review),
            "good": rate(good < review),
        },
        "parts": len(parts.bad),
        "part_auroc": round(_part_auroc(parts, votes), 4),
        "part_verdicts": {
            "escape": rate(fused[parts.bad] < score),
            "overkill": rate(fused[~parts.bad] >= score),
        },
        "pixel_iou_of_bad_frames": round(_pixel_iou(tiles, heat, score), 4),
    }


def _part_auroc(parts: Parts, votes: int) -> float:
    scores = parts.scores(votes)
    return auroc(scores[parts.bad], scores[~parts.bad])


def _pixel_iou(tiles: Tiles, heat: NDArray[np.float32], score: float) -> float:
    """Overlap of hot and annotated pixels, pooled over all bad frames."""
    shared = either = 0
    for index in np.flatnonzero(tiles.bad):
        hot = cv2.resize(heat[index], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) >= score
        true = tiles.masks[index] > 0
        shared += int((hot & true).sum())
        either += int((hot | true).sum())
    return shared / max(either, 1)


def main() -> None:
    """Prints the figures of one file and keeps, or checks, them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds mt/; default EDGE_DATA")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--chosen", type=Path, metavar="REPORT", help="take thresholds of these weights from there"
    )
    add_report_arguments(parser)
    arguments = parser.parse_args()
    session = open_session(arguments.model)
    test = load("test", arguments.data)
    report: dict[str, Any] = {"file": arguments.model.name}
    report["latency"] = measure_latency(
        arguments.model, [np.stack([plane] * 3)[None] for plane in test.planes[:4]]
    )
    if arguments.chosen is None:
        trained = load("train", arguments.data)
        held = trained.take(trained.folds == HELD_BACK)
        peaks = heat_maps(session, held).max(axis=(1, 2)).astype(np.float64)
        report["threshold"] = choose(held, peaks)
    else:
        report["threshold"] = json.loads(arguments.chosen.read_text())["threshold"]
    report["test"] = judge(test, heat_maps(session, test), report["threshold"])
    finish(report, arguments)


if __name__ == "__main__":
    main()
