"""What a guest's bytes say of it: the schema of its parameters (`guests/ABI.md`), and its memory.

Read from the bytes alone: nothing is compiled, and no engine is imported.
"""

from typing import Final

from edge.contracts.abi import PARAMETERS_SECTION
from edge.contracts.parameters import Schema, read_schema
from edge.errors import IncompatibleError
from edge.wasm import binary

_PREAMBLE_BYTES: Final = 8
"""Magic, version and layer: a component's differ from a core module's, its sections do not."""


def parameter_schema(wasm: bytes, where: str) -> Schema | None:
    """Find and read the schema that a guest carries; None: it carries none.

    Args:
        wasm: A core module or a component.
        where: Names it in errors.

    Raises:
        IncompatibleError: The bytes are no Wasm binary, or the section is broken or there twice.
    """
    try:
        sections = _sections(wasm)
    except IncompatibleError as broken:
        raise IncompatibleError(f"{where}: {broken}") from broken
    if len(sections) > 1:
        raise IncompatibleError(f"{where}: it has {len(sections)} sections {PARAMETERS_SECTION!r}")
    return read_schema(sections[0], where) if sections else None


def declared_pages(wasm: bytes) -> int:
    """Return the pages of 64 KiB that a core module declares for its memory; 0: it declares none.

    Of a component nothing is known before it runs: 0.

    Raises:
        IncompatibleError: The bytes are no whole Wasm module.
    """
    if not wasm.startswith(binary.HEAD):
        return 0
    for number, section in binary.Reader(wasm, len(binary.HEAD)).sections():
        if number == binary.MEMORY and section.count():
            section.byte()  # flags: whether there is a maximum
            return section.number()
    return 0


def embed(wasm: bytes, schema: bytes) -> bytes:
    """Put a schema into a guest, in the place of one that it may carry.

    Raises:
        IncompatibleError: The bytes are no Wasm binary, or `schema` is none of the language.
    """
    read_schema(schema, "the schema")
    content = binary.name(PARAMETERS_SECTION) + schema
    return _without(wasm) + bytes([binary.CUSTOM]) + binary.number(len(content)) + content


def _sections(wasm: bytes) -> list[bytes]:
    return [content for name, content, _, _ in _custom(wasm) if name == PARAMETERS_SECTION]


def _without(wasm: bytes) -> bytes:
    kept, at = [], 0
    for name, _, begin, end in _custom(wasm):
        if name == PARAMETERS_SECTION:
            kept.append(wasm[at:begin])
            at = end
    return b"".join([*kept, wasm[at:]])


def _custom(wasm: bytes) -> list[tuple[str, bytes, int, int]]:
    """Name, content, begin and end of each custom section."""
    if wasm[:4] != binary.HEAD[:4] or len(wasm) < _PREAMBLE_BYTES:
        raise IncompatibleError(f"it is no Wasm binary: it starts with {wasm[:4]!r}")
    reader = binary.Reader(wasm, _PREAMBLE_BYTES)
    found = []
    while reader.at < reader.end:
        begin = reader.at
        kind = reader.byte()
        part = reader.slice(reader.number())
        if kind == binary.CUSTOM:
            found.append((part.text(), part.rest(), begin, part.end))
    return found
