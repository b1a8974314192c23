"""The language bindings and the ABI's document: both say what `edge.contracts.abi` says."""

import ctypes
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from edge.contracts import abi, script
from edge.contracts.verdict import HOST_REASONS, Kind
from edge.errors import IncompatibleError
from edge.wasm import bindings
from edge.wasm.engine import GuestEngine
from edge.wasm.roles import DEFECT, Decider

ROOT = Path(__file__).parents[2]
SDK = ROOT / "guests/sdk"
DOCUMENT = (ROOT / "guests/ABI.md").read_text(encoding="utf-8")
SCHEMA = bindings.schema()


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`guests/build.py`, which is a script and no part of a package."""
    monkeypatch.syspath_prepend(str(ROOT / "guests"))
    monkeypatch.delitem(sys.modules, "build", raising=False)
    return __import__("build")


def test_the_checked_in_bindings_are_what_the_schema_gives() -> None:
    assert bindings.main(["--check"]) == 0


def test_bindings_that_differ_are_found_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bindings.main(["--sdk", str(tmp_path)]) == 0
    header = tmp_path / "c/edge_guest.h"
    header.write_text(header.read_text().replace("EDGE_MAX_RANK 8", "EDGE_MAX_RANK 9"))
    assert bindings.main(["--sdk", str(tmp_path), "--check"]) == 1
    assert f"{header}: not what" in capsys.readouterr().err
    assert bindings.main(["--sdk", str(tmp_path), "--check", "--lang", "json"]) == 0


def test_generation_imports_no_engine() -> None:
    code = "import sys, edge.wasm.bindings; sys.exit('wasmtime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_constant_of_the_schema_is_forgotten() -> None:
    numbers = {name for name, value in vars(abi).items() if name.isupper() and type(value) is int}
    given = {name for group in SCHEMA.constants for name in group.values}
    assert numbers <= given
    header = (SDK / "c/edge_guest.h").read_text()
    for group in SCHEMA.constants:
        for name, value in group.values.items():
            assert re.search(rf"#define EDGE_{name} \(?{value}\)?\s", header), name


def test_the_published_layouts_are_those_of_the_host() -> None:
    published = {s["name"]: s for s in json.loads((SDK / "abi.json").read_text())["structs"]}
    assert list(published) == [struct.__name__ for struct in abi.STRUCTS]
    for struct in abi.STRUCTS:
        layout = published[struct.__name__]
        assert layout["size"] == ctypes.sizeof(struct)
        for field in layout["fields"]:
            slot = getattr(struct, field["name"])
            assert (field["offset"], field["size"]) == (slot.offset, slot.size)
    assert {e["name"] for e in json.loads((SDK / "abi.json").read_text())["exports"]} == {
        export.name for export in abi.EXPORTS
    }


@pytest.mark.parametrize("struct", abi.STRUCTS, ids=lambda struct: struct.__name__)
def test_structs_have_no_implicit_padding(struct: type[abi.Struct]) -> None:
    end = 0
    for name, *_ in struct._fields_:
        slot: Any = getattr(struct, name)
        assert slot.offset == end
        end += slot.size
    assert end == ctypes.sizeof(struct)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_compiler_holds_guests_to_the_layouts(
    build: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str], wrong: bool
) -> None:
    source = tmp_path / "layout.c"
    header = (SDK / "c/edge_guest.h").read_text()
    if wrong:
        header = header.replace("    uint32_t defect_count;", "    uint64_t defect_count;")
    source.write_text(header + "uint32_t edge_abi(void) { return EDGE_ABI_MAJOR << 16; }\n")
    if not wrong:
        build.compile_guest(source, tmp_path / "layout.wasm", 1)
        return
    with pytest.raises(SystemExit, match="the compiler refused it"):
        build.compile_guest(source, tmp_path / "layout.wasm", 1)
    assert "edge_decide_call" in capfd.readouterr().err


def test_the_documents_tables_are_those_of_the_schema() -> None:
    for struct in SCHEMA.structs:
        title = f"### {struct.name}: {struct.size} bytes, aligned to {struct.alignment}\n"
        section = DOCUMENT.partition(title)[2].partition("\n###")[0]
        rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\S+) \| (.*) \|$", section, re.MULTILINE)
        assert rows == [
            (
                str(field.offset),
                field.name,
                f"{field.type}[{field.count}]" if field.count else field.type,
                field.comment,
            )
            for field in struct.fields
        ], struct.name


def test_the_document_names_every_export_error_and_reserved_reason() -> None:
    for export in abi.EXPORTS:
        row = re.search(rf"^\| `{export.name}` \| (.*) \| (.*) \| (.*) \|$", DOCUMENT, re.MULTILINE)
        assert row is not None, export.name
        assert (row[3] == "required") is export.required
    for name, meaning in SCHEMA.errors.items():
        assert f"| {name} | {meaning} |" in DOCUMENT
    listed = DOCUMENT.partition("Reasons that only the host may give:")[2].partition(". `ok`")[0]
    assert set(re.findall(r"`([a-z-]+)`", listed)) == set(HOST_REASONS)
    assert f"version {abi.ABI_MAJOR}.{abi.ABI_MINOR}" in DOCUMENT
    assert f"at most {abi.MAX_ERROR_BYTES}\nbytes" in DOCUMENT
    assert f"at most {abi.MAX_STATE_BYTES} bytes" in DOCUMENT


def test_the_documents_example_builds_and_judges(build: ModuleType, tmp_path: Path) -> None:
    (example,) = re.findall(r"```c\n(.*?)```", DOCUMENT, re.DOTALL)
    source, module = tmp_path / "count.c", tmp_path / "count.wasm"
    source.write_text(example)
    build.compile_guest(source, module, 1)
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    with GuestEngine(tmp_path / "cache") as engine:
        loaded = engine.load(module, digest, 1)
        guest = loaded.instantiate(1_000)
        guest.configure({"parameters": {"limit": 2}})
        decider = Decider(guest, 0, 0)
        defects = np.array([(0, 0, 9, 9, 0.5, 0), (0, 0, 9, 9, 0.25, 0)], DEFECT)
        one, two = (decider.run(defects, count, [], 0, 0, 640, 640) for count in (1, 2))
        with pytest.raises(IncompatibleError, match=r"parameters\.limits: no such parameter"):
            loaded.instantiate(1_000).configure({"parameters": {"limits": 2}})
    assert (one.kind, one.reason, one.score) == (Kind.PASS, "ok", 0.5)
    assert (two.kind, two.reason, two.score) == (Kind.REJECT, "defect", 0.5)


def test_the_documents_command_builds_the_example(tmp_path: Path) -> None:
    (example,) = re.findall(r"```c\n(.*?)```", DOCUMENT, re.DOTALL)
    (command,) = re.findall(r"```sh\npython (.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "count.c").write_text(example)
    words = command.replace("\\\n", " ").replace("guests/sdk/c", str(SDK / "c")).split()
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
    assert (tmp_path / "count.wasm").read_bytes()[:4] == b"\0asm"


def test_a_scripts_schema_takes_what_the_host_sends_and_refuses_what_it_refuses() -> None:
    schema = json.loads((SDK / "script/policy.schema.json").read_text())
    answer = {"$defs": schema["$defs"], **schema["properties"]["answer"]}
    good = {"verdict": "reject", "score": 0.5, "reason": "defect", "actions": [], "log": ["seen"]}
    jsonschema.validate(good, answer)
    msgspec.json.decode(json.dumps(good), type=script.ScriptAnswer)
    for wrong in (
        {**good, "verdict": "perhaps"},
        {**good, "score": 1.5},
        {**good, "reason": "No Code"},
        {**good, "actions": [{"action": "action.reject", "value": 1}]},
        {**good, "verdct": "pass"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, answer)
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(wrong), type=script.ScriptAnswer)
