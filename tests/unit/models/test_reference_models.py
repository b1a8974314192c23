"""The committed models: files true to their cards, deployments that see what recipes trained on."""

from __future__ import annotations

import hashlib
import importlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest

from edge import config
from edge.cli.main import main
from edge.contracts.frame import ContentType, PixelFormat
from edge.deployment.folder import load_folder, plans
from edge.deployment.pin import pin
from edge.inference.model import OnnxModel
from edge.pipeline.decode import decode
from edge.pipeline.stages import Stages, load_modules
from edge.wasm.engine import GuestEngine
from models.pcb.recipe.data import model_input
from models.recipe.card import count_parameters
from models.recipe.frames import FrameContract, FramePath
from models.recipe.session import open_session, outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[3]
NAMES = sorted(card.parent.name for card in (ROOT / "models").glob("*/model.toml"))
EVERY_MODEL = pytest.mark.parametrize("name", NAMES)
ALONE = pytest.mark.parametrize("name", [name for name in NAMES if name != "pcb_kinds"])
"""Those whose deployment has one model; the cascade's is held in `test_cascade_recipe`."""
DEVICE = config.load(ROOT / "device_configs" / "x86-cpu.toml")
TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def card_of(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "models" / name / "model.toml").read_text())


def contract_of(name: str) -> FrameContract:
    found = importlib.import_module(f"models.{name}.recipe.data").CONTRACT
    assert isinstance(found, FrameContract)
    return found


