"""What a deployment may say of a second model, and what is refused with the reason."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cascades import CASCADE
from daemons import CONFIG
from deployments import copy_of
from path_bench import plan_of
from repositories import GROUP, Device, Publisher

from edge.cli.main import main
from edge.contracts.plan import CropPlan, ScoreOf
from edge.deployment.folder import load_folder
from edge.deployment.pin import pin
from edge.errors import DeploymentError

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """What is said against the cascade with edits of its manifest."""

    def edited(*edits: tuple[str, str]) -> str:
        with pytest.raises(DeploymentError) as unfit:
            copy_of(CASCADE, tmp_path / "edited", *edits)
        return str(unfit.value)

    return edited


@pytest.fixture
def refused_card(tmp_path: Path) -> Refused:
    """What is said against the cascade with edits of its second card."""

    def edited(*edits: tuple[str, str]) -> str:
        folder = tmp_path / "edited"
        shutil.copytree(CASCADE, folder)
        card = folder / "kinds" / "model.toml"
        text = card.read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        card.write_text(text)
        with pytest.raises(DeploymentError) as unfit:
            pin(folder)
        return str(unfit.value)

    return edited


def test_a_cascade_becomes_a_plan_with_both_models() -> None:
    plan = plan_of(CASCADE)
    assert plan.refine is not None
    assert [Path(model.path).parent.name for model in plan.models] == ["detector", "kinds"]
    assert [stage for stage, _ in plan.guests] == [
        *("preprocess", "postprocess", "refine_preprocess", "refine_postprocess", "decide")
    ]
    assert plan.refine.crop == CropPlan(0.25, 64, square=True)
    assert (plan.refine.max_crops, plan.refine.batch) == (32, 8)
    assert (plan.refine.score, plan.refine.drop) == (ScoreOf.PRODUCT, ("none",))
    assert plan.refine.model.provider == plan.model.provider


def test_a_plan_with_a_cascade_crosses_the_channel_to_a_worker() -> None:
    plan = plan_of(CASCADE)
    crossed = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=type(plan))
    assert crossed == plan


def test_every_file_of_the_second_model_is_pinned(tmp_path: Path) -> None:
    for name in ("kinds/model.toml", "kinds/model.int8.onnx", "guests/topk.wasm"):
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(CASCADE, folder)
        with (folder / name).open("ab") as file:
            file.write(b"\n")
        with pytest.raises(DeploymentError, match=re.escape(name)):
            load_folder(folder)


def test_a_batch_without_a_bound_is_refused(refused_card: Refused) -> None:
    assert "inputs.0.shape.0" in refused_card(
        ("shape = [8, 2, 64, 64]", 'shape = ["N", 2, 64, 64]')
    )


def test_a_batch_beyond_the_bound_is_refused(refused_card: Refused) -> None:
    said = refused_card(
        ("shape = [8, 2, 64, 64]", "shape = [65, 2, 64, 64]"), ("shape = [8, 7]", "shape = [65, 7]")
    )
    assert "pipelines.pcb.refine.model" in said
    assert "65 crops in one run, at most 64" in said


def test_tensors_of_unequal_batches_are_refused_by_name(refused_card: Refused) -> None:
    said = refused_card(("shape = [8, 7]", "shape = [1, 7]"))
    assert "probabilities [1, 7]; the first dimension of every tensor must be the batch" in said


@pytest.mark.parametrize("most", [0, 301])
def test_crops_are_bounded(refused: Refused, most: int) -> None:
    assert "refine.max_crops" in refused((r"^max_crops = 32", f"max_crops = {most}"))


def test_a_dropped_class_must_be_one_of_the_second_models(refused: Refused) -> None:
    said = refused((r'^drop = \["none"\]', 'drop = ["nothing"]'))
    assert "pipelines.pcb.refine.drop: 'nothing' is no class of pcb_kinds" in said
    assert "pin-hole, none" in said


def test_a_policy_cannot_speak_of_a_class_that_never_reaches_it(
    refused: Refused, tmp_path: Path
) -> None:
    said = refused((r"^reject = 0\.4.*", "reject = { none = 0.4 }"))
    assert "pipelines.pcb.decide.parameters.reject.none: expected as key" in said
    granted = (r"^reject = 0\.4.*", "reject = { spur = 0.4, default = 0.5 }")
    assert copy_of(CASCADE, tmp_path / "granted", granted)


def test_a_policy_may_speak_of_what_only_the_second_model_says(tmp_path: Path) -> None:
    edits = ((r'^drop = \["none"\]', "drop = []"), (r"^review = 0\.3", "review = { none = 0.3 }"))
    assert plan_of(copy_of(CASCADE, tmp_path / "kept", *edits)).classes[-1] == "none"


def test_guests_of_the_second_model_are_held_to_their_schemas(refused: Refused) -> None:
    said = refused((r"^k = 2", "k = 0"))
    assert "pipelines.pcb.refine.postprocess.parameters.k: expected a whole" in said


def test_guests_of_the_second_model_keep_no_state(refused: Refused) -> None:
    said = refused((r"^call_ms = 5$", "call_ms = 5\nstate_bytes = 8"))
    assert "refine.postprocess.state_bytes is set, but decide alone keeps a state" in said


def test_the_budget_counts_the_guests_of_both_models(refused: Refused) -> None:
    said = refused((r"^call_ms = 5$", "call_ms = 130"))
    assert "the guests alone may take 210 ms" in said


def test_the_largest_crop_must_fit_the_guest_that_is_shown_it(refused: Refused) -> None:
    said = refused(
        (
            r"(^\[pipelines\.pcb\.refine\.preprocess\]\n.*\n.*\n)memory_mib = 64",
            r"\1memory_mib = 2",
        )
    )
    assert "refine.preprocess.memory_mib is 2; the largest crop (a whole frame) alone" in said


def test_one_module_may_be_granted_otherwise_for_the_second_model(
    refused: Refused, tmp_path: Path
) -> None:
    other = (
        r"(^\[pipelines\.pcb\.refine\.preprocess\]\n.*\n.*\n)memory_mib = 64",
        r"\1memory_mib = 100",
    )
    assert copy_of(CASCADE, tmp_path / "granted", other)
    shared = (r'guests/topk\.wasm"', 'guests/pair.wasm"')
    assert "refine.preprocess and refine.postprocess are the same file" in refused(shared)


def test_check_says_how_the_two_models_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(CONFIG), "--deployment", str(CASCADE)]) == 0
    said = capsys.readouterr().out
    assert "a second model looks at the 32 strongest findings, 8 a run" in said
    assert "the policy sees open, short, mousebite, spur, copper, pin-hole;" in said
    assert "none drops a finding" in said


def test_check_names_the_detectors_classes_that_the_classifier_has_no_word_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(CASCADE, folder)
    card = folder / "detector" / "model.toml"
    card.write_text(
        card.read_text()
        .replace('"open", "short"', '"open", "bridge"')
        .replace("short = ", "bridge = ")
    )
    pin(folder)
    assert main(["check", "--config", str(CONFIG), "--deployment", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "the policy sees open, bridge, mousebite, spur, copper, pin-hole, short" in said
    assert "the second model has no word for bridge" in said


def test_a_source_may_say_which_of_two_files_of_its_name_it_is_for(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(CASCADE, folder)
    source = tmp_path / "model.toml"
    source.write_text((folder / "kinds" / "model.toml").read_text() + "\n# another\n")
    with pytest.raises(DeploymentError):
        pin(folder, [source])
    changed = pin(folder, [f"kinds/model.toml={source}"])
    assert changed == ["kinds/model.toml", "manifest.toml"]
    assert (folder / "kinds" / "model.toml").read_text().endswith("# another\n")
    with pytest.raises(DeploymentError, match="pins 0 files of this name"):
        pin(folder, [f"nowhere/model.toml={source}"])


def test_a_cascade_goes_out_by_a_repository_and_comes_in_whole(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "publisher")
    made = publisher.fleet.build(GROUP, CASCADE, 100.0)
    publisher.fleet.sign(GROUP)
    publisher.fleet.publish()
    device = Device(tmp_path / "box", publisher)
    device.takes(publisher.web, made.revision)
    (arrived,) = (tmp_path / "box").glob(f"**/deployments/{made.manifest}")
    assert load_folder(arrived).digest == load_folder(CASCADE).digest
