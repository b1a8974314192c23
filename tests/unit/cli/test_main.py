"""The words before any command."""

import pytest

from edge.cli.main import COMMANDS, main


def test_edge_alone_names_every_command_and_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [name for name in COMMANDS if f"\n    {name} " not in said.err] == []


def test_a_command_that_is_none_is_answered_with_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nonsense"])
    assert ended.value.code == 2
    assert "'replay'" in capsys.readouterr().err
