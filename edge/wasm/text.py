"""Wasm text to binary, for modules of our own: what the benchmarks measure with.

Guests come as binary; text is refused (`edge.wasm.engine`).
"""

from wasmtime import wat2wasm


def assemble(text: str) -> bytes:
    """The binary of a module's text.

    Raises:
        wasmtime.WasmtimeError: The text is no module.
    """
    return bytes(wat2wasm(text))