def picture(contract: FrameContract, seed: int) -> bytes:
    """A JPEG with structure at all scales: of an odd size where the guest may resize."""
    rng = np.random.default_rng(seed)
    height, width = contract.input.shape[2:]
    if not contract.reference:
        height, width = height * 2 // 3 + 5, width // 2 + 11
    coarse = rng.integers(0, 256, (9, 7), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image.astype(int) + rng.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


QUANTISED = [name for name in NAMES if (ROOT / "models" / name / "model.int8.onnx").exists()]


def test_all_models_are_here() -> None:
    assert {"pcb", "pcb_kinds", "pcb_single", "steel", "tile", "wear"} <= set(NAMES)


@EVERY_MODEL
def test_a_card_names_the_committed_bytes_and_their_tensors(name: str) -> None:
    folder, card = ROOT / "models" / name, card_of(name)
    assert "fp32" in {variant["name"] for variant in card["model"]["variants"]}
    for variant in card["model"]["variants"]:
        content = (folder / variant["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == variant["sha256"]
        model = onnx.load_model_from_string(content)
        assert 0 < count_parameters(model) == variant["parameters"] <= 1_000_000
        assert [imported.domain for imported in model.opset_import] == [""]
        session = open_session(folder / variant["file"])
        for declared, actual in (
            (card["inputs"], session.get_inputs()),
            (card["outputs"], session.get_outputs()),
        ):
            for told, found in zip(declared, actual, strict=True):
                # A file may leave the batch open, the card says how large it is at the most.
                any_batch = [] if isinstance(found.shape[0], int) else found.shape[:1]
                assert told["shape"][len(any_batch) :] == found.shape[len(any_batch) :]
                assert (told["name"], told["dtype"]) == (found.name, TYPES[found.type])


@EVERY_MODEL
def test_figures_of_a_card_are_those_of_its_reports(name: str) -> None:
    """The card is what its own command writes from the committed reports."""
    folder, card = ROOT / "models" / name, card_of(name)
    reports = {
        variant["name"]: json.loads((folder / "reports" / f"{variant['name']}.json").read_text())
        for variant in card["model"]["variants"]
    }
    recipe = importlib.import_module(f"models.{name}.recipe.card")
    text = recipe.card(folder, reports, card["model"]["version"])
    written, _, golden = (folder / "model.toml").read_text().partition("\n[[golden]]\n")
    assert text.rstrip("\n") == written.rstrip("\n")
    assert golden, "the card's command ends with the golden tensors"


@EVERY_MODEL
def test_golden_tensors_of_a_card_come_again_within_its_tolerance(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["model", "trial", str(ROOT / "models" / name), "--runs", "1", "--json"])
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert status == 0, [each["findings"] for each in trials]
    assert all(each["golden"] for each in trials)


@ALONE
def test_a_deployment_is_current_and_pins_what_the_recipe_trained_on(name: str) -> None:
    folder = ROOT / "models" / name
    loaded = load_folder(folder / "deployment")
    (pipeline,) = loaded.manifest.pipelines.values()
    guests = [ROOT / "guests" / Path(g.path).stem / Path(g.path).name for _, g in pipeline.guests]
    shipped = loaded.cards[pipeline.model.card.path].variant(pipeline.model.variant)
    assert shipped is not None
    sources = [*guests, folder / "model.toml", folder / shipped.file]
    assert pin(folder / "deployment", sources, write=False) == [], "run `make deployment`"
    contract = contract_of(name)
    assert pipeline.preprocess is not None
    assert (
        pipeline.preprocess.sha256 == hashlib.sha256(contract.guest_file.read_bytes()).hexdigest()
    )
    assert pipeline.preprocess.parameters == contract.parameters
    assert PixelFormat(pipeline.image.format) is contract.pixels
    assert (pipeline.reference is not None) == contract.reference
    assert max(pipeline.image.max_width, pipeline.image.max_height) <= contract.max_side_px


@ALONE
def test_the_recipe_sees_bit_for_bit_what_the_deployed_frame_path_sees(
    name: str, tmp_path: Path
) -> None:
    """No skew between training and service: the same pixels, arithmetic and tensor."""
    contract = contract_of(name)
    frame, reference = picture(contract, 1), picture(contract, 2)
    (plan,) = plans(load_folder(ROOT / "models" / name / "deployment"), DEVICE)
    with GuestEngine(tmp_path / "code") as engine, FramePath(contract, tmp_path / "code") as path:
        stages = Stages(plan, load_modules(engine, plan), OnnxModel.load(plan.model))
        finder = stages.finder
        slot = finder.frame_slots[0]
        slot.set_size(*decode(frame, ContentType(), plan.image, slot.pixels))
        beside = finder.reference_slots[0] if contract.reference else None
        if beside is not None:
            beside.set_size(*decode(reference, ContentType(), plan.image, beside.pixels))
        finder.find(slot, beside, lambda _stage: None)
        # The tensor lies in guest memory and is nobody's public business, but the claim is on it.
        deployed: NDArray[Any] = np.array(finder._preprocess.inputs[0])  # type: ignore[attr-defined]
        trained = path.tensor(frame, reference if contract.reference else None)
    assert (deployed.dtype, deployed.shape) == (trained.dtype, trained.shape)
    assert deployed.tobytes() == trained.tobytes()
    assert deployed.std() > 1  # a picture, not a grey card


def test_the_board_recipe_trains_on_what_pair_hands_to_the_model(tmp_path: Path) -> None:
    """It skips the guest, since that only copies; the copy is what this test holds it to."""
    contract = contract_of("pcb")
    frame, reference = picture(contract, 3), picture(contract, 4)
    arrays = [
        np.asarray(cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_GRAYSCALE))
        for payload in (frame, reference)
    ]
    with FramePath(contract, tmp_path / "code") as path:
        assert path.tensor(frame, reference).tobytes() == np.stack(arrays).tobytes()


def test_the_recipe_without_a_reference_trains_on_what_letterbox_hands_to_the_model(
    tmp_path: Path,
) -> None:
    contract = contract_of("pcb_single")
    *_, channels, height, width = contract.input.shape
    frame = np.random.default_rng(8).integers(0, 256, (height, width), np.uint8)
    with FramePath(contract, tmp_path / "code") as path:
        handed = path.tensor(cv2.imencode(".png", frame)[1].tobytes(), None)
    trained = model_input(frame[None], channels)
    assert handed.shape == trained.shape
    assert handed.tobytes() == trained.tobytes()


@pytest.mark.parametrize("name", QUANTISED)
def test_int8_and_fp32_say_nearly_the_same(name: str) -> None:
    contract, folder = contract_of(name), ROOT / "models" / name
    with FramePath(contract) as path:
        reference = picture(contract, 6) if contract.reference else None
        tensor = path.tensor(picture(contract, 5), reference)
    one, other = (
        outputs(open_session(folder / file), tensor)[-1]
        for file in ("model.int8.onnx", "model.onnx")
    )
    assert one.shape == other.shape
    assert float(np.abs(one - other).mean()) < 0.1
