"""The rules of the house that no linter knows: imports, links, commands, names."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from edge.cli.main import COMMANDS
from edge.observability.counters import TABLE

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
MARKDOWN = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".out"} & set(path.parts))
ENGINES = ("wasmtime", "onnxruntime", "cv2", "simplejpeg", "numpy")


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# Imports


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy_of_the_code(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "edge", tmp_path / "edge", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_imports_run_one_way_and_each_engine_has_one_door() -> None:
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("contracts/verdict.py", "import edge.daemon.supervisor", "Imports run one way"),
        ("mqtt/session.py", "import edge.cli.main", "Imports run one way"),
        ("pipeline/path.py", "import wasmtime", "One door: wasmtime"),
        ("cli/main.py", "import onnxruntime", "One door: ONNX Runtime"),
        ("daemon/intake.py", "import paho.mqtt.client", "One door: MQTT"),
        ("daemon/intake.py", "import edge.pipeline.decode", "The supervisor carries no engine"),
        ("new_room/__init__.py", "", "Imports run one way"),
    ],
)
def test_an_import_against_the_rules_is_caught(
    copy_of_the_code: Path, module: str, line: str, broken: str
) -> None:
    path = copy_of_the_code / "edge" / module
    path.parent.mkdir(exist_ok=True)
    before = path.read_text() if path.is_file() else '"""A room."""\n'
    path.write_text(f"{before}\n{line}\n")
    done = _lint_imports(copy_of_the_code)
    verdict = re.search(rf"^{broken}.* BROKEN$", done.stdout, re.MULTILINE)
    assert verdict is not None, done.stdout
    assert done.returncode != 0


def test_the_supervisors_process_loads_no_engine() -> None:
    code = "import sys, edge.cli.main, edge.cli.run; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert "edge.daemon.supervisor" in loaded
    assert [name for name in ENGINES if name in loaded] == []


# Files


def test_no_file_names_a_workstation_or_a_package_registry() -> None:
    # Written so that this file does not find itself.
    foreign = re.compile(
        r"/(?:roo[t]|hom[e]|wor[k]|User[s])/[A-Za-z]|pypi[.]org|pythonhosted[.]org|npmjs[.]"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in _tracked()
        if (match := foreign.search(path.read_bytes().decode(errors="ignore")))
    ]
    assert found == []


def _links(path: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def _anchors(path: Path) -> set[str]:
    """The headings of a page, by the names that Git servers give them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in _anchors(target)
        ):
            dead.append(link)
    assert dead == []


# Commands


def _commands(program: str) -> set[str]:
    """The words that follow a program at the start of a line of a code block, in any page."""
    return {
        word
        for page in MARKDOWN
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
        for word in re.findall(rf"^(?:[.\w/]*/)?{program} ([a-z][a-z-]*)", block, re.MULTILINE)
    }


def test_every_make_command_of_the_documentation_is_a_target() -> None:
    named = _commands("make")
    assert {"demo", "test"} <= named
    assert named - TARGETS == set()


def test_every_edge_command_of_the_documentation_exists() -> None:
    named = _commands("edge")
    assert named
    assert named - set(COMMANDS) == set()


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert set(re.findall(r"^  make ([a-z-]+) ", listed, re.MULTILINE)) == TARGETS


# Setting up


def _setup(python: str) -> str:
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "setup.sh", python, "never-made"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert not (ROOT / "never-made").exists()
    return done.stderr


def _interpreter(folder: Path, body: str) -> str:
    """An interpreter as found on some machines: `$2` is the code that it is asked to run."""
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\n{body}\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_setup_names_a_python_that_is_not_there() -> None:
    assert "'no-such-python' is not there" in _setup("no-such-python")


def test_setup_names_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = _interpreter(tmp_path, '[ "$1" = -V ] && echo Python 3.9.2 && exit; exit 1')
    assert "is Python 3.9.2, edge needs Python 3.11 or later" in _setup(old)


def test_setup_names_the_package_that_a_python_without_pip_lacks(tmp_path: Path) -> None:
    bare = _interpreter(tmp_path, 'case "$2" in *ensurepip*) exit 1 ;; esac')
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install {version}-venv" in _setup(bare)


def test_the_lock_satisfies_every_dependency() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE):
        locked.setdefault(name, []).append(Version(version))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
    ]
    unmet = [
        text
        for requirement in map(Requirement, wanted)
        if not (found := locked.get(requirement.name))
        or not all(version in requirement.specifier for version in found)
        for text in [str(requirement)]
    ]
    assert unmet == []


def test_the_lock_pins_every_file_by_hash() -> None:
    blocks = re.split(
        r"^(?=[a-z0-9-]+==)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE
    )
    assert len(blocks) > 50
    assert [block.splitlines()[0] for block in blocks[1:] if "--hash=sha256:" not in block] == []


# Counters


def test_every_counter_of_the_table_is_counted_and_no_other() -> None:
    sources = [path for path in (ROOT / "edge").rglob("*.py") if path.name != "counters.py"]
    counted = {
        name
        for path in sources
        for name in re.findall(r"\.count\(\s*\"([a-z_]+)\"", path.read_text())
    }
    assert counted == set(TABLE)
