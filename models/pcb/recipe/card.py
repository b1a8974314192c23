"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.pcb.recipe.card --models models/pcb --int8 REPORT --fp32 REPORT --version 1.0.0`
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import onnx

from models.pcb.recipe.data import CLASSES
from models.pcb.recipe.detections import NMS_IOU

VARIANTS = {"int8": "model.int8.onnx", "fp32": "model.onnx"}
"""The first is what a deployment should take unless it has a reason."""

_HEAD = """\
# Written by `python -m models.pcb.recipe.card`: change the recipe, not this file.
[model]
name = "pcb"
version = {version}
task = "detection"
summary = "Defects of bare printed circuit boards, found by comparing a frame with its reference."
licence = "MIT, trained on DeepPCB images whose README adds 'You can only use this dataset for \
research purpose': both statements are passed on with the weights"
data = "DeepPCB, the 1000 official training pairs alone, \
https://github.com/tangsanli5201/DeepPCB commit 08e98c4db5922613fb97176eb3d6497d48260cb1. \
S. Tang, F. He, X. Huang, J. Yang: Online PCB Defect Detector On A New PCB Defect Dataset, \
arXiv:1902.06197 (2019)"
classes = {classes}
"""
_TENSORS = """
[[inputs]]
name = "input"
dtype = "uint8"
shape = [1, 2, 640, 640]
layout = "NCHW"
meaning = "channel 0 the frame, channel 1 its reference; grey 0..255"

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

[preprocessing]
guest = "pair"
description = "Frame and reference as 8-bit grey, 640x640, aligned to within 2 pixels, copper dark \
on a bright board as in the training images, neither scaled nor normalised: bytes are copied plane \
by plane"
"""


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    head = _HEAD.format(version=_toml(version), classes=_toml(list(CLASSES)))
    sections = [head]
    sections += [_table("model.variants", _variant(models, name)) for name in VARIANTS]
    sections.append(_TENSORS)
    sections.append(_thresholds(reports["int8"]))
    for name in VARIANTS:
        sections += [_table("accuracy", row) for row in _accuracy(name, reports[name])]
    sections += [_table("verdicts", _verdicts(name, reports[name])) for name in VARIANTS]
    sections += [_table("latency", _latency(name, reports[name])) for name in VARIANTS]
    return "".join(sections)


def count_parameters(model: onnx.ModelProto) -> int:
    """Weights and biases of the convolutions in a file, whatever their type."""
    producers = {output: node for node in model.graph.node for output in node.output}
    sizes = {item.name: onnx.numpy_helper.to_array(item).size for item in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            for name in node.input[1:]:
                # A quantised weight reaches its convolution through DequantizeLinear.
                stored = producers[name].input[0] if name in producers else name
                total += sizes[stored]
    return total


def _variant(models: Path, name: str) -> dict[str, Any]:
    content = (models / VARIANTS[name]).read_bytes()
    return {
        "name": name,
        "file": VARIANTS[name],
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": count_parameters(onnx.load_model_from_string(content)),
    }


def _thresholds(report: dict[str, Any]) -> str:
    lines = {
        "score": report["threshold"]["score"],
        "iou": NMS_IOU,
        "chosen_on": "augmented views of 400 training pairs, int8: middle of the scores whose F at "
        "IoU 0.33 is within 0.001 of the best",
    }
    return "\n[thresholds]\n" + _lines(lines)


def _accuracy(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "variant": name,
            "dataset": f"DeepPCB official test, {report['test_pairs']} of 500 pairs",
            **row,
        }
        for row in report["detections"]["at_iou"]
    ]


def _verdicts(name: str, report: dict[str, Any]) -> dict[str, Any]:
    verdicts = report["verdicts"]
    return {
        "variant": name,
        "parts": f"DeepPCB official test: {verdicts['bad']} bad parts with exactly one defect "
        f"kept, {verdicts['good']} good parts (annotated defects erased, nothing else differs)",
        "escape": verdicts["escape"]["rate"],
        "escape_interval": verdicts["escape"]["interval"],
        "overkill": verdicts["overkill"]["rate"],
        "overkill_interval": verdicts["overkill"]["interval"],
        "threshold": report["threshold"]["score"],
    }


def _latency(name: str, report: dict[str, Any]) -> dict[str, Any]:
    latency = report["latency"]
    return {
        "variant": name,
        "provider": "cpu",
        "threads": latency["threads"],
        "p50_ms": latency["p50_ms"],
        "machine": f"{latency['machine']}, shared with other work",
    }


def _table(name: str, values: dict[str, Any]) -> str:
    return f"\n[[{name}]]\n" + _lines(values)


def _lines(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    """A TOML value; strings, numbers and lists are written as JSON writes them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def main() -> None:
    """Writes the card of one folder of models."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--models", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--int8", type=Path, required=True, help="report on model.int8.onnx")
    parser.add_argument("--fp32", type=Path, required=True, help="report on model.onnx")
    parser.add_argument("--version", required=True)
    arguments = parser.parse_args()
    reports = {name: json.loads(getattr(arguments, name).read_text()) for name in VARIANTS}
    text = card(arguments.models, reports, arguments.version)
    (arguments.models / "model.toml").write_text(text)
    print(f"wrote {arguments.models / 'model.toml'}")


if __name__ == "__main__":
    main()
