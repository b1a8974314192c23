"""`edge check` on a deployment, before anything is compiled."""

import re
from pathlib import Path

import pytest
from deployments import copy_of

from edge.cli.main import main
from edge.deployment.pin import pin

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "device_configs/x86-cpu.toml")
DEPLOYMENT = ROOT / "models/pcb/deployment"


def test_a_guest_that_declares_more_memory_than_its_grant_is_named_with_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    granted = (r"(postprocess\]\n(?:.*\n)*?)memory_mib = 16", r"\g<1>memory_mib = 1")
    folder = copy_of(DEPLOYMENT, tmp_path / "deployment", granted)
    assert main(["check", "--config", CONFIG, "--deployment", str(folder)]) == 78
    said = capsys.readouterr().err
    assert re.search(
        r"pipelines\.pcb\.postprocess\.memory_mib is 1, and guests/boxes\.wasm declares \d+", said
    ), said


def test_a_card_that_names_what_the_model_has_not_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(DEPLOYMENT, tmp_path / "deployment")
    card = folder / "model" / "model.toml"
    card.write_text(card.read_text().replace('name = "scores"', 'name = "output0"'))
    pin(folder)
    assert main(["check", "--config", CONFIG, "--deployment", str(folder)]) == 78
    said = capsys.readouterr().err
    assert "model.int8.onnx: the card has an output output0, which the file has not" in said
    assert "the file has an output scores: float32[1, 6400, 6], which the card has not" in said
    assert "edge model inspect" in said


def test_the_reference_deployment_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", CONFIG, "--deployment", str(DEPLOYMENT)]) == 0
    said = capsys.readouterr().out
    assert "pipeline pcb: pcb revision" in said
    assert "  hears  line/top/frame, line/top/reference/{reference_id}, line/lamp\n" in said
    assert "  says   edge/box1/pcb/verdict, line/top/reject\n" in said


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_action_that_would_come_back_is_refused_whatever_deployment_there_is(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    binding = "bindings.action.reject=edge/box1/receipts"
    assert main([command, "--config", CONFIG, "--set", binding]) == 78
    assert "bindings.action.reject: topic 'edge/box1/receipts'" in capsys.readouterr().err
