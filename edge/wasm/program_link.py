"""Links a WASI program: what the host serves goes through one table, the rest is WASI's shim.

A program is a command of WASI preview 1 that may use `wasi_ephemeral_nn`. As with guests
(`edge.wasm.wasi`), bodies take the place of its imports, so that the compiled module imports
nothing. A function that the host serves has a body that calls through a table, which the module
exports under `TABLE_EXPORT` and the host fills when it makes an instance. `proc_exit` leaves its
status in the global that is exported under `STATUS_EXPORT`, and traps.
"""

from typing import Final

from edge.errors import IncompatibleError
from edge.wasm import binary, wasi

NN_MODULE: Final = "wasi_ephemeral_nn"
TABLE_EXPORT: Final = "edge host"
STATUS_EXPORT: Final = "edge status"
"""An i64: -1 until `proc_exit` was called, then its status."""

HOSTED: Final[dict[tuple[str, str], int]] = {
    (wasi.MODULE, "fd_read"): 4,
    (wasi.MODULE, "fd_write"): 4,
    (NN_MODULE, "load"): 5,
    (NN_MODULE, "load_by_name"): 3,
    (NN_MODULE, "init_execution_context"): 2,
    (NN_MODULE, "set_input"): 3,
    (NN_MODULE, "compute"): 1,
    (NN_MODULE, "get_output"): 5,
}
"""What the host serves, in the order of the table, with the number of i32 parameters; each answers
an i32. The functions of wasi-nn are those of its WITX, as wasmtime serves them."""

_I32: Final = b"\x7f"
_TABLE_KIND, _GLOBAL_KIND = 1, 3
_FUNCREF: Final = b"\x70"
_MUTABLE_I64_MINUS_1: Final = b"\x7e\x01\x42\x7f\x0b"
_LOCAL_GET, _I32_CONST, _CALL_INDIRECT, _END = b"\x20", b"\x41", b"\x11", b"\x0b"
_STORE_STATUS: Final = b"\x00\x20\x00\xad\x24"  # no locals; global.set (i64.extend_i32_u local 0)


def link_program(wasm: bytes) -> bytes:
    """Replace a program's imports by functions of its own.

    Raises:
        IncompatibleError: It imports something else than preview 1 and wasi-nn, or a function of
            them under another type, or is no whole module.
    """
    head = binary.Reader(wasm, len(binary.HEAD)) if wasm.startswith(binary.HEAD) else None
    parts = dict(head.sections()) if head else {}
    table, status = (
        parts[section].count() if section in parts else 0
        for section in (binary.TABLE, binary.GLOBAL)
    )

    def body(module: str, name: str, type_index: int, signature: wasi.Signature) -> bytes | None:
        known = HOSTED.get((module, name))
        if known is not None:
            slot = list(HOSTED).index((module, name))
            return _through_table(slot, type_index, table) if _fits(signature, known) else None
        if (module, name) == (wasi.MODULE, "proc_exit") and signature == (_I32, b""):
            return _STORE_STATUS + binary.number(status) + b"\x00" + _END
        return wasi.body_of(module, name, type_index, signature)

    sections = wasi.replace_imports(wasm, body)
    size = binary.number(len(HOSTED))
    sections = wasi.extended(sections, binary.TABLE, [_FUNCREF + b"\x01" + size + size])
    sections = wasi.extended(sections, binary.GLOBAL, [_MUTABLE_I64_MINUS_1])
    exports = [
        binary.name(TABLE_EXPORT) + bytes([_TABLE_KIND]) + binary.number(table),
        binary.name(STATUS_EXPORT) + bytes([_GLOBAL_KIND]) + binary.number(status),
    ]
    return binary.module(wasi.extended(sections, binary.EXPORT, exports))


def imports_of(wasm: bytes) -> set[tuple[str, str]]:
    """Module and name of every import, as far as the module can be read."""
    found: set[tuple[str, str]] = set()

    def noted(module: str, name: str, _type: int, _signature: wasi.Signature) -> bytes:
        found.add((module, name))
        return b""

    try:
        wasi.replace_imports(wasm, noted)
    except IncompatibleError:
        return found
    return found


def _fits(signature: wasi.Signature, parameters: int) -> bool:
    return signature == (_I32 * parameters, _I32)


def _through_table(slot: int, type_index: int, table: int) -> bytes:
    """No locals; the parameters, the slot, and a call through the table with the import's type."""
    parameters = list(HOSTED.values())[slot]
    gets = b"".join(_LOCAL_GET + binary.number(index) for index in range(parameters))
    call = _CALL_INDIRECT + binary.number(type_index) + binary.number(table)
    return b"\x00" + gets + _I32_CONST + binary.number(slot) + call + _END
