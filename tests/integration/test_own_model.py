"""docs/models.md holds what it says: its card and manifest, with a real export, give a verdict."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from edge import config
from edge.bench import detector, frame_path
from edge.cli.main import main
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, PolicyState
from edge.contracts.verdict import Kind
from edge.deployment.folder import load_folder, plans
from edge.deployment.pin import pin
from edge.errors import IncompatibleError
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_modules
from edge.wasm.engine import GuestEngine

ROOT = Path(__file__).parents[2]
NO_DEADLINE = (1 << 63) - 1


@pytest.fixture
def caps(tmp_path: Path) -> Path:
    """The folder that the page describes, its files written from the page's own blocks."""
    folder = tmp_path / "caps"
    (folder / "model").mkdir(parents=True)
    (folder / "guests").mkdir()
    detector.write(folder / "model" / "model.onnx", side=320)
    for guest in ("letterbox", "boxes", "policy"):
        shutil.copy(ROOT / "guests" / guest / f"{guest}.wasm", folder / "guests")
    page = (ROOT / "docs" / "models.md").read_text()
    card, manifest = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    digest = hashlib.sha256((folder / "model" / "model.onnx").read_bytes()).hexdigest()
    (folder / "model" / "model.toml").write_text(card.replace("0" * 64, digest))
    (folder / "manifest.toml").write_text(manifest)
    pin(folder)
    return folder


def test_the_pages_folder_passes_edge_check(caps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ROOT / "device_configs" / "x86-cpu.toml"
    assert main(["check", "--config", str(settings), "--deployment", str(caps)]) == 0
    assert "pipeline caps" in capsys.readouterr().out


def test_the_pages_folder_judges_a_colour_frame(caps: Path, tmp_path: Path) -> None:
    settings = config.load(ROOT / "device_configs" / "x86-cpu.toml")
    (plan,) = plans(load_folder(caps), settings)
    with GuestEngine(tmp_path / "cache") as engine:
        modules = load_modules(engine, plan)
        path = FramePath(plan, modules, OnnxModel.load(plan.model), PolicyState())
        jpeg = frame_path.scene(640, 480)
        judged = path.judge(path.decode(Judge(1, ContentType(), NO_DEADLINE, 0), jpeg))
    # Random weights see defects everywhere: that they come out as boxes of the frame is the point.
    assert judged.verdict is Kind.REJECT
    assert judged.reason == "defect"
    assert {defect.label for defect in judged.defects} <= set(plan.model.classes)
    for x0, y0, x1, y1 in (defect.box for defect in judged.defects):
        assert 0 <= x0 <= x1 <= 640
        assert 0 <= y0 <= y1 <= 480


def test_a_card_that_says_another_shape_is_refused_with_both(caps: Path) -> None:
    card = caps / "model" / "model.toml"
    card.write_text(card.read_text().replace("[1, 10, 1600]", "[1, 10, 6400]"))
    pin(caps)
    settings = config.load(ROOT / "device_configs" / "x86-cpu.toml")
    (plan,) = plans(load_folder(caps), settings)
    with pytest.raises(IncompatibleError, match=r"6400.*1600|1600.*6400"):
        OnnxModel.load(plan.model)
