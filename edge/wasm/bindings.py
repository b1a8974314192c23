"""Language bindings of the guest ABI, generated from `edge.contracts.abi`.

`python -m edge.wasm.bindings --lang c` writes the C header, `--lang json` the schema that other
generators read; without `--lang` all are written. `--check` compares instead and exits with 1
where a file is not what the schema says.

Rules: the output depends on the schema alone, byte for byte. A language is one function from the
schema to text, and one row of `LANGUAGES`. No engine is imported.
"""

import argparse
import ctypes
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.contracts import abi
from edge.contracts.verdict import HOST_REASONS

SDK: Final = Path(__file__).resolve().parents[2] / "guests" / "sdk"


class Field(msgspec.Struct, frozen=True):
    """A member of a struct.

    Attributes:
        type: A key of `_SCALARS`, or the name of another struct.
        count: Length of an array, 0 where the member is none.
        target: What an address points at: a struct's name, `bytes` or `any`; empty: no address.
        offset: Bytes from the struct's begin.
        size: Bytes.
    """

    name: str
    type: str
    count: int
    target: str
    offset: int
    size: int
    comment: str


class StructLayout(msgspec.Struct, frozen=True):
    """A struct with its fields in memory order; sizes and alignment in bytes."""

    name: str
    meaning: str
    size: int
    alignment: int
    fields: tuple[Field, ...]


class ExportSignature(msgspec.Struct, frozen=True):
    """An exported function: the names of its i32 parameters, and what its i32 result is."""

    name: str
    parameters: tuple[str, ...]
    result: str
    required: bool
    meaning: str


class ConstantGroup(msgspec.Struct, frozen=True):
    """Constants that belong together, in the order of the schema."""

    meaning: str
    values: dict[str, int]


class Schema(msgspec.Struct, frozen=True):
    """The whole ABI as plain values: what every generator starts from."""

    constants: tuple[ConstantGroup, ...]
    errors: dict[str, str]
    structs: tuple[StructLayout, ...]
    exports: tuple[ExportSignature, ...]
    reserved_reasons: tuple[str, ...]


_SCALARS: Final[dict[Any, str]] = {
    ctypes.c_uint32: "u32",
    ctypes.c_int32: "i32",
    ctypes.c_uint64: "u64",
    ctypes.c_int64: "i64",
    ctypes.c_float: "f32",
    ctypes.c_double: "f64",
    ctypes.c_char: "char",
}
_TARGETS: Final = {
    ("Image", "data"): "bytes",
    ("Tensor", "data"): "any",
    ("PreprocessCall", "inputs"): "Tensor",
    ("PostprocessCall", "outputs"): "Tensor",
    ("PostprocessCall", "defects"): "Defect",
    ("DecideCall", "defects"): "Defect",
    ("DecideCall", "signals"): "Signal",
}
_SIGNATURES: Final = {
    "edge_abi": ((), "version"),
    "edge_alloc": (("bytes", "alignment"), "address"),
    "edge_configure": (("document", "bytes"), "status"),
    "edge_error": ((), "text"),
    "preprocess": (("PreprocessCall",), "status"),
    "postprocess": (("PostprocessCall",), "status"),
    "decide": (("DecideCall",), "status"),
    "edge_state_save": (("state", "capacity"), "status"),
    "edge_state_restore": (("state", "bytes"), "status"),
}
_GROUPS: Final = (
    ("Version of the ABI that these bindings describe.", r"ABI_\w+"),
    ("Limits.", r"MAX_\w+|REASON_BYTES|TENSOR_ALIGNMENT|IMAGE_SLACK_BYTES"),
    ("Image formats.", r"FORMAT_\w+"),
    ("Verdicts.", r"VERDICT_\w+"),
    ("States of a signal.", r"SIGNAL_\w+"),
    ("Results.", r"OK|ERROR_\w+"),
)
_FIELD_COMMENT = re.compile(r'\("(\w+)",.*\),\s+# (.+)$', re.MULTILINE)


def schema() -> Schema:
    """Read `edge.contracts.abi` into plain values.

    Raises:
        KeyError: An address or an export was added to the schema but not to the tables above.
    """
    groups = [ConstantGroup(meaning, _constants(pattern)) for meaning, pattern in _GROUPS]
    groups.append(
        ConstantGroup(
            "Tensor element types: the numbers of ONNX TensorProto.DataType.",
            {f"DTYPE_{name.upper()}": number for name, number in abi.DTYPES.items()},
        )
    )
    names = {number: name for name, number in _constants(r"ERROR_\w+").items()}
    return Schema(
        constants=tuple(groups),
        errors={names[number]: meaning for number, meaning in abi.ERRORS.items()},
        structs=tuple(_layout(struct) for struct in abi.STRUCTS),
        exports=tuple(
            ExportSignature(e.name, *_SIGNATURES[e.name], e.required, e.meaning)
            for e in abi.EXPORTS
        ),
        reserved_reasons=tuple(sorted(HOST_REASONS)),
    )


