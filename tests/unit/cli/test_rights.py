"""Who may not look, or not write, is told so in a line that names the place and the remedy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import durable
from edge.cli import model_golden
from edge.cli.main import main
from edge.deployment.folder import load_folder
from edge.errors import DeploymentError
from edge.sdk.languages.language import BuildError, cache_folder

_NOBODY = 65534


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Path]:
    """The state directory of a daemon, for whoever is neither its user nor root."""
    state = tmp_path / "state"
    (state / "ledger").mkdir(parents=True)
    (state / "ledger" / "ledger.db").touch()
    state.chmod(0)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(_NOBODY)
    try:
        yield state
    finally:
        if as_root:
            os.seteuid(0)
        state.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["verify"],
        ["prove", "--seq", "1"],
        ["key", "show"],
        ["override", "--seq", "1", "--verdict", "pass", "--by", "lead", "--reason", "a hair"],
    ],
    ids=lambda words: words[0],
)
def test_the_state_of_another_user_is_refused_in_one_line(
    words: list[str], others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", *words, str(others)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert str(others) in said.err
    assert "Permission denied" in said.err
    assert "as the daemon's user or as root" in said.err


def test_a_home_that_takes_no_cache_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(BuildError, match=r"home/edge/guests: cannot be made: .*XDG_CACHE_HOME"):
        cache_folder("guests")


def test_a_card_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.toml").touch()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "aside")

    monkeypatch.setattr(durable, "replace", refused)
    with pytest.raises(DeploymentError, match=r"model\.toml: cannot be written: Permission denied"):
        model_golden.write(tmp_path, "")


def test_a_picture_that_cannot_be_saved_is_said_before_the_line_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--picture", str(tmp_path / "nowhere" / "demo.svg")]) == 78
    assert "demo.svg: cannot be written: No such file" in capsys.readouterr().err


def test_a_deployment_of_another_user_is_one_that_cannot_be_read(others: Path) -> None:
    with pytest.raises(DeploymentError, match=r"state/manifest\.toml: cannot be read: Permission"):
        load_folder(others)
