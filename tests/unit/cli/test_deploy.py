"""`edge deploy rollback` says what it leaves and what runs then, before it asks."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemons import CONFIG

from edge.deployment.installed import FOLDER, Installed
from edge.deployment.rollout import Deployed, Event

ONE, TWO, THREE = (Deployed("pcb", number, str(number) * 64) for number in (1, 2, 3))
TAKEN = (Event.OFFERED, Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """Of a device that runs revision 2, and ran 1 before; its daemon is down."""
    made = Installed(tmp_path / FOLDER, 1 << 30, time.time_ns)
    for deployed in (ONE, TWO):
        goes(made, deployed, *TAKEN)
    return made


def goes(installed: Installed, deployed: Deployed, *events: Event) -> None:
    for event in events:
        installed.advance(event, offered=deployed if event is Event.OFFERED else None)


def asked(folder: Path, answer: bytes | None) -> tuple[int, str, str]:
    """Run it, at a terminal unless there is no answer; return status, output and errors."""
    terminal, end = pty.openpty()
    try:
        if answer is not None:
            os.write(terminal, answer)
        command = (sys.executable, "-m", "edge.cli.main", "deploy", "rollback")
        done = subprocess.run(
            (*command, "--config", CONFIG, "--set", f"storage.path={folder}"),
            stdin=subprocess.DEVNULL if answer is None else end,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(terminal)
        os.close(end)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("events", "leaves", "runs"),
    [((), 2, 1), (TAKEN[:3], 3, 2), (TAKEN[:4], 3, 2), (TAKEN, 3, 2)],
    ids=["nothing is under way", "in shadow", "on probation", "committed"],
)
def test_it_names_both_and_no_leaves_all_as_it_is(
    tmp_path: Path, installed: Installed, events: tuple[Event, ...], leaves: int, runs: int
) -> None:
    goes(installed, THREE, *events)
    status, said, wrong = asked(tmp_path, b"n\n")
    assert (status, wrong) == (1, "")
    assert f"leaves  pcb revision {leaves}\nruns    pcb revision {runs}\n" in said


def test_yes_asks_the_daemon_and_nobody_at_the_terminal_must_say_so(
    tmp_path: Path, installed: Installed
) -> None:
    status, _, wrong = asked(tmp_path, b"y\n")
    assert status != 0
    assert "no daemon runs on this folder" in wrong
    status, _, wrong = asked(tmp_path, None)
    assert status == 1
    assert "say --yes" in wrong
    assert not installed.journal.pinned