def _constants(pattern: str) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(abi).items()
        if re.fullmatch(pattern, name) and isinstance(value, int)
    }


def _layout(struct: type[abi.Struct]) -> StructLayout:
    comments = dict(_FIELD_COMMENT.findall(inspect.getsource(struct)))
    fields: list[Field] = []
    for member in struct._fields_:
        name, kind = member[0], member[1]
        count = int(getattr(kind, "_length_", 0))
        scalar = getattr(kind, "_type_", None) if count else kind
        slot = getattr(struct, name)
        fields.append(
            Field(
                name=name,
                type=_SCALARS.get(scalar) or str(getattr(scalar, "__name__", "")),
                count=count,
                target=_TARGETS.get((struct.__name__, name), ""),
                offset=slot.offset,
                size=slot.size,
                comment=comments.get(name, ""),
            )
        )
    meaning = inspect.getdoc(struct) or ""
    return StructLayout(
        struct.__name__, meaning, ctypes.sizeof(struct), ctypes.alignment(struct), tuple(fields)
    )


def render_json(abi_schema: Schema) -> str:
    """The schema as JSON, for generators that are not written in Python."""
    return json.dumps(msgspec.to_builtins(abi_schema), indent=2) + "\n"


_C_SCALARS: Final = {
    "u32": "uint32_t",
    "i32": "int32_t",
    "u64": "uint64_t",
    "i64": "int64_t",
    "f32": "float",
    "f64": "double",
    "char": "char",
}
_C_TARGETS: Final = {"bytes": "const uint8_t", "any": "void"}
_C_ARGUMENTS: Final = {
    "bytes": "uint32_t bytes",
    "alignment": "uint32_t alignment",
    "capacity": "uint32_t capacity",
    "document": "const char *document",
    "state": "void *state",
}
_C_RESULTS: Final = {
    "version": "uint32_t ",
    "address": "void *",
    "status": "int32_t ",
    "text": "const char *",
}
_C_HEAD: Final = """\
/* The guest ABI, version {major}.{minor}: guests/ABI.md explains it.
 *
 * Generated by `python -m edge.wasm.bindings --lang c`; do not edit.
 * Little-endian, naturally aligned, no implicit padding. Pointers are addresses in the guest's own
 * memory, 4 bytes wide on wasm32; NULL means absent.
 */
#ifndef EDGE_GUEST_H
#define EDGE_GUEST_H

#include <stddef.h>
#include <stdint.h>
"""


def render_c(abi_schema: Schema) -> str:
    """The C header: constants, structs with layout assertions, prototypes that export."""
    values = {k: v for group in abi_schema.constants for k, v in group.values.items()}
    parts = [_C_HEAD.format(major=values["ABI_MAJOR"], minor=values["ABI_MINOR"])]
    for group in abi_schema.constants:
        lines = [f"/* {group.meaning} */"]
        for name, value in group.values.items():
            number = f"({value})" if value < 0 else str(value)
            meaning = abi_schema.errors.get(name)
            lines.append(f"#define EDGE_{name} {number}" + (f" /* {meaning} */" if meaning else ""))
        parts.append("\n".join(lines) + "\n")
    reasons = ", ".join(f'"{reason}"' for reason in abi_schema.reserved_reasons)
    parts.append(
        "/* Reasons that only the host gives; a guest that returns one breaks the ABI. */\n"
        f"#define EDGE_RESERVED_REASONS {{ {reasons} }}\n"
    )
    parts.extend(_c_struct(struct) for struct in abi_schema.structs)
    parts.append(
        "/* A guest defines the functions of its roles; these declarations export them. */\n"
        "#define EDGE_EXPORT(name) __attribute__((export_name(#name), used))\n"
    )
    parts.extend(_c_export(export) for export in abi_schema.exports)
    parts.append("#endif\n")
    return "\n".join(parts)


def _c_name(struct: str) -> str:
    return "edge" + re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), struct)


def _c_struct(struct: StructLayout) -> str:
    name = _c_name(struct.name)
    lines = [f"/* {struct.meaning} */", f"typedef struct {name} {{"]
    checks = [f'_Static_assert(sizeof({name}) == {struct.size}, "{name}");']
    for field in struct.fields:
        kind = _C_SCALARS.get(field.type) or _c_name(field.type)
        if field.target:
            kind = _C_TARGETS.get(field.target) or _c_name(field.target)
        star = "*" if field.target else ""
        array = f"[{field.count}]" if field.count else ""
        comment = f" /* {field.comment} */" if field.comment else ""
        lines.append(f"    {kind} {star}{field.name}{array};{comment}")
        checks.append(
            f"_Static_assert(offsetof({name}, {field.name}) == {field.offset},"
            f' "{name}.{field.name}");'
        )
    return "\n".join([*lines, f"}} {name};", *checks]) + "\n"


