"""The command's arguments: what is refused, and with which words; nothing here connects."""

from pathlib import Path

import pytest

from edge.cli.main import main


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--rate", "0"], "expected a number above 0, found '0'"),
        (["--rate", "nan"], "expected a number above 0, found 'nan'"),
        (["--frames", "0"], "expected a whole number from 1, found '0'"),
        (["--variants", "ok,best"], "expected some of as-is, ok, ng-single, found 'ok,best'"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", *words])
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["/nonexistent"], "/nonexistent: there is no such folder"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml: cannot be read"),
        (
            ["--set", "bindings.camera.top='line/+/frame'"],
            "bindings.camera.top: 'line/+/frame' has wildcards: where to publish? "
            "(give --frame-topic)",
        ),
        (
            ["--set", "bindings.reference.top='line/#'"],
            "bindings.reference.top: 'line/#' has wildcards: where to publish? "
            "(give --reference-topic)",
        ),
        (
            ["--set", "bindings.camera.top='a/b'", "--source", "side"],
            "bindings.camera.side: is not there; bound are top",
        ),
    ],
)
def test_what_cannot_be_played_is_a_configuration_error(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--frames", "1", *words]) == 78
    assert problem in capsys.readouterr().err


def test_a_table_that_is_wrong_ends_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts.csv").write_text("part_id,image\nA,missing.jpg\n")
    assert main(["replay", str(tmp_path)]) == 78
    assert "parts.csv, line 2, column image: there is no file" in capsys.readouterr().err
