"""Reads what a Wasm module declares, from its bytes alone: nothing is compiled and nothing runs.

So a module can be described that the host refuses. It does not validate: that is the compiler's
business (`edge.wasm`). Read are types, imports, tables, memories, exports, the start function and
the names of custom sections (WebAssembly Core Specification 2.0, chapter 5).
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from edge.errors import IncompatibleError
from edge.wasm.binary import CUSTOM, HEAD, Reader

_VALUE_TYPES: Final = {
    0x7F: "i32",
    0x7E: "i64",
    0x7D: "f32",
    0x7C: "f64",
    0x7B: "v128",
    0x70: "funcref",
    0x6F: "externref",
}
_KINDS: Final = ("function", "table", "memory", "global", "tag")
_HAS_MAXIMUM: Final = 1
_SHARED: Final = 2
_IS_64: Final = 4


class Limits(msgspec.Struct, frozen=True):
    """Size of a memory in pages of 64 KiB, or of a table in elements; no maximum: `None`."""

    minimum: int
    maximum: int | None
    shared: bool = False
    is_64: bool = False


class External(msgspec.Struct, frozen=True):
    """An import or an export.

    Attributes:
        name: Of an import `module.name`.
        kind: `function`, `table`, `memory`, `global` or `tag`.
        signature: Of functions, such as `(i32, i32) -> i32`; else empty.
    """

    name: str
    kind: str
    signature: str = ""


class Declarations(msgspec.Struct, frozen=True):
    """What a module says about itself; memories and tables with the imported ones first."""

    imports: tuple[External, ...]
    exports: tuple[External, ...]
    memories: tuple[Limits, ...]
    tables: tuple[Limits, ...]
    custom_sections: tuple[str, ...]
    has_start: bool


def signature(parameters: list[str], results: list[str]) -> str:
    """A function's type as people write it: `(i32, i32) -> i32`."""
    return f"({', '.join(parameters)}) -> {', '.join(results) or 'nothing'}"


def read(wasm: bytes) -> Declarations:
    """Read a module's declarations.

    Raises:
        IncompatibleError: The bytes are no module, or end within one; the sentence names the byte.
    """
    if wasm[: len(HEAD)] != HEAD:
        raise IncompatibleError(
            f"not a core Wasm module of version 1: it starts with {wasm[:8]!r}, expected {HEAD!r}"
        )
    found = _Found()
    for section, part in Reader(wasm, len(HEAD)).sections():
        if section == CUSTOM:
            found.custom.append(part.text())
        elif read_section := _SECTIONS.get(section):
            read_section(found, part)
    return found.declarations()


class _Found:
    """What the sections gave, while they are read."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self.functions: list[int] = []
        self.memories: list[Limits] = []
        self.tables: list[Limits] = []
        self.imports: list[External] = []
        self.exports: list[tuple[str, str, int]] = []
        self.custom: list[str] = []
        self.has_start = False

    def type_of(self, index: int) -> str:
        return self.types[index] if index < len(self.types) else f"type {index}, which is none"

    def declarations(self) -> Declarations:
        exports = []
        for name, kind, index in self.exports:
            known = kind == "function" and index < len(self.functions)
            exports.append(
                External(name, kind, self.type_of(self.functions[index]) if known else "")
            )
        return Declarations(
            tuple(self.imports),
            tuple(exports),
            tuple(self.memories),
            tuple(self.tables),
            tuple(self.custom),
            self.has_start,
        )


def _types(found: _Found, part: Reader) -> None:
    for _ in range(part.count()):
        parameters, results = part.function_type()
        found.types.append(signature(_value_types(parameters), _value_types(results)))


def _value_types(codes: bytes) -> list[str]:
    return [_VALUE_TYPES.get(code, f"type {code:#x}") for code in codes]


def _limits(part: Reader) -> Limits:
    flags = part.byte()
    least = part.number()
    most = part.number() if flags & _HAS_MAXIMUM else None
    return Limits(least, most, bool(flags & _SHARED), bool(flags & _IS_64))


def _imports(found: _Found, part: Reader) -> None:
    for _ in range(part.count()):
        name = f"{part.text()}.{part.text()}"
        kind = _kind(part)
        type_name = ""
        if kind == "function":
            found.functions.append(part.number())
            type_name = found.type_of(found.functions[-1])
        elif kind == "memory":
            found.memories.append(_limits(part))
        elif kind == "table":
            part.byte()
            found.tables.append(_limits(part))
        else:  # a global's type and mutability, a tag's attribute and type
            part.byte()
            part.number()
        found.imports.append(External(name, kind, type_name))


def _functions(found: _Found, part: Reader) -> None:
    found.functions.extend(part.number() for _ in range(part.count()))


def _tables(found: _Found, part: Reader) -> None:
    for _ in range(part.count()):
        part.byte()
        found.tables.append(_limits(part))


def _memories(found: _Found, part: Reader) -> None:
    found.memories.extend(_limits(part) for _ in range(part.count()))


def _exports(found: _Found, part: Reader) -> None:
    for _ in range(part.count()):
        name = part.text()
        kind = _kind(part)
        found.exports.append((name, kind, part.number()))


def _start(found: _Found, part: Reader) -> None:
    part.number()
    found.has_start = True


def _kind(part: Reader) -> str:
    code = part.byte()
    if code >= len(_KINDS):
        raise part.wrong(f"an import or export of kind {code}, which is none")
    return _KINDS[code]


_Section = Callable[[_Found, Reader], Any]
_SECTIONS: Final[dict[int, _Section]] = {
    1: _types,
    2: _imports,
    3: _functions,
    4: _tables,
    5: _memories,
    7: _exports,
    8: _start,
}
