"""The guest engine: loads guests, verified and compiled, and makes instances of them.

For one engine thread of a worker process: the first that makes an instance. One alarm serves all
its guests, so no two of them may run at a time.
"""

import ctypes
import hashlib
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import Final, Self

from wasmtime import Func, Instance, Memory, Module, Store, Trap, WasmtimeError

from edge.contracts import abi
from edge.errors import IncompatibleError, StorageError, UntrustedError
from edge.wasm.binary import COMPONENT_HEAD
from edge.wasm.calls import (
    GuestFunction,
    checked_function,
    metered_function,
    unchecked_function,
    unchecked_is_known,
)
from edge.wasm.code import Code
from edge.wasm.code_cache import CodeCache, CompileLimits
from edge.wasm.guest import Guest, failure_of, printable
from edge.wasm.interruption import DEADLINE_TICKS, Alarm, new_alarm
from edge.wasm.program import ProgramModule
from edge.wasm.sandbox import MAX_SCRIPT_BYTES, MAX_WASM_BYTES, new_engine
from edge.wasm.script import ScriptEngine, ScriptModule
from edge.wasm.shape import Shape

_MAGIC: Final = b"\0asm"
_MAX_TABLE_ELEMENTS: Final = 65_536
"""8 bytes each. A table holds a program's function pointers."""
_MAX_TABLES: Final = 8
MAX_FUEL: Final = (1 << 63) - 1
"""As good as endless: fuel is counted, and never runs out."""


class _Core:
    """An engine with its alarm and its cache: code that counts fuel needs its own three."""

    def __init__(self, cache_dir: Path, limits: CompileLimits | None, code: Code) -> None:
        self.cache = CodeCache(cache_dir, limits, code=code)
        self.engine = new_engine(code)
        self.alarm: Alarm = new_alarm(self.engine)
        self.code = code


