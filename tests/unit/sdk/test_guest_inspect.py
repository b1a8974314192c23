"""`edge guest inspect`: what a module declares, beside the ABI and the host's own word."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from guest_wat import ABI, assemble, guest

from edge import shipped
from edge.cli.main import main
from edge.errors import IncompatibleError
from edge.sdk import module
from edge.sdk.inspection import Inspection, inspect
from edge.wasm import binary
from edge.wasm.section import parameter_schema


def inspected(folder: Path, text: str) -> Inspection:
    file = folder / "module.wasm"
    file.write_bytes(assemble(text))
    return inspect(file, 8)


def test_a_reference_guest_is_usable_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    file = shipped.path("guests/policy/policy.wasm")
    assert main(["guest", "inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["usable"], found["refusal"], found["findings"]) == (True, "", [])
    assert (found["roles"], found["abi"], found["imports"]) == (["decide"], "1.1", [])
    assert found["size_bytes"] == file.stat().st_size
    assert (found["memories"][0]["minimum"], found["memories"][0]["maximum"]) == (16, 16)
    states = {export["name"]: export["state"] for export in found["exports"]}
    assert states["edge_configure"] == "ok"
    assert states["preprocess"] == "absent"
    (cost,) = found["costs"]  # of the vectors beside it
    assert cost["role"] == "decide"
    assert cost["p99_us"] > 0
    assert cost["fuel"] > 100


def test_no_vectors_no_costs_and_a_folder_that_is_none_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "alone.wasm"
    file.write_bytes(shipped.path("guests/policy/policy.wasm").read_bytes())
    assert main(["guest", "inspect", str(file)]) == 0
    assert "cost " not in capsys.readouterr().out
    vectors = str(shipped.path("guests/policy/vectors"))
    assert main(["guest", "inspect", str(file), "--vectors", vectors]) == 0
    assert "  cost     decide: 99 of 100 calls within " in capsys.readouterr().out
    assert main(["guest", "inspect", str(file), "--vectors", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_what_is_wrong_is_said_by_name_beside_the_hosts_reason(tmp_path: Path) -> None:
    found = inspected(
        tmp_path,
        """(module
          (import "env" "log" (func (param i32 i64)))
          (memory (export "memory") 1 2)
          (table 3 3 funcref)
          (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
          (func (export "edge_configure") (param i32 i32) (result i32) (i32.const 0))
          (func (export "extra")))""",
    )
    assert not found.usable
    assert "env.log" in found.refusal
    assert found.imports == (module.External("env.log", "function", "(i32, i64) -> nothing"),)
    assert found.tables == (module.Limits(3, 3),)
    said = "\n".join(found.findings)
    assert "imports function env.log" in said
    assert "export edge_abi is missing" in said
    assert "export edge_alloc is (i32) -> i32; the ABI says (i32, i32) -> i32" in said
    assert "exports none of preprocess, postprocess, decide" in said
    assert "memory: minimum 1 pages, maximum 2 pages" in said
    assert "edge_configure" not in said
    assert {e.name: e.state for e in found.exports}["extra"] == "ignored"


def test_a_guest_of_a_later_abi_is_refused_in_the_hosts_words(tmp_path: Path) -> None:
    found = inspected(tmp_path, guest(abi=ABI.replace("0x10000", "0x20007")))
    assert not found.usable
    assert "it wants guest ABI 2.7; this host has 1.1" in found.refusal


def test_every_beginning_of_a_module_is_read_or_refused() -> None:
    wasm = shipped.path("guests/policy/policy.wasm").read_bytes()
    whole = module.read(wasm)
    for end in range(300):
        with suppress(IncompatibleError):
            assert module.read(wasm[:end]) != whole


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (b"\x01\xff\xff\xff\xff\x0f", "bytes are announced"),
        (b"\x01\x05\xff\xff\xff\xff\x0f", "a list of 4294967295 entries"),
        (b"\x07\x04\x01\x01a\x63", "of kind 99"),
        (b"\x01\x03\x01\x50\x00", "a type of form 0x50"),
        (b"\x05" + b"\x80" * 12, "a number does not end"),
    ],
)
def test_a_damaged_section_is_named_by_its_byte(section: bytes, problem: str) -> None:
    with pytest.raises(IncompatibleError, match=r"at byte \d+: .*" + problem):
        module.read(b"\0asm\x01\0\0\0" + section)


def test_a_finding_ends_with_1_and_a_missing_file_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text.wasm"
    file.write_text("(module)")
    assert main(["guest", "inspect", str(file)]) == 1
    assert "text must be assembled first" in capsys.readouterr().out
    assert main(["guest", "inspect", str(tmp_path / "none.wasm")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_schema_that_a_guest_carries_is_shown_and_a_broken_one_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["guest", "inspect", str(shipped.path("guests/topk/topk.wasm"))]) == 0
    shown = capsys.readouterr().out
    assert "parameter k: a whole number 1..300, default 1" in shown
    broken = tmp_path / "broken.wasm"
    content = binary.name("edge.parameters") + b'{"type": "object", "pattern": "(a+)+"}'
    section = bytes([binary.CUSTOM]) + binary.number(len(content)) + content
    broken.write_bytes(assemble(guest()) + section)
    assert main(["guest", "inspect", str(broken)]) == 1
    assert "broken.wasm: its parameter schema" in capsys.readouterr().out


def test_a_project_with_a_schema_builds_a_guest_that_carries_it(tmp_path: Path) -> None:
    words = ["guest", "new", "strict", "--lang", "c", "--role", "decide", "--dir", str(tmp_path)]
    assert main(words) == 0
    made = tmp_path / "strict"
    schema = {"type": "object", "properties": {"limit": {"type": "integer"}}}
    (made / "parameters.json").write_text(json.dumps(schema, indent=2))
    assert main(["guest", "build", str(made)]) == 0
    assert parameter_schema((made / "strict.wasm").read_bytes(), "strict") == schema
    (made / "parameters.json").write_text('{"type": "object", "$ref": "#"}')
    assert main(["guest", "build", str(made)]) == 2
