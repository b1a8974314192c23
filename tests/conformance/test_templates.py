"""Every template is a working project: made, built twice to the same bytes, tested, inspected."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from guest_toolchains import need

from edge import shipped
from edge.cli.main import main
from edge.contracts import abi
from edge.errors import IncompatibleError
from edge.sdk import project, vectors
from edge.sdk.languages import (
    TABLE,
    BuildError,
    Source,
    go,
    rust,
    zig,
    ziglang,
)
from edge.sdk.session import Session
from edge.wasm.engine import GuestEngine
from edge.wasm.guest import Guest
from edge.wasm.section import parameter_schema

ROOT = Path(__file__).parents[2]


TEMPLATES = [(name, role) for name, language in TABLE.items() for role in language.roles]


@pytest.mark.timeout(300)  # the first Rust guest of a machine compiles Rust's `core`
@pytest.mark.parametrize(("name", "role"), TEMPLATES)
def test_a_template_builds_reproducibly_and_passes_its_vectors(
    name: str, role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language = need(name)
    modules = []
    for folder in ("one", "another/place")[: 1 + language.reproducible]:
        words = ["new", "try-it", "--lang", name, "--role", role, "--dir", str(tmp_path / folder)]
        assert main(["guest", *words]) == 0
        made = tmp_path / folder / "try-it"
        assert main(["guest", "build", str(made)]) == 0
        assert {each.name for each in made.iterdir()} == {
            ".gitignore", "README.md", "guest.toml", "parameters.json", "try-it.wasm", "vectors",
            f"try-it.{language.suffix}",
        }  # fmt: skip
        modules.append((made / "try-it.wasm").read_bytes())
    assert modules[0] == modules[-1]
    capsys.readouterr()
    assert main(["guest", "test", str(made / "try-it.wasm"), str(made / "vectors")]) == 0, (
        capsys.readouterr().out
    )
    readme = (made / "README.md").read_text()
    for word in ("NAME", "ROLE", "LANGUAGE", "SOURCE", "INSTALL"):
        assert word not in readme


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["c", "zig", "rust", "go", "assemblyscript"])
def test_a_built_template_imports_nothing_and_carries_no_names(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need(name)
    made = project.make("try-it", name, "decide", tmp_path)
    module = project.build(made)
    assert main(["guest", "inspect", str(module), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["roles"], found["imports"], found["findings"]) == (["decide"], [], [])
    assert not {"name", "producers"} & set(found["custom_sections"])
    wasm = module.read_bytes()
    for trace in (str(tmp_path), str(Path.home()), str(ROOT)):
        assert trace.encode() not in wasm


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["c", "zig", "rust", "go", "assemblyscript"])
def test_the_same_call_takes_the_same_fuel_in_every_instance(name: str, tmp_path: Path) -> None:
    need(name)
    made = project.make("try-it", name, "postprocess", tmp_path)
    module = project.build(made)
    vector = vectors.read(made / "vectors/rows.toml")
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    used = []
    for place in ("one", "two"):
        with GuestEngine(tmp_path / place) as engine:
            loaded = engine.load(module, digest, 64, metered=True)
            session = Session(loaded, vector, 1000)
            assert isinstance(session.guest, Guest)
            for _ in range(2):
                session.run(vector.calls[0])
                used.append(session.guest.fuel_used)
    assert used[0] > 100
    assert used[:2] == used[2:]


@pytest.mark.timeout(300)
def test_a_go_guest_that_makes_garbage_goes_on_in_its_memory(tmp_path: Path) -> None:
    need("go")
    made = project.make("wasteful", "go", "decide", tmp_path)
    source, config = made / "wasteful.go", made / "guest.toml"
    waste = "garbage = make([]byte, 100000)\n\tcall.Verdict, call.Score"
    text = source.read_text().replace("call.Verdict, call.Score", waste, 1)
    assert waste in text
    source.write_text(text + "\nvar garbage []byte\n")
    config.write_text(config.read_text().replace("memory_mib = 16", "memory_mib = 40"))
    module = project.build(made)
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    vector = vectors.read(made / "vectors/series.toml")
    with GuestEngine(tmp_path / "cache") as engine:
        session = Session(engine.load(module, digest, 40), vector, 1000)
        for _ in range(1000):  # 100 MB, in 40 MiB
            assert session.run(vector.calls[0]).decision is not None
        guest = session.guest
        assert isinstance(guest, Guest)
        with pytest.raises(IncompatibleError, match="found no room"):
            guest.alloc(33 << 20)


def test_go_sources_stand_as_gofmt_lays_them_out() -> None:
    need("go")
    gofmt = Path(go.find()).with_name("gofmt")
    folders = [str(ROOT / "guests/sdk/go"), str(ROOT / "guests/templates/go")]
    command = [str(gofmt), "-l", *folders]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == ""


def test_the_languages_are_listed_with_what_they_lack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["guest", "languages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TABLE)
    assert lines[0].endswith("  ready")
    assert main(["guest", "languages", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert row["roles"] == list(TABLE[row["name"]].roles)
        assert not row["missing"] or TABLE[row["name"]].install in row["missing"]


def test_a_role_that_a_language_does_not_serve_is_refused_with_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["guest", "new", "mine", "--lang", "python", "--role", "preprocess"]
    assert main([*words, "--dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "--lang python: serves decide, not preprocess" in said
    assert "c, zig, rust, go, assemblyscript" in said
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("role", abi.ROLES)
def test_what_a_template_refuses_its_carried_schema_refuses_too(role: str, tmp_path: Path) -> None:
    made = project.make("mine", "c", role, tmp_path)
    schema = parameter_schema(project.build(made).read_bytes(), "mine")
    assert schema is not None
    assert schema["title"] == "Parameters of the guest mine"
    for file in vectors.files(made / "vectors"):
        vector = vectors.read(file)
        document = json.loads(json.dumps(vector.document.parameters))
        if vector.refused:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(document, schema)
        else:
            jsonschema.validate(document, schema)


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
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f'"{ziglang.REQUIREMENT}"' in pyproject
    assert f'"{go.REQUIREMENT}"' in pyproject
    assert f"{go.REQUIREMENT} " in (ROOT / "scripts/guest_toolchains.lock").read_text()


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "bindings", "good", "moved"),
    [
        ("rust", "rust/abi.rs", "    pub age_ns: i64,", "    pub age_ns: i64,\n    pub more: u64,"),
        ("go", "go/abi.go", "\tFrameWidth     uint32", "\tFrameWidth     uint64"),
    ],
)
def test_other_compilers_hold_guests_to_the_layouts(
    name: str,
    bindings: str,
    good: str,
    moved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    language = need(name)
    sdk = tmp_path / "sdk"
    shutil.copytree(shipped.path("guests/sdk"), sdk)
    # The shipped SDK stays as it is; this one stands in for it.
    monkeypatch.setattr(shipped, "path", lambda place: sdk / place.removeprefix("guests/sdk/"))
    template = ROOT / f"guests/templates/{name}/decide/guest.{language.suffix}"
    for place in ("good", "bad"):
        (tmp_path / place).mkdir()
    language.compile(Source(template, 64), tmp_path / "good/guest.wasm")
    text = (sdk / bindings).read_text()
    assert good in text
    (sdk / bindings).write_text(text.replace(good, moved, 1))
    with pytest.raises(BuildError, match=Path(bindings).name):
        language.compile(Source(template, 64), tmp_path / "bad/guest.wasm")


@pytest.mark.parametrize("name", ["rust", "go"])
def test_without_a_toolchain_the_hint_says_what_to_install(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = project.make("mine", name, "decide", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setattr(rust, "DEBIAN", str(empty))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == "go" else find_spec(wanted)
    )
    assert main(["guest", "build", str(made)]) == 1
    assert TABLE[name].install in capsys.readouterr().err


def test_without_the_compiler_the_hint_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = project.make("mine", "zig", "decide", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main(["guest", "build", str(made)]) == 1
    assert f"pip install {ziglang.REQUIREMENT}" in capsys.readouterr().err
