"""What is shipped beside the code is found in a checkout and in the wheel, and is whole there."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import edge
from edge import shipped
from edge.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build backend of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an installation of the wheel puts on the path."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _ask(installed: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.parent,
        env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_checkout_ships_from_where_people_look() -> None:
    for folder in shipped.FOLDERS:
        assert shipped.path(folder) == ROOT / folder


def test_the_wheel_carries_the_folders_that_the_code_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["sources"] == {folder: f"edge/shipped/{folder}" for folder in shipped.FOLDERS}
    assert sorted(wheel["only-include"]) == sorted(("edge", *shipped.FOLDERS))


def test_the_wheel_holds_every_tracked_file_of_the_shipped_folders(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--", *shipped.FOLDERS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert len(tracked) > 10
    assert [name for name in tracked if f"edge/shipped/{name}" not in names] == []


def test_an_installed_wheel_finds_its_files_away_from_the_checkout(installed: Path) -> None:
    for name in ("device_configs/x86-cpu.toml", "systemd/edge.service", "models/pcb/deployment"):
        found = _ask(installed, f"from edge import shipped; print(shipped.path({name!r}))")
        assert found == str(installed / "edge" / "shipped" / name)


def test_the_deployment_in_the_wheel_is_whole_and_fits_the_shipped_config(installed: Path) -> None:
    found = _ask(
        installed,
        "from edge import config, shipped\n"
        "from edge.deployment.folder import load_folder, plans\n"
        "settings = config.load(shipped.path('device_configs/x86-cpu.toml'))\n"
        "deployment = load_folder(shipped.path('models/pcb/deployment'))\n"
        "print(*(plan.name for plan in plans(deployment, settings)))\n",
    )
    assert found == "pcb"


def test_the_wheel_has_the_version_that_the_code_has(wheel: Path) -> None:
    assert wheel.name == f"edge_verdict-{edge.__version__}-py3-none-any.whl"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "edge/config/sections.py",
        "device_configs2/x",
        "device_configs/../pyproject.toml",
        "/etc/passwd",
        "device_configs//x86-cpu.toml",
    ],
)
def test_only_what_is_shipped_can_be_named(name: str) -> None:
    with pytest.raises(ConfigError, match="is not below a shipped folder"):
        shipped.path(name)


def test_a_file_that_is_not_there_is_named_with_the_places_looked_in() -> None:
    with pytest.raises(ConfigError, match=r"x87\.toml: is not in this installation \(looked in"):
        shipped.path("device_configs/x87.toml")
