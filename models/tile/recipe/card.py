"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.tile.recipe.card --models models/tile --version 1.0.0`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.recipe import card as common

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {
    "name": "tile",
    "task": "anomaly",
    "summary": "Defects of magnetic tiles as a heat map: blowholes, cracks, breaks, fraying, "
    "uneven surface.",
    "licence": "the data has no licence file; its owner answered, asked about commercial use: 'i "
    "have okay with any purpose u use for this dataset' (issue 5 of the source, 2026-01-09). The "
    "weights are given likewise; cite the authors",
    "data": "MT, frames of training tiles of a split by tile, "
    "https://github.com/abin24/Magnetic-tile-defect-datasets. commit "
    "cc4eb530b57b9cb7225bf76023873043ffd50655. Y. Huang, C. Qiu, K. Yuan: Surface defect saliency "
    "of magnetic tile, The Visual Computer 36 (2020) 85-96, doi:10.1007/s00371-018-1588-5",
    "classes": ["defect"],
}
_TENSORS = """
[[inputs]]
name = "input"
dtype = "uint8"
shape = [1, 3, 192, 192]
layout = "NCHW"
meaning = "three equal planes of grey levels 0..255"

[[outputs]]
name = "heat"
dtype = "float32"
shape = [1, 1, 48, 48]
meaning = "how surely each cell of 4x4 input pixels is defective, 0..1"

[preprocessing]
guest = "letterbox"
description = "One tile, cut to its edges, as 8-bit grey, resized to fit 192x192, padded with 114"
"""


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    chosen = reports["int8"]["threshold"]
    thresholds = {
        "score": chosen["score"],
        "chosen_on": "the training tiles that were held back from training, int8: middle of the "
        "scores with the best sum of found bad and passed good frames; a part is rejected by "
        f"{chosen['votes']} of its frames, chosen there likewise",
    }
    rows = {"figures": _figures, "verdicts": _verdicts}
    return common.whole(models, reports, version, MODEL, _TENSORS, thresholds, rows)


def _figures(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    test = report["test"]
    frames = f"MT, {test['frames']} frames of test tiles, none of which training saw"
    parts = f"MT, {test['parts']} test tiles, their frames fused"
    return [
        {
            "variant": variant,
            "dataset": frames,
            "name": "frame-auroc",
            "value": test["frame_auroc"],
        },
        {"variant": variant, "dataset": parts, "name": "part-auroc", "value": test["part_auroc"]},
        {
            "variant": variant,
            "dataset": "MT, bad frames of test tiles",
            "name": "pixel-iou",
            "value": test["pixel_iou_of_bad_frames"],
        },
    ]


def _verdicts(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    test, score = report["test"], report["threshold"]["score"]
    frames, parts = test["frame_verdicts"], test["part_verdicts"]
    return [
        common.verdicts(variant, f"MT, {_counts(frames)} frames of test tiles", frames, score),
        common.verdicts(
            variant, f"MT, {_counts(parts)} test tiles of several frames", parts, score
        ),
    ]


def _counts(found: dict[str, Any]) -> str:
    return f"{found['escape']['of']} bad and {found['overkill']['of']} good"


if __name__ == "__main__":
    common.main(card, __doc__)
