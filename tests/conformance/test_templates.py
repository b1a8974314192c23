"""Every template is a working project: made, built twice to the same bytes, tested, inspected."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge import shipped
from edge.cli.main import main
from edge.contracts import abi
from edge.sdk import project
from edge.sdk.languages import TABLE, zig, ziglang


@pytest.mark.parametrize("role", abi.ROLES)
@pytest.mark.parametrize("language", TABLE)
def test_a_template_builds_reproducibly_and_passes_its_vectors(
    role: str, language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = []
    for folder in ("one", "another/place"):
        words = [
            "new",
            "try-it",
            "--lang",
            language,
            "--role",
            role,
            "--dir",
            str(tmp_path / folder),
        ]
        assert main(["guest", *words]) == 0
        made = tmp_path / folder / "try-it"
        assert main(["guest", "build", str(made)]) == 0
        modules.append((made / "try-it.wasm").read_bytes())
    assert modules[0] == modules[1]
    capsys.readouterr()
    assert main(["guest", "test", str(made / "try-it.wasm"), str(made / "vectors")]) == 0, (
        capsys.readouterr().out
    )
    capsys.readouterr()
    assert main(["guest", "inspect", str(made / "try-it.wasm"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["roles"], found["imports"], found["findings"]) == ([role], [], [])
    assert not {"name", "producers"} & set(found["custom_sections"])


def test_a_project_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["guest", "new", "mine", "--lang", "c", "--role", "decide", "--dir", str(tmp_path)]
    assert main(words) == 0
    (tmp_path / "mine" / "mine.c").write_text("my work")
    assert main(words) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine" / "mine.c").read_text() == "my work"


def test_what_the_compiler_refuses_is_said_and_leaves_the_last_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = project.make("mine", "c", "decide", tmp_path)
    (made / "mine.wasm").write_bytes(b"the last one")
    (made / "mine.c").write_text("int x = ;")
    assert main(["guest", "build", str(made)]) == 1
    assert "mine.c" in capsys.readouterr().err
    assert (made / "mine.wasm").read_bytes() == b"the last one"
    assert main(["guest", "build", str(tmp_path)]) == 2


def test_the_compiler_is_the_one_that_is_pinned() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert f'"{ziglang.REQUIREMENT}"' in pyproject.read_text()


def test_the_zig_compiler_holds_guests_to_the_layouts(tmp_path: Path) -> None:
    sdk = tmp_path / "sdk"
    shutil.copytree(shipped.path("guests/sdk/zig"), sdk)
    bindings = sdk / "edge_guest.zig"
    source = tmp_path / "root.zig"
    source.write_text(
        'const edge = @import("edge");\nexport fn decide(_: *edge.abi.DecideCall) void {}'
    )
    command = [
        *(sys.executable, "-m", "ziglang", "build-exe", *zig.FLAGS, "--dep", "edge"),
        *(f"-Mroot={source}", f"-Medge={sdk / 'edge.zig'}", "--cache-dir", str(tmp_path / "cache")),
        *("-fno-emit-bin",),
    ]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    text = bindings.read_text()
    moved = text.replace("    state: u32,\n", "").replace(
        "age_ns: i64,", "age_ns: i64,\n    state: u64,"
    )
    assert moved != text
    bindings.write_text(moved)
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "edge_guest.zig" in refused.stderr


def test_without_the_compiler_the_hint_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = project.make("mine", "zig", "decide", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main(["guest", "build", str(made)]) == 1
    assert f"pip install {ziglang.REQUIREMENT}" in capsys.readouterr().err
