"""WASI preview 1 for guests whose language cannot do without: deterministic, and denying.

Nothing of it runs in Python. The functions are Wasm themselves: before a module is compiled, its
imports are replaced by the bodies below (`link`), so the compiled guest imports nothing, like any
other. Function indices stay as they were, because imports come first among them and so do the
bodies that take their place.

What a guest finds: no arguments, no environment, no files and folders; a clock that stands still
at 2000-01-01T00:00:00Z; "random" bytes that are always the same; sleeping takes no time; standard
input is empty; what goes to standard output and error is counted and dropped; `proc_exit` traps.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from wasmtime import wat2wasm

from edge.errors import IncompatibleError
from edge.wasm import binary

MODULE: Final = "wasi_snapshot_preview1"

_FUNCTION: Final = 0
"""Kind of an import."""

_EBADF, _EINVAL, _ESPIPE = 8, 28, 70
_CLOCK_NS: Final = 946_684_800 * 10**9
"""2000-01-01. Not 0: Go refuses to start with a clock that says 0."""

_WAT: Final[dict[str, str]] = {
    # Arguments and environment: none.
    "args_sizes_get": "(param i32 i32) (result i32) NOTHING_AT_0_AND_1",
    "args_get": "(param i32 i32) (result i32) i32.const 0",
    "environ_sizes_get": "(param i32 i32) (result i32) NOTHING_AT_0_AND_1",
    "environ_get": "(param i32 i32) (result i32) i32.const 0",
    # Clocks stand still; a nanosecond is their resolution. There are four (0..3).
    "clock_res_get": """(param i32 i32) (result i32)
        (if (i32.gt_u (local.get 0) (i32.const 3)) (then (return (i32.const EINVAL))))
        (i64.store (local.get 1) (i64.const 1))
        i32.const 0""",
    "clock_time_get": """(param i32 i64 i32) (result i32)
        (if (i32.gt_u (local.get 0) (i32.const 3)) (then (return (i32.const EINVAL))))
        (i64.store (local.get 2) (i64.const CLOCK))
        i32.const 0""",
    # A multiplicative sequence from the same start at each call; seeds hash tables, no secrets.
    "random_get": """(param i32 i32) (result i32) (local i32 i32)
        (local.set 3 (i32.const 0x9E3779B9))
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get 2) (local.get 1)))
            (local.set 3 (i32.add (i32.mul (local.get 3) (i32.const 1664525))
                                  (i32.const 1013904223)))
            (i32.store8 (i32.add (local.get 0) (local.get 2))
                        (i32.shr_u (local.get 3) (i32.const 24)))
            (local.set 2 (i32.add (local.get 2) (i32.const 1)))
            (br $next)))
        i32.const 0""",
    "sched_yield": "(result i32) i32.const 0",
    "proc_exit": "(param i32) unreachable",
    "proc_raise": "(param i32) (result i32) i32.const EINVAL",
    # Whatever is waited for has come: subscriptions are 48 bytes, events 32.
    "poll_oneoff": """(param i32 i32 i32 i32) (result i32) (local i32)
        (if (i32.eqz (local.get 2)) (then (return (i32.const EINVAL))))
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get 4) (local.get 2)))
            (memory.fill (local.get 1) (i32.const 0) (i32.const 32))
            (i64.store (local.get 1) (i64.load (local.get 0)))
            (i32.store8 offset=10 (local.get 1) (i32.load8_u offset=8 (local.get 0)))
            (local.set 0 (i32.add (local.get 0) (i32.const 48)))
            (local.set 1 (i32.add (local.get 1) (i32.const 32)))
            (local.set 4 (i32.add (local.get 4) (i32.const 1)))
            (br $next)))
        (i32.store (local.get 3) (local.get 2))
        i32.const 0""",
    # Three streams and no more: 0, 1 and 2 are character devices, of which 0 is at its end.
    "fd_fdstat_get": """(param i32 i32) (result i32)
        NO_STREAM
        (memory.fill (local.get 1) (i32.const 0) (i32.const 24))
        (i32.store8 (local.get 1) (i32.const 2))
        (i64.store offset=8 (local.get 1)
            (select (i64.const 64) (i64.const 2) (local.get 0)))
        i32.const 0""",
    "fd_filestat_get": """(param i32 i32) (result i32)
        NO_STREAM
        (memory.fill (local.get 1) (i32.const 0) (i32.const 64))
        (i32.store8 offset=16 (local.get 1) (i32.const 2))
        i32.const 0""",
    "fd_fdstat_set_flags": "(param i32 i32) (result i32) NO_STREAM i32.const 0",
    "fd_close": "(param i32) (result i32) NO_STREAM i32.const 0",
    "fd_sync": "(param i32) (result i32) NO_STREAM i32.const 0",
    "fd_datasync": "(param i32) (result i32) NO_STREAM i32.const 0",
    "fd_seek": "(param i32 i64 i32 i32) (result i32) NO_STREAM i32.const ESPIPE",
    "fd_tell": "(param i32 i32) (result i32) NO_STREAM i32.const ESPIPE",
    "fd_read": """(param i32 i32 i32 i32) (result i32)
        (if (local.get 0) (then (return (i32.const EBADF))))
        (i32.store (local.get 3) (i32.const 0))
        i32.const 0""",
    # Says that all was written: the sum of the lengths, at 4 of each 8 bytes.
    "fd_write": """(param i32 i32 i32 i32) (result i32) (local i32)
        (if (i32.gt_u (i32.sub (local.get 0) (i32.const 1)) (i32.const 1))
            (then (return (i32.const EBADF))))
        (block $done (loop $next
            (br_if $done (i32.eqz (local.get 2)))
            (local.set 4 (i32.add (local.get 4) (i32.load offset=4 (local.get 1))))
            (local.set 1 (i32.add (local.get 1) (i32.const 8)))
            (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
            (br $next)))
        (i32.store (local.get 3) (local.get 4))
        i32.const 0""",
    # No descriptor names a file or a folder.
    "fd_prestat_get": "(param i32 i32) (result i32) i32.const EBADF",
    "fd_prestat_dir_name": "(param i32 i32 i32) (result i32) i32.const EBADF",
    "fd_advise": "(param i32 i64 i64 i32) (result i32) i32.const EBADF",
    "fd_allocate": "(param i32 i64 i64) (result i32) i32.const EBADF",
    "fd_fdstat_set_rights": "(param i32 i64 i64) (result i32) i32.const EBADF",
    "fd_filestat_set_size": "(param i32 i64) (result i32) i32.const EBADF",
    "fd_filestat_set_times": "(param i32 i64 i64 i32) (result i32) i32.const EBADF",
    "fd_pread": "(param i32 i32 i32 i64 i32) (result i32) i32.const EBADF",
    "fd_pwrite": "(param i32 i32 i32 i64 i32) (result i32) i32.const EBADF",
    "fd_readdir": "(param i32 i32 i32 i64 i32) (result i32) i32.const EBADF",
    "fd_renumber": "(param i32 i32) (result i32) i32.const EBADF",
    "path_create_directory": "(param i32 i32 i32) (result i32) i32.const EBADF",
    "path_filestat_get": "(param i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "path_filestat_set_times": """(param i32 i32 i32 i32 i64 i64 i32) (result i32)
        i32.const EBADF""",
    "path_link": "(param i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) i32.const EBADF",
    "path_readlink": "(param i32 i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "path_remove_directory": "(param i32 i32 i32) (result i32) i32.const EBADF",
    "path_rename": "(param i32 i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "path_symlink": "(param i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "path_unlink_file": "(param i32 i32 i32) (result i32) i32.const EBADF",
    "sock_accept": "(param i32 i32 i32) (result i32) i32.const EBADF",
    "sock_recv": "(param i32 i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "sock_send": "(param i32 i32 i32 i32 i32) (result i32) i32.const EBADF",
    "sock_shutdown": "(param i32 i32) (result i32) i32.const EBADF",
}
_WORDS: Final = {
    "NO_STREAM": """(if (i32.gt_u (local.get 0) (i32.const 2))
        (then (return (i32.const EBADF))))""",
    "NOTHING_AT_0_AND_1": """(i32.store (local.get 0) (i32.const 0))
        (i32.store (local.get 1) (i32.const 0))
        i32.const 0""",
    "EBADF": str(_EBADF),
    "EINVAL": str(_EINVAL),
    "ESPIPE": str(_ESPIPE),
    "CLOCK": str(_CLOCK_NS),
}

FUNCTIONS: Final = frozenset(_WAT)
"""Names of the functions that exist here: the whole of preview 1."""

SOURCE: Final = repr((_WAT, _WORDS))
"""What compiled code depends on, beside the guest's own."""

Signature = tuple[bytes, bytes]
"""Codes of a function type's parameters and results."""


@cache
def bodies() -> Mapping[str, tuple[Signature, bytes]]:
    """Each function's type and body, the body as a code section has it; memory 0 is the guest's."""
    functions = "\n".join(f"(func {text})" for text in _WAT.values())
    for word, meaning in _WORDS.items():
        functions = functions.replace(word, meaning)
    assembled = bytes(wat2wasm(f"(module (memory 1) {functions})"))
    parts = dict(binary.Reader(assembled, len(binary.HEAD)).sections())
    types = [parts[binary.TYPE].function_type() for _ in range(parts[binary.TYPE].count())]
    signatures = [
        types[parts[binary.FUNCTION].number()] for _ in range(parts[binary.FUNCTION].count())
    ]
    code = parts[binary.CODE]
    found = [code.slice(code.number()).rest() for _ in range(code.count())]
    return dict(zip(_WAT, zip(signatures, found, strict=True), strict=True))


Body = Callable[[str, str, int, Signature], bytes | None]
"""(module, name, type index, signature) of an import -> the body in its place, or `None`."""


def body_of(module: str, name: str, _type: int, signature: Signature) -> bytes | None:
    """The body of a WASI function of that very type; `None`: it is none."""
    known = bodies().get(name) if module == MODULE else None
    return known[1] if known is not None and known[0] == signature else None


def link(wasm: bytes) -> bytes:
    """Replace a guest's WASI imports by functions of its own.

    Returns:
        The module without imports; or as it was, where it has none, or imports anything else, or
        is no whole module: what is left is then refused by name, by the compiler or the host.
    """
    try:
        return binary.module(replace_imports(wasm, body_of))
    except IncompatibleError:
        return wasm


def replace_imports(wasm: bytes, body: Body) -> list[tuple[int, bytes]]:
    """Put a body in the place of each import; the sections of the module that results.

    Raises:
        IncompatibleError: An import has no body, is no function, or the bytes are no whole module.
    """
    if not wasm.startswith(binary.HEAD):
        raise IncompatibleError("not a core Wasm module of version 1")
    sections = binary.Reader(wasm, len(binary.HEAD)).sections()
    parts = dict(sections)
    content = [(number, part.rest()) for number, part in sections]
    if binary.IMPORT not in parts or binary.TYPE not in parts:
        return content
    type_section = binary.Reader(dict(content)[binary.TYPE])
    types = [type_section.function_type() for _ in range(type_section.count())]
    imports = binary.Reader(dict(content)[binary.IMPORT])
    indices, code = [], []
    for _ in range(imports.count()):
        module, name, kind = imports.text(), imports.text(), imports.byte()
        index = imports.number() if kind == _FUNCTION else len(types)
        found = body(module, name, index, types[index]) if index < len(types) else None
        if found is None:
            raise IncompatibleError(f"it imports {module}.{name}")
        indices.append(binary.number(index))
        code.append(binary.number(len(found)) + found)
    content = [each for each in content if each[0] != binary.IMPORT]
    content = extended(content, binary.FUNCTION, indices, first=True)
    return extended(content, binary.CODE, code, first=True)


def extended(
    sections: list[tuple[int, bytes]], number: int, entries: list[bytes], *, first: bool = False
) -> list[tuple[int, bytes]]:
    """Add entries to the list that a section is, at its begin or its end; make it where absent."""
    old = dict(sections).get(number, binary.number(0))
    reader = binary.Reader(old)
    count = reader.count()
    added, kept = b"".join(entries), reader.rest()
    new = binary.number(count + len(entries)) + (added + kept if first else kept + added)
    if any(each == number for each, _ in sections):
        return [(each, new if each == number else content) for each, content in sections]
    place = next(
        (
            at
            for at, (each, _) in enumerate(sections)
            if each in binary.ORDER and binary.ORDER.index(each) > binary.ORDER.index(number)
        ),
        len(sections),
    )
    return [*sections[:place], (number, new), *sections[place:]]
