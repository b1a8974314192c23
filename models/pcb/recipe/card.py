"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.pcb.recipe.card --models models/pcb --version 1.0.0`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.pcb.recipe.data import CLASSES, CONTRACT
from models.pcb.recipe.detections import NMS_IOU
from models.recipe import card as common

if TYPE_CHECKING:
    from pathlib import Path

    from models.recipe.frames import FrameContract

MODEL = {
    "name": "pcb",
    "task": "detection",
    "summary": "Defects of bare printed circuit boards, found by comparing a frame with its "
    "reference.",
    "licence": "MIT, trained on DeepPCB images whose README adds 'You can only use this dataset "
    "for research purpose': both statements are passed on with the weights",
    "data": "DeepPCB, the 1000 official training pairs alone, "
    "https://github.com/tangsanli5201/DeepPCB commit 08e98c4db5922613fb97176eb3d6497d48260cb1. "
    "S. Tang, F. He, X. Huang, J. Yang: Online PCB Defect Detector On A New PCB Defect Dataset, "
    "arXiv:1902.06197 (2019)",
    "classes": list(CLASSES),
}
_OUTPUTS = """
[[outputs]]
name = "boxes"
dtype = "float32"
shape = [1, 6400, 4]
meaning = "x0, y0, x1, y1 in input pixels, one box for each cell of an 80x80 grid, row by row"

[[outputs]]
name = "scores"
dtype = "float32"
shape = [1, 6400, 6]
meaning = "confidence 0..1 of each class for each cell, in the order of model.classes"
"""
_CHANNELS = "channel 0 the frame, channel 1 its reference; grey 0..255"
_PREPROCESSING = {
    "guest": "pair",
    "description": "Frame and reference as 8-bit grey, 640x640, aligned to within 2 pixels, copper "
    "dark on a bright board as in the training images, neither scaled nor normalised: bytes are "
    "copied plane by plane",
}


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    return detector_card(models, reports, version, MODEL, CONTRACT, _CHANNELS, _PREPROCESSING)


def detector_card(
    models: Path,
    reports: dict[str, dict[str, Any]],
    version: str,
    model: dict[str, Any],
    contract: FrameContract,
    channels: str,
    preprocessing: dict[str, str],
) -> str:
    """The text of the card of a detector of this recipe, with a reference or without.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
        model: the section of that name, but for the version.
        contract: the frame path that the deployment pins.
        channels: what each channel of the input is, in words.
        preprocessing: the section of that name.
    """
    tensor = {
        "name": contract.input.name,
        "dtype": contract.input.dtype,
        "shape": list(contract.input.shape),
        "layout": "NCHW",
        "meaning": channels,
    }
    tensors = (
        common.tables("inputs", [tensor])
        + _OUTPUTS
        + common.section("preprocessing", preprocessing)
    )
    rows = {"accuracy": _accuracy, "verdicts": _verdicts}
    thresholds = _thresholds(reports["int8"])
    return common.whole(models, reports, version, model, tensors, thresholds, rows)


def _thresholds(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "score": report["threshold"]["score"],
        "iou": NMS_IOU,
        "chosen_on": "augmented views of 400 training pairs, int8: middle of the scores whose F at "
        "IoU 0.33 is within 0.001 of the best",
    }


def _accuracy(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    dataset = f"DeepPCB official test, {report['test_pairs']} of 500 pairs"
    return [{"variant": name, "dataset": dataset, **row} for row in report["detections"]["at_iou"]]


def _verdicts(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    found = report["verdicts"]
    parts = (
        f"DeepPCB official test: {found['bad']} bad parts with exactly one defect kept, "
        f"{found['good']} good parts (annotated defects erased, nothing else differs)"
    )
    return [common.verdicts(name, parts, found, report["threshold"]["score"])]


if __name__ == "__main__":
    common.main(card, __doc__)
