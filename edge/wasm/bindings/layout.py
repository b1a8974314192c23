"""The schema of the guest ABI as plain values, read from `edge.contracts.abi`.

No engine is imported.
"""

import ctypes
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import msgspec

from edge.contracts import abi
from edge.contracts.verdict import HOST_REASONS


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

    def counted(self) -> Iterator[tuple[Field, Field]]:
        """Each address of an array of structs, and the field that says how many there are.

        That is the one behind it, in every struct of the schema.
        """
        for field, count in pairwise(self.fields):
            if field.target and field.target[0].isupper():
                yield field, count


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

    @property
    def version(self) -> str:
        """The ABI's, such as `1.0`."""
        numbers = self.constants[0].values
        return f"{numbers['ABI_MAJOR']}.{numbers['ABI_MINOR']}"


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
    "edge_log": ((), "text"),
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


def typed_constants(abi_schema: Schema) -> list[str]:
    """The constants as Rust and Zig both write them, one text a group."""
    groups = []
    for group in abi_schema.constants:
        lines = [f"// {group.meaning}"]
        for name, value in group.values.items():
            if name in abi_schema.errors:
                lines.append(f"/// {abi_schema.errors[name]}")
            kind = "i32" if name == "OK" or value < 0 else "u32"
            lines.append(f"pub const {name}: {kind} = {value};")
        groups.append("\n".join(lines) + "\n")
    return groups
