"""From a network to its file and back, where torch is there: `make recipes` runs this.

Skipped where torch is not installed: training alone needs it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make recipes")

from models.pcb.recipe.export import main as export_detector  # noqa: E402 - it needs torch
from models.pcb.recipe.inherit import inherit  # noqa: E402
from models.pcb.recipe.network import Detector  # noqa: E402
from models.recipe.exporting import probes  # noqa: E402
from models.recipe.session import open_session, outputs  # noqa: E402

ROOT = Path(__file__).parents[3]
SIDE = 640
NETWORKS = {"steel": "Classifier", "tile": "Segmenter", "pcb_kinds": "Classifier"}


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line of an export into a folder, from a checkpoint there."""
    words = ["export", "--checkpoint", str(tmp_path / "checkpoint.pt"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    torch.manual_seed(7)
    return tmp_path


def worn(network: Any) -> Any:
    """A network as training leaves it: no normalisation is as it began."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return network


def frames(planes: int) -> Any:
    return torch.cat([torch.from_numpy(each) for each in probes((1, planes, SIDE, SIDE))]) / 255


def told(detector: Any, frame: Any) -> list[Any]:
    with torch.no_grad():
        return [output.numpy() for output in detector.eval()(frame)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_is_exported_by_the_recipes_command(arguments: Path, name: str) -> None:
    recipe = f"models.{name}.recipe"
    network = worn(getattr(importlib.import_module(f"{recipe}.network"), NETWORKS[name])())
    torch.save({"average": network.state_dict()}, arguments / "checkpoint.pt")
    # It compares file and network itself.
    importlib.import_module(f"{recipe}.export").main()
    session = open_session(arguments / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["input"]


def test_a_detector_comes_back_from_its_file(arguments: Path) -> None:
    first = worn(Detector())
    torch.save({"average": first.state_dict()}, arguments / "checkpoint.pt")
    export_detector()
    second = Detector()
    seen = frames(2)
    before = told(second, seen)
    inherit(second, arguments / "model.onnx", seen)
    assert second.training
    for one, other, untrained in zip(told(first, seen), told(second, seen), before, strict=True):
        assert np.abs(one - other).max() < 1e-3
        assert np.abs(one - untrained).max() > 0.1  # control: they differed
    # What it meets next is not what its normalisations were measured on.
    for one, other in zip(told(first, seen * 0.5), told(second, seen * 0.5), strict=True):
        assert np.abs(one - other).max() < 1e-3


def test_the_committed_detector_gives_its_weights_and_trains_on() -> None:
    file = ROOT / "models" / "pcb" / "model.onnx"
    detector, seen = Detector(), frames(2)
    inherit(detector, file, seen)
    found = torch.sigmoid(torch.from_numpy(told(detector, seen[:1])[0]))
    scores = outputs(open_session(file), probes((1, 2, SIDE, SIDE))[0])[1]
    assert np.abs(found.numpy().reshape(1, 6, -1).transpose(0, 2, 1) - scores).max() < 1e-3
    # In training a normalisation uses what it meets: here the same, so nothing jumps.
    with torch.no_grad():
        trained = [output.numpy() for output in detector.train()(seen)]
    for one, other in zip(trained, told(detector, seen), strict=True):
        assert np.abs(one - other).max() < 0.1 * np.abs(other).max()


def test_a_detector_of_one_plane_takes_the_frames_share_of_two() -> None:
    file = ROOT / "models" / "pcb" / "model.onnx"
    single, both = Detector(planes=1), Detector()
    inherit(single, file, frames(1))
    inherit(both, file, frames(2))
    assert torch.equal(single.stem[0].weight, both.stem[0].weight[:, :1])
    assert torch.equal(single.stage4.state_dict()["reduce.0.weight"], both.stage4.reduce[0].weight)


def test_a_file_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no convolution stem\.0"):
        inherit(Detector(), ROOT / "models" / "steel" / "model.onnx", frames(2))
