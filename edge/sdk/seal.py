"""Makes a WASI module a guest: without imports, its memory fixed, its start a start function.

Some languages know no other Wasm than WASI's: such a module imports functions of the system, grows
its memory, and waits for a call of `_initialize`. Sealing changes nothing in its code:

1. WASI imports are replaced by functions of its own that compute and grant nothing
   (`edge.wasm.wasi`), as the host would do it; so the file that is signed is the file that runs.
2. The memory's minimum and maximum become the project's `memory_mib`. Where the program asks for
   more, `memory.grow` fails, as the specification lets it.
3. `_initialize` becomes the start function: it runs once, when the guest is instantiated, under the
   budget of one call.
4. Sections with names, debug information and the tools' versions are dropped.
"""

from typing import Final

from edge.errors import IncompatibleError
from edge.wasm import binary, wasi
from edge.wasm.shape import PAGE_BYTES

INITIALISER: Final = "_initialize"
_START: Final = 8
_FUNCTION: Final = 0
_WITH_MAXIMUM: Final = 1
_DROPPED: Final = (
    "name",
    "producers",
    "target_features",
    "go:buildid",
    "linking",
    "sourceMappingURL",
)


def seal(wasm: bytes, memory_mib: int) -> bytes:
    """Seal a module.

    Args:
        wasm: A core module with one memory of its own.
        memory_mib: Minimum and maximum of its memory, from then on.

    Returns:
        A module that says the same in any host; not validated, which is the compiler's business.

    Raises:
        IncompatibleError: It imports something else than WASI preview 1, has another start function
            than `_initialize`, needs more memory, or is no whole module.
    """
    sections = wasi.replace_imports(wasm, wasi.body_of)
    numbers = [number for number, _ in sections]
    if numbers.count(binary.MEMORY) != 1:
        raise IncompatibleError("it has no memory of its own")
    kept = [
        (number, _fixed(content, memory_mib) if number == binary.MEMORY else content)
        for number, content in sections
        if not (number == binary.CUSTOM and _is_dropped(content))
    ]
    initialiser = _initialiser(dict(sections).get(binary.EXPORT, b"\0"))
    if initialiser is None:
        return binary.module(kept)
    if _START in numbers:
        raise IncompatibleError(f"it has a start function beside {INITIALISER}")
    later = binary.ORDER[binary.ORDER.index(_START) :]
    place = next((at for at, (each, _) in enumerate(kept) if each in later), len(kept))
    kept.insert(place, (_START, binary.number(initialiser)))
    return binary.module(kept)


def _fixed(memories: bytes, memory_mib: int) -> bytes:
    """The memory section with one memory of exactly that size."""
    reader = binary.Reader(memories)
    if reader.count() != 1 or reader.byte() > _WITH_MAXIMUM:
        raise IncompatibleError("its memory is shared, 64-bit, or not the only one")
    least, pages = reader.number(), (memory_mib << 20) // PAGE_BYTES
    if least > pages:
        raise IncompatibleError(
            f"it needs {least * PAGE_BYTES / 2**20:g} MiB of memory to begin with; "
            f"memory_mib is {memory_mib}"
        )
    size = binary.number(pages)
    return binary.number(1) + bytes([_WITH_MAXIMUM]) + size + size


def _initialiser(exports: bytes) -> int | None:
    """Index of the exported function `_initialize`."""
    reader = binary.Reader(exports)
    for _ in range(reader.count()):
        name, kind, index = reader.text(), reader.byte(), reader.number()
        if name == INITIALISER and kind == _FUNCTION:
            return index
    return None


def _is_dropped(custom: bytes) -> bool:
    name = binary.Reader(custom).text()
    return name in _DROPPED or name.startswith((".debug", "reloc."))
