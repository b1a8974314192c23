"""docs/models.md holds what it says: its card and manifest, with a real export, give a verdict."""

import hashlib
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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
from edge.linesim import encode_jpeg
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
    card, manifest, *_ = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
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


def other_kind(tmp_path: Path, name: str, guest: str, side: int, nodes: list[Any]) -> Path:
    """The folder of another kind of model: the page's first blocks with the blocks of that kind."""
    folder = tmp_path / name
    (folder / "model").mkdir(parents=True)
    (folder / "guests").mkdir()
    for each in ("letterbox", guest, "policy"):
        shutil.copy(ROOT / "guests" / each / f"{each}.wasm", folder / "guests")
    page = (ROOT / "docs" / "models.md").read_text()
    card, manifest, *blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (post,) = (each for each in blocks if f"[pipelines.{name}.postprocess]" in each)
    output = blocks[blocks.index(post) - 1]
    shape = tuple(tomllib.loads(output)["outputs"][0]["shape"])
    made = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, side, side))],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model" / "model.onnx"))
    digest = hashlib.sha256((folder / "model" / "model.onnx").read_bytes()).hexdigest()
    card = re.sub(r"\[\[outputs\]\].*?(?=\[preprocessing\])", output + "\n", card, flags=re.DOTALL)
    card = card.replace("0" * 64, digest).replace("320", str(side))
    task, classes = {
        "grades": ("classification", ["good", "dark", "bright"]),
        "surface": ("anomaly", ["anomaly"]),
    }[name]
    card = re.sub(r"classes = .*", f"classes = {classes}", card)
    card = card.replace('task = "detection"', f'task = "{task}"')
    (folder / "model" / "model.toml").write_text(card.replace('"caps"', f'"{name}"'))
    manifest = manifest.replace("caps", name)
    manifest = re.sub(
        r"\[pipelines\.\w+\.postprocess\].*?\n\n", lambda _: post + "\n", manifest, flags=re.DOTALL
    )
    manifest = re.sub(r"parameters = \{ reject = .*", "parameters = { reject = 0.5 }", manifest)
    (folder / "manifest.toml").write_text(manifest)
    pin(folder)
    return folder


def verdict_of(folder: Path, tmp_path: Path, jpeg: bytes) -> Any:
    settings = config.load(ROOT / "device_configs" / "x86-cpu.toml")
    (plan,) = plans(load_folder(folder), settings)
    with GuestEngine(tmp_path / "cache") as engine:
        path = FramePath(
            plan, load_modules(engine, plan), OnnxModel.load(plan.model), PolicyState()
        )
        return path.judge(path.decode(Judge(1, ContentType(), NO_DEADLINE, 0), jpeg))


def test_a_classifiers_export_names_the_kind_of_a_frame(tmp_path: Path) -> None:
    """Logits by brightness: 0 good, 8 - 32 m dark, 32 m - 24 bright, of the mean m of a frame."""
    weights = np.asarray([[0, -32, 32]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Gemm", ["column", "w", "b"], ["logits"]),
    ]
    for name, array in (
        ("one", np.asarray([1], np.int64)),
        ("w", weights),
        ("b", np.asarray([0, 8, -24], np.float32)),
    ):
        constant = numpy_helper.from_array(array, name)
        nodes.insert(0, helper.make_node("Constant", [], [name], value=constant))
    folder = other_kind(tmp_path, "grades", "topk", 64, nodes)
    assert main(["model", "trial", str(folder / "model"), "--runs", "1"]) == 0
    for level, verdict, labels in ((128, "pass", []), (0, "reject", ["dark"])):
        judged = verdict_of(folder, tmp_path, picture(level))
        assert judged.verdict == verdict
        assert [defect.label for defect in judged.defects] == labels


def test_an_anomaly_models_export_finds_where_a_frame_is_unlike(tmp_path: Path) -> None:
    """A map of darkness: one minus the mean of the channels, a cell for each pixel."""
    one = numpy_helper.from_array(np.asarray(1, np.float32), "one")
    nodes = [
        helper.make_node("Constant", [], ["one"], value=one),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["one", "mean"], ["anomaly_map"]),
    ]
    folder = other_kind(tmp_path, "surface", "heat", 64, nodes)
    assert verdict_of(folder, tmp_path, picture(255)).verdict == "pass"
    judged = verdict_of(folder, tmp_path, picture(255, hole=True))
    assert judged.verdict == "reject"
    ((x0, y0, x1, y1),) = (defect.box for defect in judged.defects)
    assert (x0, y0, x1, y1) == pytest.approx((16, 16, 32, 32), abs=2)


def picture(level: int, *, hole: bool = False) -> bytes:
    """A 64x64 JPEG of one grey; with a hole, a black square at 16..32."""
    pixels = np.full((64, 64, 1), level, np.uint8)
    if hole:
        pixels[16:32, 16:32] = 0
    return encode_jpeg(pixels[:, :, 0])


def test_a_card_that_says_another_shape_is_refused_with_both(caps: Path) -> None:
    card = caps / "model" / "model.toml"
    card.write_text(card.read_text().replace("[1, 10, 1600]", "[1, 10, 6400]"))
    pin(caps)
    settings = config.load(ROOT / "device_configs" / "x86-cpu.toml")
    (plan,) = plans(load_folder(caps), settings)
    with pytest.raises(IncompatibleError, match=r"6400.*1600|1600.*6400"):
        OnnxModel.load(plan.model)
