"""The committed int8 models give the figures that their cards tell, on the real test images.

The long form, every figure digit by digit, is `make evaluate`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from models.pcb.recipe import data as pcb_data
from models.pcb.recipe import evaluate as pcb
from models.pcb_kinds.recipe import data as kinds_data
from models.pcb_kinds.recipe import evaluate as kinds
from models.pcb_kinds.recipe.cascade import Cascade
from models.recipe.frames import FramePath
from models.recipe.session import open_session
from models.steel.recipe import data as steel_data
from models.steel.recipe import evaluate as steel
from models.tile.recipe import data as tile_data
from models.tile.recipe import evaluate as tile
from models.wear.recipe import data as wear_data
from models.wear.recipe import evaluate as wear

MODELS = Path(__file__).parents[3] / "models"
ANOTHER_PROCESSOR = 0.004
"""Figures may move by this where floating point differs: one frame of some three hundred."""


@pytest.fixture
def data() -> Path:
    root = Path(os.environ.get("EDGE_DATA") or MODELS.parents[1] / "shared" / "data")
    if not root.is_dir():
        reason = f"no real defect data in {root}: set EDGE_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return root


def report_of(name: str, variant: str = "int8") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODELS / name / "reports" / f"{variant}.json").read_text())
    return found


def model_of(name: str) -> Path:
    return MODELS / name / "model.int8.onnx"


def near(expected: float) -> Any:
    return pytest.approx(expected, abs=ANOTHER_PROCESSOR)


def test_the_cascade_on_its_first_pairs(data: Path) -> None:
    expected = report_of("pcb_kinds")["quick"]
    pairs = pcb_data.load_test(data / "deeppcb", pcb.QUICK_PAIRS)
    sessions = open_session(kinds_data.DETECTOR), open_session(model_of("pcb_kinds"))
    with FramePath(kinds_data.CONTRACT) as path:
        cascade = Cascade(*sessions, path)
        found = kinds.judge_kinds([cascade(images) for images in pairs.images], pairs.boxes)
    for figure in ("classifier_wrong", "false_alarms_dropped"):
        one, other = found[figure]["events"], expected[figure]["events"]
        assert one == pytest.approx(other, abs=1), f"{figure}: on another processor by one at most"


def test_pcb_on_its_first_pairs(data: Path) -> None:
    report = report_of("pcb")
    pairs = pcb_data.load_test(data / "deeppcb", pcb.QUICK_PAIRS)
    detect = pcb.detector(open_session(model_of("pcb")))
    found = pcb.judge_detections(detect, pairs, report["threshold"]["score"])
    for one, other in zip(found["at_iou"], report["quick"]["at_iou"], strict=True):
        assert (one["map"], one["f"]) == (near(other["map"]), near(other["f"]))


def test_steel(data: Path) -> None:
    report = report_of("steel")
    crops = steel_data.load("test", data)
    found = steel.judge(open_session(model_of("steel")), crops, report["threshold"]["score"])
    assert found["accuracy"] == near(report["test"]["accuracy"])
    assert found["accuracy"] >= 0.985
    assert found["macro_f1"] == near(report["test"]["macro_f1"])


def test_tile(data: Path) -> None:
    report = report_of("tile")
    tiles = tile_data.load("test", data)
    heat = tile.heat_maps(open_session(model_of("tile")), tiles)
    found = tile.judge(tiles, heat, report["threshold"])
    for figure in ("frame_auroc", "part_auroc", "pixel_iou_of_bad_frames"):
        assert found[figure] == near(report["test"][figure])


def test_wear(data: Path) -> None:
    report = report_of("wear", "fp32")
    (held,) = (s for s in wear_data.load(data) if s.name == wear_data.HELD_BACK)
    found = wear.judge(
        open_session(MODELS / "wear" / "model.onnx"), held, report["threshold"]["score"]
    )
    assert found["spearman"] == near(report["held_back"]["spearman"])
    assert found["first_alarm_at"] == report["held_back"]["first_alarm_at"]
