"""Where a camera would publish what nobody hears, it says so and does not begin."""

from pathlib import Path

import pytest

from edge.cli.main import main


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--topic", "line/#"], "--topic: 'line/#' has wildcards: where to publish?"),
        (
            ["--set", "bindings.camera.top='line/+/frame'"],
            "bindings.camera.top: 'line/+/frame' has wildcards",
        ),
        (
            ["--set", "bindings.camera.top='a/b'", "--camera", "side"],
            "bindings.camera.side: is not there; bound are top (name one of them by --camera",
        ),
        (
            ["--topic", "a/{hall}/b"],
            "--topic: takes no frame: topic 'a/{hall}/b': no value for {hall}",
        ),
        (
            ["--topic", "a/{reference_id}", "--reference-id", "b/3"],
            "--topic: takes no frame: topic 'a/{reference_id}': reference_id 'b/3' contains '/'",
        ),
    ],
)
def test_a_topic_that_takes_no_frame_is_a_configuration_error(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"never read")
    assert main(["camera", str(tmp_path), *words]) == 78
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--quality", "0"),
        ("--quality", "best"),
        ("--frames", "-3"),
        ("--lag-ms", "-1"),
        ("--reference-id", "board\n3"),
    ],
)
def test_a_number_out_of_its_range_is_a_usage_error_in_a_line(
    option: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["camera", str(tmp_path), f"{option}={text}"])
    assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: expected " in told
    assert len(told) < 120
