"""The reference guests as artefacts: built from their sources, and shaped as the ABI says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wasmtime import Config, Engine, FuncType, MemoryType, Module

from edge.contracts import abi
from edge.sdk.parameters import rows
from edge.wasm.section import parameter_schema

GUESTS = Path(__file__).parents[2] / "guests"
MEMORY_MIB = {
    "boxes": 16,
    "heat": 16,
    "letterbox": 64,
    "pair": 64,
    "policy": 1,
    "tile": 128,
    "topk": 1,
}
ALWAYS = {"memory", "edge_abi", "edge_alloc", "edge_configure", "edge_error"}
ROLE = {
    "boxes": {"postprocess"},
    "heat": {"postprocess"},
    "letterbox": {"preprocess"},
    "pair": {"preprocess"},
    "policy": {"decide", "edge_state_save", "edge_state_restore"},
    "tile": {"preprocess"},
    "topk": {"postprocess"},
}


def run_build(
    *arguments: str, script: Path = GUESTS / "build.py"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    config = Config()
    for refused in ("relaxed_simd", "memory64", "multi_memory", "tail_call", "threads"):
        setattr(config, f"wasm_{refused}", False)
    engine = Engine(config)
    return {name: Module.from_file(engine, str(GUESTS / name / f"{name}.wasm")) for name in ROLE}


def test_the_checked_in_modules_are_what_their_sources_give() -> None:
    assert run_build("--check").returncode == 0


def test_a_build_in_another_folder_gives_the_same_bytes_and_a_change_is_found(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "a longer path, with blanks" / "guests"
    for source in (
        *(file for name in ROLE for file in (GUESTS / name).glob("*.[chjRm]*")),
        *GUESTS.glob("sdk/c/*.h"),
        GUESTS / "build.py",
    ):
        copy = elsewhere / source.relative_to(GUESTS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    script = elsewhere / "build.py"
    assert run_build(script=script).returncode == 0
    for name in ROLE:
        built = elsewhere / name / f"{name}.wasm"
        assert built.read_bytes() == (GUESTS / name / f"{name}.wasm").read_bytes()
    assert (elsewhere / "SHA256SUMS").read_bytes() == (GUESTS / "SHA256SUMS").read_bytes()
    policy = elsewhere / "policy/policy.c"
    policy.write_text(policy.read_text().replace("1000, 1, 3600000", "1001, 1, 3600000"))
    checked = run_build("--check", script=script)
    assert checked.returncode == 1
    assert "policy/policy.wasm" in checked.stderr
    assert "boxes" not in checked.stderr


@pytest.mark.parametrize("name", ROLE)
def test_they_import_nothing_and_export_what_the_abi_names(
    modules: dict[str, Module], name: str
) -> None:
    assert modules[name].imports == []
    assert {export.name for export in modules[name].exports} == ALWAYS | ROLE[name]
    known = {export.name: export for export in abi.EXPORTS}
    for export in modules[name].exports:
        if isinstance(export.type, FuncType):
            assert len(export.type.params) == known[export.name].parameters
            assert len(export.type.results) == 1


@pytest.mark.parametrize("name", ROLE)
def test_their_memory_is_fixed(modules: dict[str, Module], name: str) -> None:
    memory = next(e.type for e in modules[name].exports if e.name == "memory")
    assert isinstance(memory, MemoryType)
    assert memory.limits.min == memory.limits.max == MEMORY_MIB[name] << 4
    readme = (GUESTS / name / "README.md").read_text()
    assert f"Memory: {MEMORY_MIB[name]} MiB" in readme


@pytest.mark.parametrize("name", ROLE)
def test_they_carry_their_schema_and_it_names_every_parameter_that_they_read(name: str) -> None:
    schema = parameter_schema((GUESTS / name / f"{name}.wasm").read_bytes(), name)
    assert schema is not None
    assert schema == json.loads((GUESTS / name / "parameters.json").read_text())
    source = "".join(file.read_text() for file in (GUESTS / name).glob("*.[ch]"))
    readers = r"edge_json_\w+|edge_config_per_class|read_wish"
    given = r"given|&config|&config, given|parameters|drift_given"
    read = re.findall(rf'(?:{readers})\(\s*(?:{given}), "(\w+)"', source)
    listed = {part for row, *_ in rows(schema) for part in re.split(r"\W+", row)}
    assert read or name in ("letterbox", "tile")  # theirs are read in the SDK
    assert set(read) <= listed


@pytest.mark.parametrize("name", ROLE)
def test_they_carry_no_names_or_paths(name: str) -> None:
    wasm = (GUESTS / name / f"{name}.wasm").read_bytes()
    for trace in (b".c\0", b"/work", b"/home/", b"/tmp", b"producers", b"clang"):
        assert trace not in wasm
