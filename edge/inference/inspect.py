"""What a model file says of itself: its graph read from the bytes, never run.

The file is screened first, so a refused model has no facts. What follows reads the same fields that
the screen bounded, with the schema of `onnx/onnx.proto` (IR version 13); weights are not unpacked.

Deliberately not here: whether the model runs, and how fast (`edge.inference.trial`).
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edge.contracts.plan import MAX_MODEL_BYTES, TensorSpec
from edge.errors import IncompatibleError
from edge.inference import protobuf
from edge.inference.protobuf import BYTES, VARINT
from edge.inference.screen import screen

MAX_TEXT: Final = 200
"""Names in a file may be megabytes; this much of one is shown."""
MAX_NAMED: Final = 100
"""Operators, inputs and outputs that are listed: more of a kind than any real model has."""
MAX_DIMENSIONS: Final = 64
"""Of one tensor; ONNX Runtime's own kernels end at 8 or so."""

_DTYPES: Final = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""TensorProto.DataType by number."""
_WORD: Final = 64
_MOST: Final = (1 << 63) - 1
"""Largest number that JSON readers agree on as an integer of 64 bits."""

Span = tuple[int, int]


class Port(msgspec.Struct, frozen=True):
    """An input or output as the file declares it; a dynamic dimension is a name, or `?`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


