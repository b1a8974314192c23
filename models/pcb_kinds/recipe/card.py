"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.pcb_kinds.recipe.card --models models/pcb_kinds --version 1.0.0`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.pcb.recipe.card import MODEL as DETECTOR
from models.pcb_kinds.recipe.data import BATCH, CLASSES, SIDE
from models.recipe import card as common

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {
    "name": "pcb_kinds",
    "task": "classification",
    "summary": "Kinds of board defects, or none, from a crop of the board and the same crop of its "
    "reference: the second model behind the detector pcb.",
    "licence": DETECTOR["licence"],
    "data": DETECTOR["data"],
    "classes": list(CLASSES),
}
_TENSORS = f"""
[[inputs]]
name = "input"
dtype = "uint8"
shape = [{BATCH}, 2, {SIDE}, {SIDE}]
layout = "NCHW"
meaning = "up to {BATCH} crops; channel 0 of the frame, channel 1 of its reference; grey 0..255"

[[outputs]]
name = "probabilities"
dtype = "float32"
shape = [{BATCH}, {len(CLASSES)}]
meaning = "of each crop the probability of each class, in the order of model.classes"

[preprocessing]
guest = "pair"
description = "Square crops around findings, a quarter of the box added on each side, at least \
{SIDE} pixels; both planes as 8-bit grey, larger crops scaled down to {SIDE}x{SIDE}, bytes"
"""


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    thresholds = {
        "score": reports["int8"]["setting"]["threshold"],
        "chosen_on": "augmented views of 400 training pairs, int8, behind the detector: the lowest "
        "score with no more false alarms than the detector alone gives at its own threshold",
    }
    rows = {"figures": _figures, "verdicts": _verdicts}
    return common.whole(models, reports, version, MODEL, _TENSORS, thresholds, rows)


def _figures(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = report["kinds"]
    dataset = (
        f"findings of the detector pcb from {kinds['findings_from']} on, DeepPCB official test, "
        f"{report['test_pairs']} of 500 pairs"
    )
    right = [round(1 - end, 4) for end in reversed(kinds["classifier_wrong"]["interval"])]
    dropped = kinds["false_alarms_dropped"]
    return [
        {"variant": variant, "dataset": dataset, **row}
        for row in (
            {
                "name": "accuracy-on-defects",
                "value": round(1 - kinds["classifier_wrong"]["rate"], 4),
                "interval": right,
            },
            {
                "name": "false-alarms-dropped",
                "value": dropped["rate"],
                "interval": dropped["interval"],
            },
        )
    ]


def _verdicts(variant: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    found = report["cascade"]["verdicts"]
    parts = (
        f"behind the detector pcb, DeepPCB official test: {found['bad']} bad parts with exactly "
        f"one defect kept, {found['good']} good parts (annotated defects erased, nothing else "
        "differs)"
    )
    return [common.verdicts(variant, parts, found, report["cascade"]["threshold"])]


if __name__ == "__main__":
    common.main(card, __doc__)
