"""`edge model` as a person calls it, on the reference model and on ones that are at fault."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.cli.main import main

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "pcb"
SMALL = "model.int8.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reference model's folder, to be spoilt."""
    for name in ("model.toml", "model.onnx", SMALL):
        shutil.copy(MODEL / name, tmp_path / name)
    return tmp_path


def test_inspect_says_what_the_reference_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "inspect", str(MODEL)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ai.onnx 17" in said
    assert "input: uint8[1, 2, 640, 640]" in said
    assert said.count("as it says") == 2


def test_inspect_takes_a_file_and_holds_it_to_the_card_beside_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = hashlib.sha256((folder / SMALL).read_bytes()).hexdigest()
    shutil.copy(folder / "model.onnx", folder / SMALL)  # another file under the variant's name
    assert main(["model", "inspect", str(folder / SMALL), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert found["facts"]["nodes"] == 108
    assert f"the card says {pinned}" in " ".join(found["findings"])


def test_inspect_says_that_a_card_does_not_know_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / SMALL).rename(folder / "other.onnx")
    assert main(["model", "inspect", str(folder / "other.onnx")]) == 1
    assert "does not name other.onnx" in " ".join(capsys.readouterr().out.split())


def test_inspect_needs_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(MODEL / SMALL, tmp_path / "m.onnx")
    assert main(["model", "inspect", str(tmp_path / "m.onnx")]) == 0
    assert "finding" not in capsys.readouterr().out


def test_inspect_refuses_random_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(np.random.default_rng(5).bytes(10_000))
    assert main(["model", "inspect", str(tmp_path / "m.onnx")]) == 1
    assert "no ONNX model" in " ".join(capsys.readouterr().out.split())


def test_a_folder_without_a_card_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "inspect", str(tmp_path)]) == 1
    assert "model.toml" in capsys.readouterr().err


def test_trial_measures_the_reference_model(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--variant", "int8", "--runs", "5", "--json"]
    assert main(["model", "trial", str(MODEL), *arguments]) == 0
    (tried,) = json.loads(capsys.readouterr().out)["trials"]
    assert tried["findings"] == []
    assert tried["report"]["repeatable"] is True
    assert set(tried["report"]["placement"]) == {"cpu"}


def test_trial_finds_a_file_that_is_not_the_cards_and_goes_on_to_the_next(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / SMALL).write_bytes(np.random.default_rng(5).bytes(10_000))
    assert main(["model", "trial", str(folder), "--runs", "2", "--json"]) == 1
    trials = {each["variant"]: each for each in json.loads(capsys.readouterr().out)["trials"]}
    assert trials["int8"]["report"] is None
    assert "changed since it was verified" in trials["int8"]["findings"][0]
    assert trials["fp32"]["findings"] == []


def test_trial_finds_that_the_card_speaks_of_other_shapes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = folder / "model.toml"
    card.write_text(card.read_text().replace("shape = [1, 6400, 6]", "shape = [1, 6400, 7]"))
    assert main(["model", "trial", str(folder), "--variant", "int8", "--runs", "2"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "its card says outputs scores: float32[1, 6400, 7]" in said


def test_trial_of_a_variant_that_is_not_offered_names_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["model", "trial", str(MODEL), "--variant", "fp8"]) == 1
    assert "it offers int8, fp32" in capsys.readouterr().err
