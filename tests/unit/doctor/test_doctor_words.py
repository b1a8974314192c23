"""What the doctor prints of others' words."""

from collections.abc import Iterator

import pytest

from edge.cli import doctor
from edge.cli.main import main
from edge.doctor.check import Check, Outcome


def test_words_of_a_broker_steer_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def examine(*_: object) -> Iterator[Check]:
        yield Check("broker.reachable", Outcome.FINDING, "refused: \x1b[2J [red]x", "ask \x07 it")

    monkeypatch.setattr(doctor, "examine", examine)
    assert main(["doctor", "--config", "device_configs/x86-cpu.toml"]) == 1
    said = capsys.readouterr().out
    assert "refused: \\x1b[2J [red]x" in said
    assert "\x1b" not in said
    assert "\x07" not in said
