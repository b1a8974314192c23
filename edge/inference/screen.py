"""What a model file may hold, decided from its bytes before ONNX Runtime parses them.

Refused: tensors kept in other files, operators of foreign domains, operators that carry compiled
code, anything that is not a whole protobuf message. The scan follows the schema of
`onnx/onnx.proto` (IR version 13) into every subgraph and function; it does not recurse, reads each
byte at most once, and stops after `MAX_FIELDS` fields.

Deliberately not here: shapes, types, operator versions; ONNX Runtime checks those itself.
"""

from enum import Enum, auto
from typing import Final

from edge.errors import IncompatibleError
from edge.inference import protobuf

MAX_FIELDS: Final = 2_000_000
"""About two seconds of scanning. A ResNet-50 has some 10,000: weights are one field each."""

MAX_NODES: Final = 100_000
"""ONNX Runtime's optimiser would take minutes for more; a large detector has 1,000."""

MAX_DEPTH: Final = 100
"""Protobuf's own limit."""

ALLOWED_DOMAINS: Final = frozenset({b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft"})
"""Standard ONNX, and what ONNX Runtime's own quantiser and optimiser write."""

FORBIDDEN_OPERATORS: Final = frozenset({b"EPContext"})
"""Wraps a provider's compiled engine, perhaps in another file: native code that no one pinned."""


class _Kind(Enum):
    """The messages of onnx.proto that can hold, at whatever depth, something that is refused."""

    MODEL = auto()
    GRAPH = auto()
    NODE = auto()
    ATTRIBUTE = auto()
    TENSOR = auto()
    SPARSE = auto()
    FUNCTION = auto()
    TRAINING = auto()


_CHILDREN: Final[dict[_Kind, dict[int, _Kind]]] = {
    _Kind.MODEL: {7: _Kind.GRAPH, 20: _Kind.TRAINING, 25: _Kind.FUNCTION},
    _Kind.GRAPH: {1: _Kind.NODE, 5: _Kind.TENSOR, 15: _Kind.SPARSE},
    _Kind.NODE: {5: _Kind.ATTRIBUTE},
    _Kind.ATTRIBUTE: {
        5: _Kind.TENSOR,
        6: _Kind.GRAPH,
        10: _Kind.TENSOR,
        11: _Kind.GRAPH,
        22: _Kind.SPARSE,
        23: _Kind.SPARSE,
    },
    _Kind.TENSOR: {},
    _Kind.SPARSE: {1: _Kind.TENSOR, 2: _Kind.TENSOR},
    _Kind.FUNCTION: {7: _Kind.NODE, 11: _Kind.ATTRIBUTE},
    _Kind.TRAINING: {1: _Kind.GRAPH, 2: _Kind.GRAPH},
}
_NODE_OPERATOR: Final = 4
_NODE_DOMAIN: Final = 7
_TENSOR_EXTERNAL: Final = 13
_TENSOR_LOCATION: Final = 14


def screen(content: bytes, where: str) -> None:
    """Refuse a model that reaches beyond its own bytes and ONNX Runtime's own operators.

    Args:
        content: The whole ONNX file.
        where: Names the file in errors.

    Raises:
        IncompatibleError: Something is refused, or the bytes are no ONNX model.
    """
    open_messages = [(_Kind.MODEL, 0, len(content))]
    graphs = nodes = 0
    for _ in range(MAX_FIELDS):
        while open_messages and open_messages[-1][1] == open_messages[-1][2]:
            open_messages.pop()
        if not open_messages:
            break
        kind, position, end = open_messages.pop()
        number, wire, start, position = protobuf.field(content, position, end, where)
        open_messages.append((kind, position, end))
        child = _CHILDREN[kind].get(number)
        if child is not None and wire == protobuf.BYTES:
            graphs += child is _Kind.GRAPH
            nodes += child is _Kind.NODE
            if nodes > MAX_NODES:
                raise IncompatibleError(f"{where}: has more than {MAX_NODES} nodes")
            open_messages.append((child, start, position))
            if len(open_messages) > MAX_DEPTH:
                raise IncompatibleError(f"{where}: is nested deeper than {MAX_DEPTH} messages")
        elif kind is _Kind.NODE and wire == protobuf.BYTES:
            _check_node(number, content[start:position], where)
        elif kind is _Kind.TENSOR:
            _check_tensor(number, content[start:position], where)
    else:
        raise IncompatibleError(
            f"{where}: has more than {MAX_FIELDS} fields (keep weights as raw data)"
        )
    if not graphs:
        raise IncompatibleError(f"{where}: is no ONNX model: it holds no graph")


def _check_node(number: int, text: bytes, where: str) -> None:
    if number == _NODE_DOMAIN and text not in ALLOWED_DOMAINS:
        raise IncompatibleError(
            f"{where}: has an operator of domain {_shown(text)}; this host runs ai.onnx, "
            "ai.onnx.ml and com.microsoft (export the model with standard operators)"
        )
    if number == _NODE_OPERATOR and text in FORBIDDEN_OPERATORS:
        raise IncompatibleError(
            f"{where}: has an operator {_shown(text)}, which carries compiled code "
            "(deploy the plain ONNX model: it is compiled on the device)"
        )


def _check_tensor(number: int, payload: bytes, where: str) -> None:
    # DataLocation.DEFAULT written out is harmless; any set bit of the varint is not.
    located = number == _TENSOR_LOCATION and any(byte & 0x7F for byte in payload)
    if located or number == _TENSOR_EXTERNAL:
        raise IncompatibleError(
            f"{where}: keeps weights in another file (save the model with its weights embedded)"
        )


def _shown(text: bytes) -> str:
    return repr(text[:64].decode("utf-8", "backslashreplace"))
