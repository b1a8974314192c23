"""Reads and writes the parts of a Wasm binary: numbers, names, sections; nothing is validated.

Validation is the compiler's business. What is read here is bounded: a position never runs beyond
its end, and a list has no more entries than bytes (WebAssembly Core Specification 2.0, chapter 5).
"""

from typing import Final

from edge.errors import IncompatibleError

HEAD: Final = b"\0asm\x01\0\0\0"
"""Magic and version of a core module."""
COMPONENT_HEAD: Final = b"\0asm\x0d\0\x01\0"
"""Magic, version and layer of a component."""

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT = range(8)
CODE: Final = 10
ORDER: Final = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
"""Sections in the order in which a module has them; custom ones may stand anywhere."""

FUNCTION_FORM: Final = 0x60
_MAX_ENTRIES: Final = 100_000
_MAX_VARINT_BYTES: Final = 10
_CONTINUED: Final = 0x80
_HAS_MAXIMUM: Final = 1


class Reader:
    """A position in bytes that never runs beyond its end.

    Every method raises `IncompatibleError`, with the byte, where the bytes end too early.

    Attributes:
        at: Position of the next byte.
        end: Position behind the last one.
    """

    def __init__(self, source: bytes, at: int = 0, end: int | None = None) -> None:
        self._source = source
        self.at = at
        self.end = len(source) if end is None else end

    def slice(self, length: int) -> "Reader":
        """A reader of the next bytes; this one goes on behind them."""
        if self.at + length > self.end:
            raise self.wrong(f"{length} bytes are announced, {self.end - self.at} are there")
        part = Reader(self._source, self.at, self.at + length)
        self.at = part.end
        return part

    def rest(self) -> bytes:
        """The bytes from here to the end, which this reader then has passed."""
        at, self.at = self.at, self.end
        return self._source[at : self.end]

    def byte(self) -> int:
        """The next byte."""
        if self.at >= self.end:
            raise self.wrong("the module ends here, within a section")
        self.at += 1
        return self._source[self.at - 1]

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = 0
        for step in range(_MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * step)
            if byte < _CONTINUED:
                return value
        raise self.wrong("a number does not end")

    def count(self) -> int:
        """The length of a list: bounded, for each entry takes a byte at least."""
        value = self.number()
        if value > min(_MAX_ENTRIES, self.end - self.at):
            raise self.wrong(f"a list of {value} entries")
        return value

    def text(self) -> str:
        """A name; bytes that are no UTF-8 are replaced."""
        return self.slice(self.number()).rest().decode("utf-8", "replace")

    def function_type(self) -> tuple[bytes, bytes]:
        """The codes of a function type's parameters and results."""
        form = self.byte()
        if form != FUNCTION_FORM:
            raise self.wrong(f"a type of form {form:#x}; guests have function types alone")
        return self.slice(self.number()).rest(), self.slice(self.number()).rest()

    def sections(self) -> list[tuple[int, "Reader"]]:
        """The module's sections from here on: number, and a reader of the content."""
        found = []
        while self.at < self.end:
            number = self.byte()
            found.append((number, self.slice(self.number())))
        return found

    def wrong(self, problem: str) -> IncompatibleError:
        """An error that names this place."""
        return IncompatibleError(f"not a whole Wasm module: at byte {self.at}: {problem}")


def number(value: int) -> bytes:
    """An unsigned LEB128 number."""
    encoded = bytearray()
    while value >= _CONTINUED:
        encoded.append(value & 0x7F | _CONTINUED)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def name(text: str) -> bytes:
    """A name with its length."""
    raw = text.encode()
    return number(len(raw)) + raw


def module(sections: list[tuple[int, bytes]]) -> bytes:
    """A module of these sections, in the order given."""
    parts = [HEAD]
    for section, content in sections:
        parts += (bytes([section]), number(len(content)), content)
    return b"".join(parts)
