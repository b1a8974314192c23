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


def script(
    answer: str | bytes = ANSWER,
    *,
    configure: str = OK_EMPTY,
    decide: str = "",
    memory: str = '(memory (export "mem") 2)',
    core: str = "",
    imports: str = "",
    interface: str = "edge:script/policy@1.0.0",
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
  (export "{interface}" (instance $policy)))""")
    )
