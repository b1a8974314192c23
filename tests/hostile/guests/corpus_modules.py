"""Files that are no guests, and modules that are not what a guest may be: refused unrun."""

import random
from typing import Final

from guest_wat import assemble, guest
from hostile_case import Case, exported, text

_SEED: Final = 20261122


def _share(share: float) -> Case:
    def cut() -> bytes:
        whole = assemble(guest())
        return whole[: int(len(whole) * share)]

    return Case(f"truncated to {share:.0%}", cut, "refused", r"guest .*: ")


def _noise(seed: int) -> Case:
    def make() -> bytes:
        noise = random.Random(seed)
        return b"\0asm\1\0\0\0" + noise.randbytes(noise.randrange(1, 4000))

    return Case(f"random bytes {seed}", make, "refused", r"guest .*: ")


def _section(number: int, content: bytes) -> bytes:
    """A module of one section whose size is written in five bytes of LEB128."""
    size = len(content)
    leb = bytes([(size >> shift & 0x7F) | 0x80 for shift in (0, 7, 14, 21)]) + bytes([size >> 28])
    return b"\0asm\1\0\0\0" + bytes([number]) + leb + content


NO_MODULES: Final = (
    Case("empty file", lambda: b"", "refused", "not a Wasm module"),
    Case("text instead of binary", lambda: guest().encode(), "refused", "assembled first"),
    Case("component", lambda: b"\0asm\x0d\0\1\0", "refused", r"guest .*: "),
    Case("version 2", lambda: b"\0asm\2\0\0\0", "refused", r"guest .*: "),
    Case("an ELF file", lambda: b"\x7fELF" + bytes(100), "refused", "not a Wasm module"),
    Case("17 MiB", lambda: b"\0asm" + bytes(17 << 20), "refused", "larger than 16 MiB"),
    Case("nothing in it", lambda: b"\0asm\1\0\0\0", "refused", "no memory named"),
    _share(0.1),
    _share(0.5),
    _share(0.99),
    *(_noise(_SEED + n) for n in range(3)),
    Case(
        "4 billion functions claimed",
        lambda: _section(3, b"\xff\xff\xff\xff\x0f"),
        "refused",
        r"guest .*: ",
    ),
    Case(
        "4 billion types claimed",
        lambda: _section(1, b"\xff\xff\xff\xff\x0f"),
        "refused",
        r"guest .*: ",
    ),
    Case(
        "section longer than the file",
        lambda: b"\0asm\1\0\0\0\x0a\xff\xff\xff\xff\x07",
        "refused",
        r"guest .*: ",
    ),
)

_SHARED: Final = '(memory (export "memory") 64 64 shared)'
FEATURES: Final = tuple(
    text(f"feature off: {name}", wat, "refused", r"guest .*: ")
    for name, wat in (
        ("memory64", guest(memory='(memory (export "memory") i64 64 64)')),
        ("two memories", guest(memory='(memory (export "memory") 64 64) (memory 1 1)')),
        ("shared memory", guest(memory=_SHARED)),
        ("atomics", guest(extra="(func (drop (i32.atomic.load (i32.const 0))))")),
        (
            "relaxed SIMD",
            guest(
                extra="(func (param v128 v128) (result v128)"
                " local.get 0 local.get 1 i8x16.relaxed_swizzle)"
            ),
        ),
        ("tail calls", guest(extra="(func $f return_call $f)")),
        ("exceptions", guest(extra="(tag $t) (func (throw $t))")),
        ("garbage collection", guest(extra="(type $s (struct)) (func (drop (struct.new $s)))")),
        (
            "function references",
            guest(extra="(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))"),
        ),
        (
            "wide arithmetic",
            guest(
                extra="(func (param i64 i64 i64 i64) (result i64 i64)"
                " local.get 0 local.get 1 local.get 2 local.get 3 i64.add128)"
            ),
        ),
        ("table64", guest(extra="(table i64 1 funcref)")),
    )
)


def _importing(imports: str, **pieces: str) -> str:
    return f"(module {imports} {guest(**pieces)[8:]}"


