"""The short form of `make fuzz`, and that the tool finds what it is made to find."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")
SECONDS = 30 if os.environ.get("CI") == "true" else 10


def fuzz(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(FUZZ), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(240)
def test_nothing_that_comes_in_breaks_a_promise() -> None:
    done = fuzz("--seconds", str(SECONDS))
    assert done.returncode == 0, done.stdout[-6000:]
    total = re.search(r"^all +([0-9]+) cases", done.stdout, re.MULTILINE)
    assert total is not None
    assert int(total[1]) > 300


def test_exception_crash_and_hang_are_found_and_can_be_run_again() -> None:
    """The negative control: of its eight cases in sixteen, some raise, crash and hang."""
    done = fuzz("--only", "control", "--cases", "16", "--patience", "3")
    assert done.returncode == 1
    assert "KeyError: 'not promised'" in done.stdout
    assert "ended the process with SIGSEGV" in done.stdout
    assert "hangs" in done.stdout
    assert re.search(r"^control +16 cases", done.stdout, re.MULTILINE), done.stdout
    crash = re.search(r"control, case ([0-9]+): ended the process", done.stdout)
    assert crash is not None
    again = fuzz("--only", "control", "--case", crash[1])
    assert again.returncode == 1
    assert f"case {crash[1]}: ended the process with SIGSEGV" in again.stdout


def test_same_seed_means_the_same_cases() -> None:
    first, second, other = (
        re.findall(r"control, case ([0-9]+)", fuzz("--only", "control", "--seed", seed,
                                                   "--cases", "8", "--patience", "3").stdout)
        for seed in ("1", "1", "2")
    )  # fmt: skip
    assert first == second
    assert first != other