class Facts(msgspec.Struct, frozen=True):
    """What is known of a model file without running it.

    Attributes:
        opsets: Version of each operator set, by domain (`ai.onnx` is the standard one).
        operators: How often each operator occurs, the most frequent first; subgraphs and functions
            are counted in. Operators of another domain have it in front.
        parameters: Numbers in the weights, scales and zero points of quantisation among them.
        inputs: Without those that are only names of weights.
    """

    path: str
    bytes: int
    sha256: str
    ir_version: int
    producer: str
    opsets: dict[str, int]
    operators: dict[str, int]
    nodes: int
    parameters: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def inspect(path: Path) -> Facts:
    """Read the facts of a model file.

    Raises:
        IncompatibleError: It cannot be read, is too large, is no whole ONNX model, or holds what
            this host refuses (external data, foreign domains, compiled code).
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MODEL_BYTES + 1)
    except OSError as failed:
        raise IncompatibleError(f"{path}: cannot be read: {failed.strerror}") from failed
    if len(content) > MAX_MODEL_BYTES:
        raise IncompatibleError(f"{path}: is larger than {MAX_MODEL_BYTES} bytes")
    screen(content, str(path))
    return _Reader(content, str(path)).facts()


def differences(
    facts: Facts, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> list[str]:
    """Say where a file is not what its card describes; empty where it is."""
    found = []
    for side, ports, specs in (
        ("input", facts.inputs, inputs),
        ("output", facts.outputs, outputs),
    ):
        declared = {port.name: port for port in ports}
        for spec in specs:
            port = declared.pop(spec.name, None)
            if port is None:
                found.append(f"the card has an {side} {spec.name}, which the file has not")
            elif not _fits(port, spec):
                found.append(
                    f"{side} {spec.name}: the card says {spec.dtype}{list(spec.shape)}, "
                    f"the file {port.dtype}[{', '.join(map(str, port.shape))}]"
                )
        found += [
            f"the file has an {side} {port}, which the card has not" for port in declared.values()
        ]
    return found


def _fits(port: Port, spec: TensorSpec) -> bool:
    return (
        port.dtype == spec.dtype
        and len(port.shape) == len(spec.shape)
        and all(
            isinstance(has, str) or has == wants
            for has, wants in zip(port.shape, spec.shape, strict=True)
        )
    )


class _Reader:
    """One pass over the fields of one file; messages wait in a list, nothing recurses."""

    def __init__(self, content: bytes, where: str) -> None:
        self._content = content
        self._where = where
        self._operators: Counter[str] = Counter()
        self._opsets: dict[str, int] = {}
        self._parameters = 0
        self._initialised: set[str] = set()
        self._graphs: list[Span] = []
        self._inputs: list[Port] = []
        self._outputs: list[Port] = []

    def facts(self) -> Facts:
        ir_version, producer = 0, ["", ""]
        main: Span | None = None
        for number, wire, start, stop in self._fields((0, len(self._content))):
            if number == 1 and wire == VARINT:  # ir_version
                ir_version = self._number(start, stop)
            elif number in (2, 3) and wire == BYTES:  # producer_name, producer_version
                producer[number - 2] = self._text(start, stop)
            elif number == 8 and wire == BYTES:  # noqa: PLR2004 - opset_import
                self._opset((start, stop))
            elif number == 7 and wire == BYTES:  # noqa: PLR2004 - graph
                main = (start, stop)
                self._graphs.append(main)
            elif number == 25 and wire == BYTES:  # noqa: PLR2004 - functions
                self._function((start, stop))
        while self._graphs:
            span = self._graphs.pop()
            self._graph(span, top=span == main)
        return Facts(
            self._where,
            len(self._content),
            hashlib.sha256(self._content).hexdigest(),
            ir_version,
            " ".join(filter(None, producer)),
            dict(list(self._opsets.items())[:MAX_NAMED]),
            dict(self._operators.most_common(MAX_NAMED)),
            self._operators.total(),
            self._parameters,
            tuple(port for port in self._inputs if port.name not in self._initialised),
            tuple(self._outputs),
        )

    def _graph(self, span: Span, *, top: bool) -> None:
        for number, wire, start, stop in self._fields(span):
            if wire != BYTES:
                continue
            if number == 1:  # node
                self._node((start, stop))
            elif number == 5:  # noqa: PLR2004 - initializer
                self._initialiser((start, stop), top=top)
            elif top and number in (11, 12):  # input, output
                ports = self._inputs if number == 11 else self._outputs  # noqa: PLR2004
                if len(ports) < MAX_NAMED:
                    ports.append(self._port((start, stop)))

    def _function(self, span: Span) -> None:
        for number, wire, start, stop in self._fields(span):
            if number == 7 and wire == BYTES:  # noqa: PLR2004 - node
                self._node((start, stop))

    def _node(self, span: Span) -> None:
        operator = domain = ""
        for number, wire, start, stop in self._fields(span):
            if wire != BYTES:
                continue
            if number == 4:  # noqa: PLR2004 - op_type
                operator = self._text(start, stop)
            elif number == 7:  # noqa: PLR2004 - domain
                domain = self._text(start, stop)
            elif number == 5:  # noqa: PLR2004 - attribute: graphs of If and Loop
                self._graphs += [
                    (inner, end)
                    for field, kind, inner, end in self._fields((start, stop))
                    if field in (6, 11) and kind == BYTES  # g, graphs
                ]
        self._operators[operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"] += 1

    def _initialiser(self, span: Span, *, top: bool) -> None:
        dimensions: list[int] = []
        for number, wire, start, stop in self._fields(span):
            if number == 1:  # dims, packed or one by one
                dimensions += self._numbers(wire, start, stop)
            elif number == 8 and wire == BYTES and top:  # noqa: PLR2004 - name
                self._initialised.add(self._text(start, stop))
        count = max(0, math.prod(dimensions[:MAX_DIMENSIONS]))
        self._parameters = min(self._parameters + count, _MOST)

    def _opset(self, span: Span) -> None:
        domain, version = "", 0
        for number, wire, start, stop in self._fields(span):
            if number == 1 and wire == BYTES:
                domain = self._text(start, stop)
            elif number == 2 and wire == VARINT:  # noqa: PLR2004 - version
                version = self._number(start, stop)
        self._opsets[domain or "ai.onnx"] = version

    def _port(self, span: Span) -> Port:
        """ValueInfoProto: name 1, type 2; of it tensor_type 1: elem_type 1, shape 2; dim 1."""
        name, dtype, shape = "", "no tensor", []
        for number, wire, start, stop in self._fields(span):
            if number == 1 and wire == BYTES:
                name = self._text(start, stop)
            elif number == 2 and wire == BYTES:  # noqa: PLR2004 - type
                for tensor in self._inner((start, stop), 1):
                    for field, kind, inner, end in self._fields(tensor):
                        if field == 1 and kind == VARINT:
                            element = self._number(inner, end)
                            dtype = _DTYPES.get(element, f"type {element}")
                        elif field == 2 and kind == BYTES:  # noqa: PLR2004 - shape
                            shape = [self._dimension(each) for each in self._inner((inner, end), 1)]
        return Port(name, dtype, tuple(shape[:MAX_NAMED]))

    def _dimension(self, span: Span) -> int | str:
        for number, wire, start, stop in self._fields(span):
            if number == 1 and wire == VARINT:
                return self._number(start, stop)
            if number == 2 and wire == BYTES:  # noqa: PLR2004 - dim_param
                return self._text(start, stop) or "?"
        return "?"

    def _inner(self, span: Span, wanted: int) -> Iterator[Span]:
        for number, wire, start, stop in self._fields(span):
            if number == wanted and wire == BYTES:
                yield start, stop

    def _fields(self, span: Span) -> Iterator[tuple[int, int, int, int]]:
        position, end = span
        while position < end:
            number, wire, start, position = protobuf.field(
                self._content, position, end, self._where
            )
            yield number, wire, start, position

    def _number(self, start: int, stop: int) -> int:
        value, _ = protobuf.varint(self._content, start, stop, self._where)
        value &= (1 << _WORD) - 1
        # int64: a negative one has its sign in bit 63.
        return value - (1 << _WORD) if value >> (_WORD - 1) else value

    def _numbers(self, wire: int, start: int, stop: int) -> list[int]:
        if wire == VARINT:
            return [self._number(start, stop)]
        found: list[int] = []
        while wire == BYTES and start < stop and len(found) < MAX_DIMENSIONS:
            value, start = protobuf.varint(self._content, start, stop, self._where)
            found.append(value)
        return found

    def _text(self, start: int, stop: int) -> str:
        """Names come from outside: bounded, and without control characters."""
        text = self._content[start:stop][:MAX_TEXT].decode("utf-8", "backslashreplace")
        return text if text.isprintable() else ascii(text)[1:-1]