class GuestEngine:
    """One wasmtime engine, its alarm and its cache of compiled guests; a context manager.

    Args:
        cache_dir: Where compiled guests are kept (see `edge.wasm.code_cache`).
        limits: What one compilation may take.
        checked: Call guests through wasmtime's public, slower call. Set by itself where the
            installed wasmtime is not the one that the fast call was written for.

    Attributes:
        interruption: How late guests are ended: `native`, or `thread` where the system has no
            POSIX timers (then a busy interpreter lock delays it).
        checked: Which call is in use.
    """

    def __init__(
        self, cache_dir: Path, *, limits: CompileLimits | None = None, checked: bool = False
    ) -> None:
        self._cache_dir, self._limits = cache_dir, limits
        self._cores = [_Core(cache_dir, limits, Code.PLAIN)]
        self.interruption = "native" if self._cores[0].alarm.native else "thread"
        self.checked = checked or not unchecked_is_known()
        self._thread: int | None = None
        self._scripts: ScriptEngine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the alarms. Guests may not be called any more; views of them stay valid."""
        for core in self._cores:
            core.alarm.close()
        if self._scripts is not None:
            self._scripts.close()

    def load(
        self, path: Path, sha256: str, memory_mib: int, *, metered: bool = False
    ) -> "GuestModule":
        """Load a guest: the pinned file, compiled on this device, with the ABI's exports.

        Args:
            path: The Wasm file.
            sha256: What its digest must be, in hex.
            memory_mib: The most memory that it may declare.
            metered: Whether its calls count fuel, which costs time (docs/guests.md).

        Raises:
            UntrustedError: The file is not the pinned one, or the cache is not ours alone.
            IncompatibleError: It is no guest that this host can run; the sentence says why.
            StorageError: The file cannot be read, or the cache not written.
        """
        wasm = _read_pinned(path, sha256)
        if wasm.startswith(COMPONENT_HEAD):
            raise IncompatibleError(
                f"guest {_name(path, sha256)}: a component, so a script policy: it serves decide, "
                "and no other role"
            )
        return self._load_core(wasm, sha256, _name(path, sha256), memory_mib, metered=metered)

    def load_policy(
        self, path: Path, sha256: str, memory_mib: int, *, metered: bool = False
    ) -> "PolicyModule":
        """Load a guest for the role `decide`: a core module, or a script; the file tells which.

        Args:
            path: The Wasm file.
            sha256: What its digest must be, in hex.
            memory_mib: The most memory that it may declare, or grow to where it is a script.
            metered: Whether its calls count fuel; a script's are not counted.

        Raises:
            UntrustedError: The file is not the pinned one, or the cache is not ours alone.
            IncompatibleError: It is no guest that this host can run; the sentence says why.
            StorageError: The file cannot be read, or the cache not written.
        """
        wasm = _read_pinned(path, sha256)
        name = _name(path, sha256)
        if not wasm.startswith(COMPONENT_HEAD):
            return self._load_core(wasm, sha256, name, memory_mib, metered=metered)
        self._scripts = self._scripts or ScriptEngine(self._cache_dir)
        return self._scripts.load(wasm, sha256, name, memory_mib)

    def _load_core(
        self, wasm: bytes, sha256: str, name: str, memory_mib: int, *, metered: bool
    ) -> "GuestModule":
        core = self._core(Code.METERED if metered else Code.PLAIN)
        module = self._native_module(core, wasm, sha256, name)
        return GuestModule(self, core, module, name, sha256, Shape(module, name, memory_mib))

    def load_program(self, path: Path, sha256: str, memory_mib: int) -> ProgramModule:
        """Load a program: a command of WASI that may use wasi-nn.

        Args:
            path: The Wasm file.
            sha256: What its digest must be, in hex.
            memory_mib: The most that its memory may grow to.

        Raises:
            UntrustedError: The file is not the pinned one, or the cache is not ours alone.
            IncompatibleError: It is no program that this host can run; the sentence says why.
            StorageError: The file cannot be read, or the cache not written.
        """
        wasm = _read_pinned(path, sha256)
        name = _name(path, sha256)
        core = self._core(Code.PROGRAM)
        module = self._native_module(core, wasm, sha256, name)
        return ProgramModule(
            core.engine, core.alarm, module, name=name, sha256=sha256, memory_mib=memory_mib
        )

    def _core(self, code: Code) -> _Core:
        for core in self._cores:
            if core.code is code:
                return core
        self._cores.append(_Core(self._cache_dir, self._limits, code))
        return self._cores[-1]

    def _native_module(self, core: _Core, wasm: bytes, sha256: str, name: str) -> Module:
        """Compile or fetch; an entry that wasmtime refuses (another CPU, say) is made again."""
        refusal = ""
        for _ in range(2):
            with core.cache.native_code(wasm, sha256, name) as file:
                try:
                    return Module.deserialize_file(core.engine, str(file))
                except WasmtimeError as error:
                    refusal = printable(str(error), 300)
                    core.cache.discard(sha256)
        raise IncompatibleError(
            f"guest {name}: this host does not take the code that it compiled itself: {refusal}"
        )

    def _run_start(self, core: _Core, store: Store, module: Module, call_ms: int) -> Instance:
        """Instantiate; the start function runs under the same budget as a call."""
        self._thread = self._thread or get_ident()
        if self._thread != get_ident():
            raise RuntimeError("this guest engine belongs to another thread")
        store.set_epoch_deadline(DEADLINE_TICKS)
        core.alarm.arm(core.alarm.budget(call_ms))
        try:
            return Instance(store, module, [])
        finally:
            core.alarm.disarm()

    def _bind(
        self, alarm: Alarm, store: Store, func: Func, parameters: int, call_ms: int
    ) -> GuestFunction:
        make = checked_function if self.checked else unchecked_function
        return make(store, func, parameters, alarm, alarm.budget(call_ms))


class GuestModule:
    """A guest that was loaded and verified; many instances can be made of it.

    Attributes:
        name: File name and the digest's first digits, for errors.
        sha256: Digest of the Wasm file, in hex.
        roles: Which of `abi.ROLES` it serves.
        memory_bytes: Memory of one instance.
        metered: Whether its calls count fuel.
    """

    def __init__(
        self,
        engine: GuestEngine,
        core: _Core,
        module: Module,
        name: str,
        sha256: str,
        shape: Shape,
    ) -> None:
        self._engine = engine
        self._core = core
        self.metered = core.code is Code.METERED
        self._module = module
        self._shape = shape
        self.name = name
        self.sha256 = sha256
        self.roles = shape.roles
        self.memory_bytes = shape.memory_bytes

    def instantiate(
        self, call_ms: int, *, fuel: int = 0, state_bytes: int = abi.MAX_STATE_BYTES
    ) -> Guest:
        """Make a fresh instance, owned by the calling thread.

        Args:
            call_ms: The budget of each call, 1 or more; the start function's too.
            fuel: What each call may take, of a metered module; 0: it is counted without a bound.
            state_bytes: The largest state that it may save.

        Raises:
            IncompatibleError: It was written for another ABI, does not fit its grant, or its start
                function trapped or was interrupted.
        """
        if call_ms < 1:
            raise ValueError(f"call_ms is {call_ms}; at least 1")
        if fuel and not self.metered:
            raise ValueError("fuel needs a module that was loaded as metered")
        engine, core = self._engine, self._core
        store = Store(core.engine)
        store.set_limits(
            memory_size=self.memory_bytes,
            table_elements=_MAX_TABLE_ELEMENTS,
            tables=_MAX_TABLES,
            instances=1,
            memories=1,
        )
        if self.metered:
            fuel = fuel or MAX_FUEL
            store.set_fuel(fuel)
        try:
            instance = engine._run_start(core, store, self._module, call_ms)
        except Trap as trap:
            failure = failure_of(trap, f"guest {self.name}: its start function", call_ms, fuel)
            raise IncompatibleError(str(failure)) from failure
        except WasmtimeError as error:
            raise IncompatibleError(
                f"guest {self.name} cannot be instantiated within its grant: "
                f"{printable(str(error), 300)}"
            ) from error
        exports = instance.exports(store)
        memory = exports["memory"]
        assert isinstance(memory, Memory)
        functions = {}
        for export in self._shape.functions:
            func = exports[export.name]
            assert isinstance(func, Func)
            function = engine._bind(core.alarm, store, func, export.parameters, call_ms)
            functions[export.name] = (
                metered_function(store, function, fuel) if self.metered else function
            )
        assert memory.data_len(store) == self.memory_bytes
        base = ctypes.addressof(memory.data_ptr(store).contents)
        return Guest(
            self.name,
            store,
            (base, self.memory_bytes),
            functions,
            roles=self.roles,
            call_ms=call_ms,
            fuel=fuel,
            state_bytes=state_bytes,
        )


PolicyModule = GuestModule | ScriptModule
"""What serves the role `decide`; which of them, no caller needs to know (`edge.wasm.policy`)."""


def _name(path: Path, sha256: str) -> str:
    return f"{printable(path.name, 80)} ({sha256[:8]})"


def _read_pinned(path: Path, sha256: str) -> bytes:
    """Read a guest's file once, bounded, and hold it to its digest; what is run is these bytes."""
    try:
        with path.open("rb") as file:
            wasm = file.read(MAX_SCRIPT_BYTES + 1)
    except OSError as error:
        raise StorageError(f"{path}: cannot read the guest: {error.strerror}") from error
    most = MAX_SCRIPT_BYTES if wasm.startswith(COMPONENT_HEAD) else MAX_WASM_BYTES
    if len(wasm) > most:
        raise IncompatibleError(f"{path}: larger than {most >> 20} MiB")
    found = hashlib.sha256(wasm).hexdigest()
    if found != sha256:
        raise UntrustedError(f"{path}: sha256 is {found}, expected {sha256}")
    if not wasm.startswith(_MAGIC):
        raise IncompatibleError(
            f"{path}: not a Wasm module: it starts with {wasm[:4]!r}, expected {_MAGIC!r} "
            "(text must be assembled first)"
        )
    return wasm