def _c_export(export: ExportSignature) -> str:
    arguments = [
        _C_ARGUMENTS.get(parameter) or f"{_c_name(parameter)} *call"
        for parameter in export.parameters
    ]
    required = "Required" if export.required else "Optional"
    return (
        f"/* {required}: {export.meaning}. */\n"
        f"EDGE_EXPORT({export.name}) "
        f"{_C_RESULTS[export.result]}{export.name}({', '.join(arguments) or 'void'});\n"
    )


_ZIG_TARGETS: Final = {"bytes": "?[*]const u8", "any": "?*anyopaque"}
_ZIG_HEAD: Final = """\
//! The guest ABI, version {major}.{minor}: guests/ABI.md explains it.
//!
//! Generated by `python -m edge.wasm.bindings --lang zig`; do not edit.
//! Little-endian, naturally aligned, no implicit padding. Pointers are addresses in the guest's own
//! memory, 4 bytes wide on wasm32; null means absent.
"""


def render_zig(abi_schema: Schema) -> str:
    """The Zig module: constants, structs, and their layouts asserted at comptime."""
    values = {k: v for group in abi_schema.constants for k, v in group.values.items()}
    parts = [_ZIG_HEAD.format(major=values["ABI_MAJOR"], minor=values["ABI_MINOR"])]
    for group in abi_schema.constants:
        lines = [f"// {group.meaning}"]
        for name, value in group.values.items():
            if name in abi_schema.errors:
                lines.append(f"/// {abi_schema.errors[name]}")
            kind = "i32" if name == "OK" or value < 0 else "u32"
            lines.append(f"pub const {name}: {kind} = {value};")
        parts.append("\n".join(lines) + "\n")
    reasons = ", ".join(f'"{reason}"' for reason in abi_schema.reserved_reasons)
    parts.append(
        "/// Reasons that only the host gives; a guest that returns one breaks the ABI.\n"
        f"pub const RESERVED_REASONS = [_][]const u8{{ {reasons} }};\n"
    )
    parts.extend(_zig_struct(struct) for struct in abi_schema.structs)
    checks = ["comptime {", '    const assert = @import("std").debug.assert;']
    for struct in abi_schema.structs:
        checks.append(f"    assert(@sizeOf({struct.name}) == {struct.size});")
        checks.append(f"    assert(@alignOf({struct.name}) == {struct.alignment});")
        checks.extend(
            f'    assert(@offsetOf({struct.name}, "{field.name}") == {field.offset});'
            for field in struct.fields
        )
    parts.append("\n".join([*checks, "}"]) + "\n")
    return "\n".join(parts)


def _zig_struct(struct: StructLayout) -> str:
    lines = [f"/// {struct.meaning}", f"pub const {struct.name} = extern struct {{"]
    for field in struct.fields:
        kind = "u8" if field.type == "char" else field.type
        if field.target:
            kind = _ZIG_TARGETS.get(field.target) or f"?[*]{field.target}"
        array = f"[{field.count}]" if field.count else ""
        if field.comment:
            lines.append(f"    /// {field.comment}")
        lines.append(f"    {field.name}: {array}{kind},")
    return "\n".join([*lines, "};"]) + "\n"


LANGUAGES: Final[dict[str, tuple[str, Callable[[Schema], str]]]] = {
    "c": ("c/edge_guest.h", render_c),
    "json": ("abi.json", render_json),
    "zig": ("zig/edge_guest.zig", render_zig),
}
"""Language → its file below `guests/sdk`, and its generator."""


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the bindings; 0 when all is well, 1 when a compared file differs."""
    parser = argparse.ArgumentParser(prog="python -m edge.wasm.bindings", description=__doc__)
    parser.add_argument("--lang", choices=sorted(LANGUAGES), action="append")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--sdk", type=Path, default=SDK, help="folder of the SDK")
    options = parser.parse_args(arguments)
    abi_schema = schema()
    differing = 0
    for language in options.lang or sorted(LANGUAGES):
        path, render = LANGUAGES[language]
        file = options.sdk / path
        text = render(abi_schema)
        if not options.check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            differing += 1
            sys.stderr.write(
                f"{file}: not what edge/contracts/abi.py says; "
                f"run python -m edge.wasm.bindings --lang {language}\n"
            )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
