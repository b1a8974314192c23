"""Script components of inline WAT: one that does its work, and what hostile ones are made of."""

from typing import Final

import wasmtime

ANSWER: Final = '{"verdict":"pass","score":0.5,"reason":"ok"}'
_AT: Final = 1024
_ROOM: Final = 256
"""Where results lie: a discriminant at 0, address and length at 4 and 8."""

_OPTIONS: Final = '(memory (core memory $i "mem")) (realloc (core func $i "realloc"))'
STRINGS: Final = "(param i32 i32) (result i32)"
OK_EMPTY: Final = f"(i32.store8 (i32.const {_ROOM}) (i32.const 0)) (i32.const {_ROOM})"


def text(length: int, *, at: int = _AT, failed: bool = False) -> str:
    """Code that answers a string as ok, or as an error."""
    return (
        f"(i32.store8 (i32.const {_ROOM}) (i32.const {int(failed)})) "
        f"(i32.store offset=4 (i32.const {_ROOM}) (i32.const {at})) "
        f"(i32.store offset=8 (i32.const {_ROOM}) (i32.const {length})) (i32.const {_ROOM})"
    )


def escaped(content: bytes) -> str:
    """Bytes as WAT has them between quotes."""
    return "".join(f"\\{byte:02x}" for byte in content)


STATE: Final = f"""
  (func $save (result string)
    (canon lift (core func $i "save") {_OPTIONS}))
  (func $restore (param "text" string) (result (result (error string)))
    (canon lift (core func $i "restore") {_OPTIONS}))
  (instance $state (export "save" (func $save)) (export "restore" (func $restore)))
  (export "edge:script/state@1.0.0" (instance $state))"""
COUNTED: Final = '{"verdict":"pass","score":0.0,"reason":"ok"}'
_DIGIT: Final = _AT + COUNTED.index("0,")
COUNTING: Final = f"""
  (global $count (mut i32) (i32.const 0))
  (func (export "save") (result i32)
    (i32.store8 (i32.const 512) (i32.add (global.get $count) (i32.const 48)))
    (i32.store (i32.const 256) (i32.const 512)) (i32.store (i32.const 260) (i32.const 1))
    (i32.const 256))
  (func (export "restore") {STRINGS}
    (global.set $count (i32.sub (i32.load8_u (local.get 0)) (i32.const 48)))
    (i32.store8 (i32.const {_ROOM}) (i32.const 0)) (i32.const {_ROOM}))"""
COUNTING_DECIDE: Final = f"""
  (block $read (loop $next
    (br_if $read (i32.lt_s (local.get 1) (i32.const 2)))
    (if (i32.eq (i32.load16_u (local.get 0)) (i32.const 0x3939)) (then unreachable))
    (local.set 0 (i32.add (local.get 0) (i32.const 1)))
    (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
    (br $next)))
  (global.set $count (i32.add (global.get $count) (i32.const 1)))
  (i32.store8 (i32.const {_DIGIT}) (i32.add (global.get $count) (i32.const 48)))
  {text(len(COUNTED))}"""


def counting_script() -> bytes:
    """Scores a tenth more with each frame, which is its state; traps where its record says 99."""
    return script(COUNTED, decide=COUNTING_DECIDE, core=COUNTING, state=STATE)


def script(
    answer: str | bytes = ANSWER,
    *,
    configure: str = OK_EMPTY,
    decide: str = "",
    memory: str = '(memory (export "mem") 2)',
    core: str = "",
    imports: str = "",
    interface: str = "edge:script/policy@1.0.0",
    state: str = "",
    decide_type: str = '(param "record" string) (result (result string (error string)))',
) -> bytes:
    """A component that answers `answer`, with the given pieces in place of the good ones."""
    content = answer if isinstance(answer, bytes) else answer.encode()
    # Arguments are laid behind 64 KiB; what a call was given may be overwritten by the next.
    return bytes(
        wasmtime.wat2wasm(f"""(component {imports}
  (core module $m {memory}
    (data (i32.const {_AT}) "{escaped(content)}")
    {core}
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
    (func (export "configure") {STRINGS} {configure})
    (func (export "decide") {STRINGS} {decide or text(len(content))}))
  (core instance $i (instantiate $m))
  (func $configure (param "document" string) (result (result (error string)))
    (canon lift (core func $i "configure") {_OPTIONS}))
  (func $decide {decide_type}
    (canon lift (core func $i "decide") {_OPTIONS}))
  (instance $policy (export "configure" (func $configure)) (export "decide" (func $decide)))
  (export "{interface}" (instance $policy))
  {state})""")
    )
