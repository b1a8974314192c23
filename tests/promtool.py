"""Prometheus' own judge of metrics, rules and configuration."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_FOLDER: Final = Path(__file__).parent.parent / ".venv" / "prometheus" / "usr" / "bin"
"""Where scripts/setup_tests.sh unpacks it: installed as a package it would start a server."""


def prometheus_program(name: str) -> str:
    """Return the path of `promtool` or `prometheus`; skip where it is absent, fail in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(_FOLDER))
    if found is None:
        reason = f"{name} is not there: make setup-tests"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def judged_by_promtool(*arguments: str, stdin: bytes = b"") -> str:
    """Return what promtool finds; empty where it is content."""
    done = subprocess.run(
        [prometheus_program("promtool"), *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    # `check metrics` exits with 3 for lint and 1 for what it cannot read.
    return "" if done.returncode == 0 else done.stdout.decode() or f"status {done.returncode}"
