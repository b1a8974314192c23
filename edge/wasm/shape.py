"""What a compiled guest may look like: the ABI's exports, one fixed memory, and no import.

Decided from the module alone: nothing of the guest has run.
"""

from typing import Final

from wasmtime import FuncType, MemoryType, Module, ValType

from edge.contracts import abi
from edge.errors import IncompatibleError

PAGE_BYTES: Final = 65_536


class Shape:
    """What a module's exports say about it.

    Args:
        module: The compiled module.
        name: The guest's name, for errors.
        memory_mib: The most memory that it may declare.

    Attributes:
        roles: Which of `abi.ROLES` it serves.
        memory_bytes: Size of its memory, for good.
        functions: The ABI functions that it exports.

    Raises:
        IncompatibleError: It imports something, or an export is missing, or is not what the ABI
            says, or it asks for more memory than it is granted.
    """

    def __init__(self, module: Module, name: str, memory_mib: int) -> None:
        self._name = name
        imports = module.imports
        if imports:
            raise self._unfit(f"it imports {imports[0].module}.{imports[0].name}")
        exports = {export.name: export.type for export in module.exports}
        self.memory_bytes = self._memory(exports.get("memory"), memory_mib)
        others = [key for key, kind in exports.items() if isinstance(kind, MemoryType)]
        if others != ["memory"]:
            raise self._unfit(f"it exports more than one memory: {', '.join(others)}")
        self.functions = tuple(
            export for export in abi.EXPORTS if self._has(export, exports.get(export.name))
        )
        names = {export.name for export in self.functions}
        self.roles = frozenset(abi.ROLES) & names
        if not self.roles:
            raise self._unfit(f"it exports none of {', '.join(abi.ROLES)}, so it serves no role")

    def _memory(self, kind: object, memory_mib: int) -> int:
        if not isinstance(kind, MemoryType):
            raise self._unfit('it exports no memory named "memory"')
        pages, most = kind.limits.min, kind.limits.max
        if kind.is_64 or kind.is_shared:
            raise self._unfit("its memory is 64-bit or shared; it must be neither")
        if pages != most:
            raise self._unfit(
                f"its memory is of {pages} pages, maximum {most}; both must be equal, "
                "for memory that moved or grew would not be zero-copy "
                "(link with --initial-memory and --max-memory)"
            )
        if pages == 0:
            raise self._unfit("its memory is empty")
        if pages * PAGE_BYTES > memory_mib << 20:
            raise self._unfit(
                f"it declares {pages * PAGE_BYTES / 2**20:g} MiB of memory; "
                f"{memory_mib} MiB are granted"
            )
        return pages * PAGE_BYTES

    def _has(self, export: abi.Export, kind: object) -> bool:
        expected = f"({', '.join(['i32'] * export.parameters)}) -> {'i32' if export.result else ''}"
        if kind is None:
            if export.required:
                raise self._unfit(f"it does not export {export.name}: {export.meaning}")
            return False
        if not isinstance(kind, FuncType):
            raise self._unfit(f"its export {export.name} is not a function of {expected}")
        parameters, results = kind.params, kind.results
        if parameters != _i32(export.parameters) or results != _i32(int(export.result)):
            found = f"({', '.join(map(str, parameters))}) -> {', '.join(map(str, results))}"
            raise self._unfit(f"its export {export.name} has type {found}; the ABI says {expected}")
        return True

    def _unfit(self, problem: str) -> IncompatibleError:
        return IncompatibleError(f"guest {self._name}: {problem}")


def _i32(count: int) -> list[ValType]:
    return [ValType.i32()] * count
