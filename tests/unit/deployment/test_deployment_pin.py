"""Pinning: one command renews copies and digests, and touches nothing else."""

import hashlib
import tomllib
from pathlib import Path

import pytest
from deployment_samples import CARD, MANIFEST, MODEL, edit, module, write_folder

from edge.deployment.folder import load_folder
from edge.deployment.pin import main, pin
from edge.errors import DeploymentError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "bench")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_comments_layout_and_everything_but_the_digests_stay(folder: Path) -> None:
    before = MANIFEST.splitlines()
    after = (folder / "manifest.toml").read_text().splitlines()
    assert len(after) == len(before)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 4
    for old, new in changed:
        assert old.split("sha256")[0] == new.split("sha256")[0]
    assert "# A comment that stays." in after
    assert any(line.endswith("# pinned") for line in after)


def test_a_whole_folder_is_left_as_it_is(folder: Path) -> None:
    before = snapshot(folder)
    assert pin(folder) == []
    assert snapshot(folder) == before


def test_a_source_replaces_its_copy_and_its_digest(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pre.wasm").write_bytes(module("built anew"))
    assert pin(folder, [tmp_path / "pre.wasm"]) == ["guests/pre.wasm", "manifest.toml"]
    assert (folder / "guests/pre.wasm").read_bytes() == module("built anew")
    guest = load_folder(folder).manifest.pipelines["board"].preprocess
    assert guest is not None
    assert guest.sha256 == hashlib.sha256(module("built anew")).hexdigest()


def test_a_new_model_comes_with_its_card(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "board.int8.onnx").write_bytes(b"trained longer")
    old, new = (hashlib.sha256(each).hexdigest() for each in (MODEL, b"trained longer"))
    (tmp_path / "card.toml").write_text(CARD.replace(old, new))
    before = snapshot(folder)
    with pytest.raises(DeploymentError, match=r"board\.int8\.onnx: the card pins sha256"):
        pin(folder, [tmp_path / "board.int8.onnx"])
    assert snapshot(folder) == before
    changed = pin(folder, [tmp_path / "board.int8.onnx", tmp_path / "card.toml"])
    assert changed == ["model/card.toml", "model/board.int8.onnx", "manifest.toml"]


def test_a_check_says_what_is_out_of_date_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "post.wasm"
    source.write_bytes(module("post"))
    assert main([str(folder), str(source), "--check"]) == 0
    source.write_bytes(module("changed"))
    before = snapshot(folder)
    assert main([str(folder), str(source), "--check"]) == 1
    assert snapshot(folder) == before
    assert f"{folder / 'guests/post.wasm'} is out of date" in capsys.readouterr().out
    assert main([str(folder), str(source)]) == 0
    assert main([str(folder), str(source), "--check"]) == 0


def test_a_source_that_nothing_pins_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stranger.wasm").write_bytes(b"\0asm")
    assert main([str(folder), str(tmp_path / "stranger.wasm")]) == 1
    error = capsys.readouterr().err
    assert "pins 0 files of this name" in error
    assert "post.wasm" in error


def test_a_source_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"pre\.wasm: cannot be read"):
        pin(folder, [tmp_path / "pre.wasm"])


def test_text_that_only_looks_like_a_pin_is_not_edited(folder: Path) -> None:
    edit(
        folder / "manifest.toml",
        "[[pipelines.board.signals]]",
        '[pipelines.board.decide.parameters]\npath = "elsewhere"\nsha256 = "mine"\n'
        'note = "sha256 = of guests/pre.wasm"\n[[pipelines.board.signals]]',
    )
    pin(folder)
    parameters = load_folder(folder).manifest.pipelines["board"].decide.parameters
    assert parameters["sha256"] == "mine"


def test_a_layout_that_cannot_be_edited_line_by_line_is_refused_untouched(folder: Path) -> None:
    edit(folder / "manifest.toml", 'path = "guests/pre.wasm"', '"path" = "guests/pre.wasm"')
    (folder / "guests/pre.wasm").write_bytes(module("other"))
    before = snapshot(folder)
    with pytest.raises(DeploymentError, match="cannot be edited line by line"):
        pin(folder)
    assert snapshot(folder) == before
    assert tomllib.loads(before["manifest.toml"].decode())["deployment"]["revision"] == 3
