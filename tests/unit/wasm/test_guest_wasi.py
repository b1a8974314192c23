"""WASI for guests that need it: it computes, says the same each time, and grants nothing."""

import struct
from collections.abc import Callable

import pytest
from guest_wat import guest
from wasmtime import Engine, Func, Instance, Memory, Module, Store, Trap, wat2wasm

from edge.errors import IncompatibleError
from edge.wasm import wasi
from edge.wasm.engine import GuestModule
from edge.wasm.guest import Guest

pytest_plugins = ["guest_fixtures"]

EBADF, EINVAL = 8, 28
PREVIEW_1 = "wasi_snapshot_preview1"

TYPES = {b"\x7f": "i32", b"\x7e": "i64"}


class Program:
    """A module that imports every function of the shim and exports it again."""

    def __init__(self) -> None:
        imports, exports = [], []
        for name, ((parameters, results), _) in wasi.bodies().items():
            kind = "".join(f"(param {TYPES[bytes([p])]})" for p in parameters)
            kind += "".join(f"(result {TYPES[bytes([r])]})" for r in results)
            imports.append(f'(import "{PREVIEW_1}" "{name}" (func ${name} {kind}))')
            exports.append(f'(export "{name}" (func ${name}))')
        text = f'(module {" ".join(imports + exports)} (memory (export "memory") 1 1))'
        engine = Engine()
        linked = Module(engine, wasi.link(bytes(wat2wasm(text))))
        assert len(linked.imports) == 0
        self.store = Store(engine)
        self._exports = Instance(self.store, linked, []).exports(self.store)
        memory = self._exports["memory"]
        assert isinstance(memory, Memory)
        self.memory = memory

    def call(self, name: str, *arguments: int) -> int:
        func = self._exports[name]
        assert isinstance(func, Func)
        return int(func(self.store, *arguments))

    def read(self, at: int, count: int) -> bytes:
        return bytes(self.memory.read(self.store, at, at + count))

    def write(self, at: int, content: bytes) -> None:
        self.memory.write(self.store, content, at)


@pytest.fixture
def program() -> Program:
    return Program()


def test_every_function_of_preview_1_stands_for_its_import(program: Program) -> None:
    assert len(wasi.FUNCTIONS) == 46  # https://github.com/WebAssembly/WASI, preview1, 2020-12
    assert program.call("sched_yield") == 0


def test_clock_stands_still_and_random_bytes_repeat(program: Program) -> None:
    for clock in range(4):
        assert program.call("clock_time_get", clock, 0, 8) == 0
        assert struct.unpack("<Q", program.read(8, 8))[0] == 946_684_800 * 10**9
    assert program.call("clock_time_get", 4, 0, 8) == EINVAL
    assert program.call("random_get", 100, 33) == 0
    first = program.read(100, 34)
    assert program.call("random_get", 200, 33) == 0
    assert program.read(200, 34) == first
    assert len(set(first[:33])) > 16
    assert first[33] == 0


def test_there_are_no_arguments_and_no_environment(program: Program) -> None:
    for name in ("args", "environ"):
        program.write(8, b"\xff" * 8)
        assert program.call(f"{name}_sizes_get", 8, 12) == 0
        assert program.read(8, 8) == bytes(8)
        assert program.call(f"{name}_get", 8, 12) == 0


def test_output_is_dropped_but_counted_and_input_is_empty(program: Program) -> None:
    program.write(0, struct.pack("<IIII", 100, 7, 200, 30))
    for stream in (1, 2):
        assert program.call("fd_write", stream, 0, 2, 40) == 0
        assert program.read(40, 4) == struct.pack("<I", 37)
    assert program.call("fd_write", 0, 0, 2, 40) == EBADF
    assert program.call("fd_write", 3, 0, 2, 40) == EBADF
    assert program.call("fd_read", 0, 0, 2, 40) == 0
    assert program.read(40, 4) == bytes(4)
    assert program.call("fd_read", 1, 0, 2, 40) == EBADF


def test_streams_are_character_devices_and_nothing_else_is_open(program: Program) -> None:
    assert program.call("fd_fdstat_get", 1, 64) == 0
    assert program.read(64, 24) == struct.pack("<BxHxxxxQQ", 2, 0, 64, 0)
    assert program.call("fd_fdstat_get", 0, 64) == 0
    assert program.read(64, 24) == struct.pack("<BxHxxxxQQ", 2, 0, 2, 0)
    assert program.call("fd_fdstat_get", 3, 64) == EBADF
    assert program.call("fd_prestat_get", 3, 64) == EBADF
    assert program.call("path_open", 3, 0, 100, 1, 0, 0, 0, 0, 64) == EBADF
    assert program.call("sock_accept", 3, 0, 64) == EBADF


def test_what_is_waited_for_has_come(program: Program) -> None:
    program.write(0, struct.pack("<QB39x", 77, 0) + struct.pack("<QB39x", 78, 1))
    assert program.call("poll_oneoff", 0, 200, 2, 400) == 0
    assert program.read(400, 4) == struct.pack("<I", 2)
    assert program.read(200, 32) == struct.pack("<QHB21x", 77, 0, 0)
    assert program.read(232, 32) == struct.pack("<QHB21x", 78, 0, 1)
    assert program.call("poll_oneoff", 0, 200, 0, 400) == EINVAL


def test_exit_and_addresses_outside_trap(program: Program) -> None:
    for name, arguments in (
        ("proc_exit", (0,)),
        ("random_get", (65_530, 7)),
        ("clock_time_get", (0, 0, -4)),
        ("fd_write", (1, 65_532, 1, 0)),
    ):
        with pytest.raises(Trap):
            program.call(name, *arguments)


# Through the host

CLOCK = f'(import "{PREVIEW_1}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))'
LATE = """
(func $own (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
(table 1 funcref) (elem (i32.const 0) $own)
(func (export "decide") (param $call i32) (result i32)
  (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 32)))
  (call_indirect (param i32) (result i32) (i32.wrap_i64 (i64.load (i32.const 32)))
    (i32.const 0)))
"""


def importing(*imports: str, **pieces: str) -> bytes:
    return bytes(wat2wasm(f"(module {' '.join(imports)} {guest(**pieces)[8:]}"))


def test_guest_that_imports_wasi_runs_without_imports(instance: Callable[..., Guest]) -> None:
    made = instance(importing(CLOCK, decide=LATE))
    expected = (946_684_800 * 10**9 + 1) & 0xFFFF_FFFF
    assert made.call("decide") & 0xFFFF_FFFF == expected
    assert made.call("decide") & 0xFFFF_FFFF == expected


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ('(import "env" "now" (func))', "it imports env.now"),
        (f'(import "{PREVIEW_1}" "fd_fly" (func))', f"it imports {PREVIEW_1}.fd_fly"),
        ('(import "wasi_unstable" "args_get" (func))', "it imports wasi_unstable.args_get"),
        (f'(import "{PREVIEW_1}" "sched_yield" (func))', "with another type than preview 1"),
    ],
)
def test_foreign_import_beside_wasi_is_named(
    load: Callable[[str | bytes], GuestModule], wish: str, sentence: str
) -> None:
    with pytest.raises(IncompatibleError, match=sentence):
        load(importing(CLOCK, wish, decide=LATE))


def test_module_without_imports_stays_as_it_is() -> None:
    whole = importing()
    assert wasi.link(whole) == whole
    for cut in range(0, len(whole), 97):
        assert wasi.link(whole[:cut]) == whole[:cut]
