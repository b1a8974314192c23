"""Away from the checkout: the wheel as `uv tool install` brings it, with nothing of development.

The packages come from the index, in the lock's versions. Without a network it is skipped, and fails
in CI.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from edge.cli.main import COMMANDS
from edge.contracts.verdict import Reason

ROOT: Final = Path(__file__).parents[2]
EPOCH: Final = "1700000000"
UV: Final = (sys.executable, "-m", "uv")


def build(source: Path, kind: str, out: Path) -> Path:
    """Build a wheel or an sdist, by the backend that is installed here."""
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        kind,
        "--directory",
        str(out),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


class Tool:
    """edge as a tool of its own, run from an empty folder with a home of its own."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.home = folder / "home"
        self.empty = folder / "empty"
        self.empty.mkdir(parents=True)
        tools = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
        lock = folder / "runtime.lock"
        script = [sys.executable, str(ROOT / "scripts" / "runtime_lock.py"), str(lock)]
        subprocess.run(script, check=True, capture_output=True)
        pins = [line.split()[0] for line in lock.read_text().splitlines() if "==" in line]
        lock.write_text("".join(f"{pin}\n" for pin in pins if not pin.startswith("numpy")))
        command = [*UV, "tool", "install", "--python", sys.executable, "--constraints", str(lock)]
        done = subprocess.run(
            [*command, str(wheel)],
            env={**os.environ, **tools},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and os.environ.get("CI") != "true":
            pytest.skip(f"no index to install from: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr[-3000:]
        self.program = folder / "bin" / "edge"
        (self.shipped,) = (folder / "tools").glob(
            "edge-verdict/lib/python3*/site-packages/edge/shipped"
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command, with nothing of this environment but the programs of the system."""
        return subprocess.run(
            [str(self.program), *arguments],
            cwd=self.empty,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin:/usr/sbin", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def edge(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The installed tool."""
    return Tool(wheel, tmp_path_factory.mktemp("away"))


def test_two_wheels_are_equal_and_so_is_that_of_the_sdist(wheel: Path, tmp_path: Path) -> None:
    assert build(ROOT, "wheel", tmp_path / "again").read_bytes() == wheel.read_bytes()
    archive = build(ROOT, "sdist", tmp_path / "sdist")
    again = build(ROOT, "sdist", tmp_path / "sdist-again")
    assert again.read_bytes() == archive.read_bytes()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tmp_path)], check=True)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert not (unpacked / ".git").exists()
    assert build(unpacked, "wheel", tmp_path / "out").read_bytes() == wheel.read_bytes()


def test_the_demo_runs_from_an_empty_folder_and_leaves_it_empty(edge: Tool) -> None:
    done = edge("demo", "--seconds", "2", "--json", "--quiet")
    score = json.loads(done.stdout.splitlines()[-1])
    # A busy machine may be late for some: then they have the fail-safe, and the demo says so.
    assert done.returncode == (1 if score["overruns"] else 0), done.stderr
    assert score["answered"] == score["frames"] == 20
    late = {Reason.OVERRUN, Reason.OVERLOAD, Reason.STALE}
    assert set(score["reasons"]) <= {Reason.OK, Reason.DEFECT, *late}
    assert {Reason.OK, Reason.DEFECT} & set(score["reasons"])
    assert list(edge.empty.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(edge: Tool, command: str) -> None:
    done = edge(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: edge {command}")


def test_the_shipped_config_and_deployment_pass_the_check(edge: Tool) -> None:
    config = edge.shipped / "device_configs" / "x86-cpu.toml"
    deployment = edge.shipped / "models" / "pcb" / "deployment"
    done = edge("check", "--config", str(config), "--deployment", str(deployment))
    assert done.returncode == 0, done.stderr
    assert "sound; device box1" in done.stdout


@pytest.mark.parametrize(
    ("command", "package"),
    [
        (("guest", "build", "mine"), "ziglang"),
        (("bench", "--only", "path", "--quick"), "onnx"),
    ],
)
def test_what_needs_a_developers_package_says_how_to_add_it_to_this_tool(
    edge: Tool, command: Sequence[str], package: str
) -> None:
    made = edge("guest", "new", "mine", "--lang", "c", "--role", "decide", "--dir", str(edge.home))
    assert made.returncode == 0 or "exists" in made.stderr, made.stderr
    done = edge(*(str(edge.home / word) if word == "mine" else word for word in command))
    assert done.returncode in {1, 78}, done
    assert "Traceback" not in done.stderr
    assert re.search(rf"uv tool install --with {package}\S* WHEEL", done.stderr), done.stderr
