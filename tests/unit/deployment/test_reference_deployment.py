"""The reference deployment in `models/pcb/deployment`: whole, current, and true to its card."""

import tomllib
from pathlib import Path

import pytest

from edge.config import parse
from edge.deployment.folder import LoadedDeployment, load_folder, plans
from edge.deployment.pin import pin

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "models/pcb/deployment"
SOURCES = (
    ROOT / "guests/pair/pair.wasm",
    ROOT / "guests/boxes/boxes.wasm",
    ROOT / "guests/policy/policy.wasm",
    ROOT / "models/pcb/model.toml",
    ROOT / "models/pcb/model.int8.onnx",
)


@pytest.fixture(scope="module")
def deployment() -> LoadedDeployment:
    return load_folder(FOLDER)


def test_its_copies_are_those_of_the_guests_and_the_model() -> None:
    assert pin(FOLDER, SOURCES, write=False) == [], "run `make deployment`"


def test_it_holds_nothing_that_is_not_pinned(deployment: LoadedDeployment) -> None:
    pipeline = deployment.manifest.pipelines["pcb"]
    pinned = {guest.path for _, guest in pipeline.guests}
    pinned |= {"manifest.toml", pipeline.model.card.path, "model/model.int8.onnx"}
    pinned |= {golden.frame.path for golden in pipeline.golden}
    pinned |= {golden.reference.path for golden in pipeline.golden if golden.reference}
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert found == pinned


def test_its_thresholds_are_those_that_the_card_was_measured_at(
    deployment: LoadedDeployment,
) -> None:
    pipeline, card = deployment.manifest.pipelines["pcb"], deployment.cards["model/model.toml"]
    assert pipeline.preprocess is not None
    assert pipeline.postprocess is not None
    boxes, policy = pipeline.postprocess.parameters, pipeline.decide.parameters
    assert policy["reject"] == card.thresholds.score
    assert boxes["iou"] == card.thresholds.iou
    assert boxes["score"] == policy["review"] <= policy["reject"]
    assert Path(pipeline.preprocess.path).stem == card.preprocessing.guest


def test_its_wishes_stay_within_its_grants(deployment: LoadedDeployment) -> None:
    pipeline = deployment.manifest.pipelines["pcb"]
    (action,) = pipeline.actions
    wish = pipeline.decide.parameters["reject_action"]
    assert wish["name"] == action.name
    assert wish["ttl_ms"] <= action.max_ttl_ms
    granted = {grant.name for grant in pipeline.signals}
    assert {rule["signal"] for rule in pipeline.decide.parameters["signals"]} <= granted


def test_its_decoded_images_fit_the_memory_that_pair_is_granted(
    deployment: LoadedDeployment,
) -> None:
    pipeline = deployment.manifest.pipelines["pcb"]
    model_input = 1 * 2 * 640 * 640
    assert pipeline.preprocess is not None
    images = (2 + pipeline.reference_slots) * pipeline.image.max_bytes
    assert images + model_input < pipeline.preprocess.memory_mib << 20


@pytest.mark.parametrize("config", sorted((ROOT / "device_configs").glob("*.toml")), ids=str)
def test_every_shipped_device_config_binds_it(config: Path, deployment: LoadedDeployment) -> None:
    (plan,) = plans(deployment, parse(tomllib.loads(config.read_text()), str(config)))
    assert plan.name == "pcb"
