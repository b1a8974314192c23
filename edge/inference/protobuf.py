"""Reads the fields of a protobuf message from bytes, each at its place; nothing is unpacked.

Every position is checked against the message's end (protobuf's encoding: tag, then payload).
"""

from typing import Final

from edge.errors import IncompatibleError

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5


def field(content: bytes, position: int, end: int, where: str) -> tuple[int, int, int, int]:
    """Read one field: its number, its wire type, where its payload starts and where it ends.

    Args:
        content: The whole file.
        position: Where the field starts.
        end: Where its message ends.
        where: Names the file in errors.

    Raises:
        IncompatibleError: These bytes are no field, or it ends behind its message.
    """
    tag, start = varint(content, position, end, where)
    number, wire = tag >> 3, tag & 7
    if wire == BYTES:
        length, start = varint(content, start, end, where)
        stop = start + length
    elif wire == VARINT:
        _, stop = varint(content, start, end, where)
    elif wire == FIXED64:
        stop = start + 8
    elif wire == FIXED32:
        stop = start + 4
    else:
        raise _broken(where, position, f"wire type {wire}")
    if not 0 < number < 1 << 29:
        raise _broken(where, position, f"field number {number}")
    if stop > end:
        raise _broken(where, position, "a field that ends behind its message")
    return number, wire, start, stop


def varint(content: bytes, position: int, end: int, where: str) -> tuple[int, int]:
    """Read a number of at most ten bytes: its value, and where it ends.

    Raises:
        IncompatibleError: It does not end before `end`.
    """
    value = shift = 0
    while position < end and shift < 70:  # noqa: PLR2004 - ten bytes of seven bits, protobuf's most
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, position
        shift += 7
    raise _broken(where, position, "an unfinished number")


def _broken(where: str, position: int, found: str) -> IncompatibleError:
    return IncompatibleError(
        f"{where}: is no ONNX model, or is cut off: found {found} at byte {position}"
    )
