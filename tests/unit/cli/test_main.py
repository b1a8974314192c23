"""The words before any command, and what holds for all of them."""

import argparse
import errno
import importlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from edge.cli.main import COMMANDS, main

_WORDS: dict[object, str] = {int: "int", float: "float"}


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


@pytest.fixture(scope="module", params=COMMANDS)
def command(request: pytest.FixtureRequest) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"edge {request.param}", description="A command.")
    importlib.import_module(COMMANDS[request.param][0]).add_arguments(parser)
    return parser


def test_the_help_of_every_command_begins_with_what_it_does(
    command: argparse.ArgumentParser,
) -> None:
    said = {each.prog: each.description or "" for each in _parsers(command)}
    unsaid = {prog for prog, text in said.items() if not text[:1].isupper() or text[-1] not in ".?"}
    assert unsaid == set()


def test_a_summary_keeps_its_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["deploy", "import", "--help"])
    assert "a USB stick's." in capsys.readouterr().out


def test_a_wrong_word_is_never_answered_with_the_name_of_a_function(
    command: argparse.ArgumentParser,
) -> None:
    for parser in _parsers(command):
        for action in parser._actions:
            try:
                parser._get_value(action, "wrong")
            except argparse.ArgumentError as refused:
                told = str(refused)
                assert "invalid" not in told or f"invalid {_WORDS.get(action.type)} " in told, (
                    parser.prog
                )


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


class _Failing:
    """A standard output whose medium takes nothing, or an import that is interrupted."""

    def __init__(self, failure: BaseException) -> None:
        self._failure = failure

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        pass

    def run(self, arguments: argparse.Namespace) -> int:
        raise self._failure


@pytest.mark.parametrize(
    ("failure", "status"),
    [(OSError(errno.ENOSPC, "No space left on device"), 1), (KeyboardInterrupt(), 130)],
)
def test_a_full_disk_behind_standard_output_and_ctrl_c_end_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    failure: BaseException,
    status: int,
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda _: _Failing(failure))
    assert main(["check"]) == status
    said = capfd.readouterr().err
    assert said == ("edge: standard output: No space left on device\n" if status == 1 else "")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"85 \\xb0C \\u2192 f\\udcff\n"),
        ("latin-1", b"85 \xb0C \\u2192 f\\udcff\n"),
        ("utf-8", "85 °C → f\\udcff\n".encode()),
    ],
)
def test_what_a_terminal_has_no_letters_for_is_shown_by_its_number(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes
) -> None:
    class Telling(_Failing):
        def run(self, arguments: argparse.Namespace) -> int:
            Console(file=sys.stdout, soft_wrap=True).print("85 °C → f\udcff")
            return 0

    raw = io.BytesIO()
    monkeypatch.setattr(importlib, "import_module", lambda _: Telling(KeyboardInterrupt()))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert main(["check"]) == 0
    assert raw.getvalue() == shown


def test_ctrl_c_while_a_command_is_imported_is_an_ordinary_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert main(["check"]) == 130


def test_a_file_that_this_user_may_not_touch_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = PermissionError(errno.EACCES, "Permission denied", "frames/1.png")
    monkeypatch.setattr(importlib, "import_module", lambda _: _Failing(failure))
    assert main(["check"]) == 1
    assert capsys.readouterr().err == "edge: frames/1.png: Permission denied\n"


@pytest.mark.parametrize(
    "words",
    [
        ["ledger", "verify"],
        ["model", "inspect"],
        ["fleet", "releases"],
        ["guest", "inspect"],
        ["deploy", "import", "--config", "device_configs/x86-cpu.toml"],
        ["replay", "--config", "device_configs/x86-cpu.toml"],
    ],
    ids=" ".join,
)
def test_a_name_that_is_longer_than_any_is_named_in_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "x" * 300]) == 1
    said = capsys.readouterr().err
    assert said.startswith("edge: ")
    assert said.endswith(": File name too long\n")
    assert said.count("\n") == 1


def test_an_error_of_any_other_kind_is_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = OSError(errno.ENOENT, "No such file or directory", "state/ledger.db")
    monkeypatch.setattr(importlib, "import_module", lambda _: _Failing(failure))
    with pytest.raises(OSError, match=r"ledger\.db"):
        main(["check"])
