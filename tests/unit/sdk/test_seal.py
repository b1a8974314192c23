"""Sealing: a WASI module becomes a guest without a change to its code, or is refused by name."""

from pathlib import Path

import pytest
from wasmtime import Engine, Func, Instance, Memory, Module, Store, Trap, WasmtimeError, wat2wasm

from edge.cli.main import main
from edge.errors import IncompatibleError
from edge.sdk.seal import seal
from edge.wasm.shape import PAGE_BYTES

REACTOR = """(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $begun (mut i32) (i32.const 0))
  (table funcref (elem $random))
  (type $get (func (param i32 i32) (result i32)))
  (func (export "_initialize") (global.set $begun (i32.add (global.get $begun) (i32.const 1))))
  (func (export "begun") (result i32) (global.get $begun))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "random") (result i32)
    (drop (call_indirect (type $get) (i32.const 8) (i32.const 4) (i32.const 0)))
    (i32.load (i32.const 8)))
  (func (export "end") (call $exit (i32.const 1))))"""


class Sealed:
    """An instance of a sealed module, without any import."""

    def __init__(self, wasm: bytes) -> None:
        engine = Engine()
        self.module = Module(engine, wasm)
        self.store = Store(engine)
        self.exports = Instance(self.store, self.module, []).exports(self.store)

    def call(self, name: str, *arguments: int) -> int | None:
        func = self.exports[name]
        assert isinstance(func, Func)
        return func(self.store, *arguments)  # type: ignore[no-any-return] # wasmtime's own type

    def pages(self) -> int:
        memory = self.exports["memory"]
        assert isinstance(memory, Memory)
        return memory.data_len(self.store) // PAGE_BYTES


def of(text: str) -> bytes:
    return bytes(wat2wasm(text))


def test_a_sealed_module_imports_nothing_and_begins_by_itself() -> None:
    sealed = Sealed(seal(of(REACTOR), 2))
    assert len(sealed.module.imports) == 0
    assert sealed.call("begun") == 1
    assert sealed.call("random") == Sealed(seal(of(REACTOR), 2)).call("random") != 0
    with pytest.raises(Trap):
        sealed.call("end")


def test_its_memory_is_there_at_once_and_never_grows() -> None:
    sealed = Sealed(seal(of(REACTOR), 2))
    assert sealed.pages() == 32
    assert sealed.call("grow", 0) == 32
    assert sealed.call("grow", 1) == -1
    unsealed = Sealed(
        of(
            '(module (memory (export "memory") 1) '
            '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))'
        )
    )
    assert unsealed.call("grow", 1) == 1


def test_sealing_twice_changes_nothing_more() -> None:
    once = seal(of(REACTOR.replace("_initialize", "start_by_itself")), 2)
    assert seal(once, 2) == once


def test_names_and_versions_are_dropped_and_other_sections_kept() -> None:
    text = REACTOR[:-1] + '(@custom "producers" "x") (@custom "edge.parameters" "{}"))'
    sealed = Module(Engine(), seal(of(text), 2)).serialize()
    assert sealed
    wasm = seal(of(text), 2)
    assert b"producers" not in wasm
    assert b"edge.parameters" in wasm
    assert b"begun" in wasm  # an export


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (REACTOR.replace("random_get", "random_set"), r"imports wasi_\w+\.random_set"),
        ('(module (import "env" "abort" (func)) (memory 1))', r"imports env\.abort"),
        ('(module (import "env" "memory" (memory 1)) (func))', r"imports env\.memory"),
        ("(module)", "no memory of its own"),
        ("(module (memory 1) (memory 1))", "not the only one"),
        ("(module (memory 1 2 shared))", "shared"),
        ("(module (memory i64 1))", "64-bit"),
        ("(module (memory 65))", r"needs 4\.0625 MiB of memory to begin with; memory_mib is 4"),
        (
            '(module (memory 1) (func $f) (start $f) (func (export "_initialize")))',
            "a start function beside _initialize",
        ),
    ],
)  # fmt: skip
def test_what_is_no_guest_even_when_sealed_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(IncompatibleError, match=problem):
        seal(of(text), 4)


def test_a_module_cut_anywhere_is_refused_or_gives_a_module_that_wasmtime_refuses() -> None:
    whole = seal(of(REACTOR), 2)  # it ends with its code
    engine = Engine()
    for end in range(len(whole)):
        try:
            cut = seal(whole[:end], 2)
        except IncompatibleError:
            continue
        with pytest.raises(WasmtimeError):
            Module(engine, cut)


def test_the_command_writes_a_guest_and_names_what_cannot_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = tmp_path / "reactor.wasm", tmp_path / "guest.wasm"
    file.write_bytes(of(REACTOR))
    assert main(["guest", "seal", str(file), str(target), "--memory-mib", "2"]) == 0
    assert target.read_bytes() == seal(of(REACTOR), 2)
    file.write_bytes(of('(module (import "env" "abort" (func)) (memory 1))'))
    target.unlink()
    assert main(["guest", "seal", str(file), str(target), "--memory-mib", "2"]) == 1
    assert "cannot be sealed: it imports env.abort" in capsys.readouterr().err
    assert not target.exists()
