"""Guests of inline WAT: one that does its work, and the pieces that hostile ones are made of.

`guest(...)` gives a whole, well-behaved guest for all three roles; each argument replaces one
piece of it, so a hostile guest differs from the good one in exactly what its test is about.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import wasmtime

MEMORY = '(memory (export "memory") 64 64)'

_GLOBALS = "(global $rejects (mut i32) (i32.const 0))"

ABI = '(func (export "edge_abi") (result i32) (i32.const 0x10000))'

# A bump allocator: aligned, never freed, 0 when the memory is used up.
ALLOC = """
(global $top (mut i32) (i32.const 4096))
(func $alloc (export "edge_alloc") (param $bytes i32) (param $alignment i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and
    (i32.add (global.get $top) (i32.sub (local.get $alignment) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get $alignment))))
  (if (i32.gt_u (i32.add (local.get $at) (local.get $bytes))
                (i32.mul (memory.size) (i32.const 65536)))
    (then (return (i32.const 0))))
  (global.set $top (i32.add (local.get $at) (local.get $bytes)))
  (local.get $at))
"""

# Keeps where its parameters lie; they must start with an opening brace.
CONFIGURE = """
(global $parameters (mut i32) (i32.const 0))
(func (export "edge_configure") (param i32 i32) (result i32)
  (global.set $parameters (local.get 0))
  (if (result i32) (i32.eq (i32.load8_u (local.get 0)) (i32.const 0x7b))
    (then (i32.const 0)) (else (i32.const -1))))
"""

# Input 0 becomes the frame's bytes as float32 / 255; the transform is frame size / 4.
# PreprocessCall: frame at 0, reference at 24, inputs at 48, count 52, transform at 56.
PREPROCESS = """
(func (export "preprocess") (param $call i32) (result i32)
  (local $source i32) (local $sink i32) (local $left i32)
  (local.set $source (i32.load (local.get $call)))
  (local.set $sink (i32.load (i32.load offset=48 (local.get $call))))
  (local.set $left (i32.div_u
    (i32.load offset=12 (i32.load offset=48 (local.get $call))) (i32.const 4)))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $left)))
    (f32.store (local.get $sink)
      (f32.div (f32.convert_i32_u (i32.load8_u (local.get $source))) (f32.const 255)))
    (local.set $source (i32.add (local.get $source) (i32.const 1)))
    (local.set $sink (i32.add (local.get $sink) (i32.const 4)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br $next)))
  (f32.store offset=56 (local.get $call)
    (f32.div (f32.convert_i32_u (i32.load offset=4 (local.get $call))) (f32.const 4)))
  (f32.store offset=60 (local.get $call)
    (f32.div (f32.convert_i32_u (i32.load offset=8 (local.get $call))) (f32.const 4)))
  (f32.store offset=64 (local.get $call) (f32.const 0))
  (f32.store offset=68 (local.get $call) (f32.const 0))
  (i32.const 0))
"""

# Output 0 is [n, 6] float32: box, score, label. Rows with a score above 0 become defects.
# PostprocessCall: outputs at 8, transform at 16, defects at 32, capacity at 36.
POSTPROCESS = """
(func (export "postprocess") (param $call i32) (result i32)
  (local $row i32) (local $defect i32) (local $left i32) (local $count i32)
  (local.set $row (i32.load (i32.load offset=8 (local.get $call))))
  (local.set $left (i32.load offset=16 (i32.load offset=8 (local.get $call))))
  (local.set $defect (i32.load offset=32 (local.get $call)))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $left)))
    (br_if $done (i32.eq (local.get $count) (i32.load offset=36 (local.get $call))))
    (if (f32.gt (f32.load offset=16 (local.get $row)) (f32.const 0)) (then
      (v128.store (local.get $defect) (f32x4.mul (v128.load (local.get $row))
        (f32x4.splat (f32.load offset=16 (local.get $call)))))
      (f32.store offset=16 (local.get $defect) (f32.load offset=16 (local.get $row)))
      (i32.store offset=20 (local.get $defect)
        (i32.trunc_f32_s (f32.load offset=20 (local.get $row))))
      (local.set $defect (i32.add (local.get $defect) (i32.const 24)))
      (local.set $count (i32.add (local.get $count) (i32.const 1)))))
    (local.set $row (i32.add (local.get $row) (i32.const 24)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br $next)))
  (local.get $count))
