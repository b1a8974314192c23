"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.steel.recipe.card --models models/steel --version 1.0.0`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.recipe import card as common
from models.steel.recipe.data import CLASSES, QUALITY

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {
    "name": "steel",
    "task": "classification",
    "summary": "Kinds of surface defects of hot-rolled steel strip.",
    "licence": "Apache-2.0, as the data that it was trained on",
    "data": "X-SDD, 952 training crops of a split by content hash, "
    "https://github.com/Fighter20092392/X-SDD-A-New-benchmark commit "
    "adf880814dbd365c73fc3643019272b5637fecc2, Apache-2.0. X. Feng, X. Gao, L. Luo: X-SDD: A New "
    "Benchmark for Hot Rolled Steel Strip Surface Defects Detection, Symmetry 2021, 13(4), 706",
    "classes": list(CLASSES),
}
_TENSORS = """
[[inputs]]
name = "input"
dtype = "uint8"
shape = [1, 3, 128, 128]
layout = "NCHW"
meaning = "three equal planes of grey levels 0..255"

[[outputs]]
name = "probabilities"
dtype = "float32"
shape = [1, 7]
meaning = "probability of each class, in the order of model.classes; they add up to 1"

[preprocessing]
guest = "letterbox"
description = "A crop of strip as 8-bit grey, resized to fit 128x128, padded with 114, bytes"
"""


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    thresholds = {
        "score": reports["int8"]["threshold"]["score"],
        "chosen_on": "augmented views of the 952 training crops, int8: below it lies 1 % of them",
    }
    rows = {"figures": _figures}
    return common.whole(models, reports, version, MODEL, _TENSORS, thresholds, rows)


def _figures(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    test = report["test"]
    dataset = f"X-SDD, {test['crops']} test crops, re-encoded as JPEG of quality {QUALITY}"
    wrong = [round(1 - end, 4) for end in reversed(test["wrong"]["interval"])]
    doubted, missed = test["verdicts"].values()
    return [
        {"variant": variant, "dataset": dataset, **row}
        for row in (
            {"name": "accuracy", "value": test["accuracy"], "interval": wrong},
            {"name": "macro-f1", "value": test["macro_f1"]},
            {"name": "sent-to-review", "value": doubted["rate"], "interval": doubted["interval"]},
            {"name": "wrong-kind-unseen", "value": missed["rate"], "interval": missed["interval"]},
        )
    ]


if __name__ == "__main__":
    common.main(card, __doc__)
