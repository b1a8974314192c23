"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.wear.recipe.card --models models/wear --version 1.0.0`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.recipe import card as common

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {
    "name": "wear",
    "task": "anomaly",
    "summary": "How worn a ball screw looks beside its picture when new: a score that rises over "
    "time, for drift alarms.",
    "licence": "CC BY-SA 4.0, as the images that it was trained on: name the authors, and give "
    "what you make of the weights (a fine-tuned model, say) under the same licence. Verdicts that "
    "a device gives are not bound by it",
    "data": "BSData, two of its time-lapse sequences, https://github.com/2Obe/BSData commit "
    "7204b28a621733c01cd75899ed9ea27f6ea0b9e3, CC BY-SA 4.0. T. Schlagenhauf, M. Landwehr: "
    "Industrial machine tool component surface defect dataset, Data in Brief 39 (2021) 107643",
    "classes": ["wear"],
}
VARIANTS = ("fp32",)
"""Logarithms of small energies do not survive eight bits, and 13 KB need no shrinking."""
_TENSORS = """
[[inputs]]
name = "input"
dtype = "uint8"
shape = [1, 2, 224, 560]
layout = "NCHW"
meaning = "channel 0 the frame, channel 1 the same place when new; grey 0..255"

[[outputs]]
name = "heat"
dtype = "float32"
shape = [1, 1, 7, 14]
meaning = "where the wear is, 0..1, in cells of 40x32 input pixels; its peak is the frame's score"

[preprocessing]
guest = "pair"
description = "Frame and picture when new as 8-bit grey, resized to fit 560x224, padded with 114"
"""


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    thresholds = {
        "score": reports["fp32"]["threshold"]["score"],
        "chosen_on": "the two sequences that the rule was fitted to: half way between the scores "
        "before and from the first annotated pit on",
    }
    rows = {"figures": _figures, "verdicts": _verdicts}
    return common.whole(models, reports, version, MODEL, _TENSORS, thresholds, rows)


def _figures(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    held = report["held_back"]
    dataset = f"BSData, sequence {held['sequence']}, {held['frames']} frames, held back"
    return [
        {"variant": variant, "dataset": dataset, "name": name, "value": held[key]}
        for name, key in (
            ("spearman-with-time", "spearman"),
            ("spearman-of-mean-of-5", "spearman_of_mean_of_5"),
            ("pitted-auroc", "pitted_auroc"),
        )
    ]


def _verdicts(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    found = report["held_back"]["verdicts"]
    parts = (
        f"BSData, held-back sequence: {found['escape']['of']} frames annotated with a pit, "
        f"{found['overkill']['of']} without"
    )
    return [common.verdicts(variant, parts, found, report["threshold"]["score"])]


if __name__ == "__main__":
    common.main(card, __doc__, VARIANTS)