_EVERYTHING: Final = """
  (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32)
    (result i32)))
  (import "env" "system" (func (param i32) (result i32)))
  (import "env" "memory" (memory 1 1))
  (import "env" "__indirect_function_table" (table 1 funcref))
  (import "env" "__stack_pointer" (global (mut i32)))
"""
IMPORTS: Final = tuple(
    text(f"imports {name}", wat, "refused", "import")
    for name, wat in (
        ("a function", _importing('(import "env" "system" (func (param i32)))')),
        ("a socket", _importing('(import "wasi_snapshot_preview1" "sock_open" (func))')),
        (
            "a WASI function under a false type",
            _importing('(import "wasi_snapshot_preview1" "fd_write" (func (param f64)))'),
        ),
        ("its memory", _importing('(import "env" "memory" (memory 64 64))', memory="")),
        ("a global", _importing('(import "a" "g" (global i32))')),
        ("a table", _importing('(import "a" "t" (table 1 funcref))')),
        ("everything", _importing(_EVERYTHING, memory="")),
        (
            "a thousand functions",
            _importing("".join(f'(import "m{n}" "f" (func))' for n in range(1000))),
        ),
    )
)

_OTHER: Final = '(memory $m 64 64) (export "memory" (memory $m)) (export "m" (memory $m))'
SHAPES: Final = tuple(
    text(name, wat, "refused", says)
    for name, wat, says in (
        ("memory not exported", guest(memory="(memory 64 64)"), 'no memory named "memory"'),
        ("memory exported twice", guest(memory=_OTHER), "more than one memory"),
        ("memory that may grow", guest(memory='(memory (export "memory") 64 65)'), "maximum 65"),
        ("memory without a maximum", guest(memory='(memory (export "memory") 64)'), "None"),
        ("empty memory", guest(memory='(memory (export "memory") 0 0)'), "empty|segment|bounds"),
        (
            "4 GiB of memory",
            guest(memory='(memory (export "memory") 65536 65536)'),
            "8 MiB are granted",
        ),
        (
            "a function called memory",
            guest(memory=f"(memory $m 64 64) {exported('memory', '(i32.const 1)')}"),
            'no memory named "memory"',
        ),
        ("no edge_abi", guest(abi=""), "does not export edge_abi"),
        ("no edge_alloc", guest(alloc=""), "does not export edge_alloc"),
        ("no edge_configure", guest(configure="", error=""), "does not export edge_configure"),
        ("no role at all", guest(preprocess="", postprocess="", decide=""), "serves no role"),
        ("not the roles it was deployed for", guest(preprocess=""), "exports only"),
        (
            "decide takes an i64",
            guest(decide='(func (export "decide") (param i64) (result i32) (i32.const 0))'),
            r"decide has type \(i64\) -> i32",
        ),
        (
            "decide takes a float",
            guest(decide='(func (export "decide") (param f32) (result i32) (i32.const 0))'),
            r"decide has type \(f32\)",
        ),
        ("decide returns nothing", guest(decide='(func (export "decide") (param i32))'), "decide"),
        (
            "decide takes nine parameters",
            guest(decide=exported("decide", "(i32.const 0)", 9)),
            "decide has type",
        ),
        (
            "edge_alloc returns a pair",
            guest(alloc='(func (export "edge_alloc") (param i32 i32) (result i32 i32) '
                  "(i32.const 64) (i32.const 64))"),
            "edge_alloc has type",
        ),
        (
            "decide is a global",
            guest(decide='(global (export "decide") i32 (i32.const 1))'),
            "decide is not a function",
        ),
        (
            "decide is a table",
            guest(decide='(table (export "decide") 1 funcref)'),
            "decide is not a function",
        ),
        (
            "300 exports",
            guest(extra="".join(f'(export "e{n}" (func $alloc))' for n in range(300))),
            "exports; at most 256",
        ),
    )
)  # fmt: skip

CASES: Final = (*NO_MODULES, *FEATURES, *IMPORTS, *SHAPES)