"""

# Rejects where there is a defect, with its score; otherwise passes. Counts rejects in a row: that
# is its state. Two rejects in a row, or a first signal above 9, ask for action 0 for 250 ms.
# DecideCall: defects at 24, count 28, signals 32, verdict 40, score 44, reason 48, actions 80, 88.
DECIDE = """
(func (export "decide") (param $call i32) (result i32)
  (if (i32.eqz (i32.load offset=28 (local.get $call))) (then
    (global.set $rejects (i32.const 0))
    (i32.store offset=40 (local.get $call) (i32.const 0))
    (f32.store offset=44 (local.get $call) (f32.const 0))
    (i64.store offset=48 (local.get $call) (i64.const 0x6b6f)))
  (else
    (global.set $rejects (i32.add (global.get $rejects) (i32.const 1)))
    (i32.store offset=40 (local.get $call) (i32.const 1))
    (f32.store offset=44 (local.get $call)
      (f32.load offset=16 (i32.load offset=24 (local.get $call))))
    (i64.store offset=48 (local.get $call) (i64.const 0x746365666564))))
  (if (i32.or (i32.ge_u (global.get $rejects) (i32.const 2))
              (f64.gt (f64.load (i32.load offset=32 (local.get $call))) (f64.const 9))) (then
    (i32.store offset=80 (local.get $call) (i32.const 1))
    (i32.store offset=88 (local.get $call) (i32.const 0))
    (i32.store offset=92 (local.get $call) (i32.const 250))
    (f64.store offset=96 (local.get $call) (f64.convert_i32_u (global.get $rejects)))))
  (i32.const 0))
"""

STATE = """
(func (export "edge_state_save") (param i32 i32) (result i32)
  (i32.store (local.get 0) (global.get $rejects)) (i32.const 4))
(func (export "edge_state_restore") (param i32 i32) (result i32)
  (if (result i32) (i32.eq (local.get 1) (i32.const 4))
    (then (global.set $rejects (i32.load (local.get 0))) (i32.const 0))
    (else (i32.const -1))))
"""

ERROR = """
(data (i32.const 16) "threshold\\1b[31m must lie in 0..1\\00")
(func (export "edge_error") (result i32) (i32.const 16))
"""


@dataclass(frozen=True)
class Guest:
    """A guest's file and its digest."""

    path: Path
    sha256: str


def guest(
    *,
    memory: str = MEMORY,
    abi: str = ABI,
    alloc: str = ALLOC,
    configure: str = CONFIGURE,
    preprocess: str = PREPROCESS,
    postprocess: str = POSTPROCESS,
    decide: str = DECIDE,
    state: str = STATE,
    error: str = ERROR,
    extra: str = "",
) -> str:
    """The text of a guest for all roles, with the given pieces in place of the good ones."""
    pieces = (
        memory,
        _GLOBALS,
        abi,
        alloc,
        configure,
        preprocess,
        postprocess,
        decide,
        state,
        error,
        extra,
    )
    return f"(module {' '.join(pieces)})"


def assemble(text: str) -> bytes:
    """The binary of a module's text."""
    return bytes(wasmtime.wat2wasm(text))


@dataclass
class GuestFiles:
    """Writes guests into a folder, each under a name of its own."""

    folder: Path
    _count: int = field(default=0)

    def write(self, module: str | bytes, name: str = "") -> Guest:
        """Write a guest given as text or as bytes."""
        content = assemble(module) if isinstance(module, str) else module
        self._count += 1
        path = self.folder / (name or f"guest{self._count}.wasm")
        path.write_bytes(content)
        return Guest(path, hashlib.sha256(content).hexdigest())
