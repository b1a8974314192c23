"""Script policies: components with a world of JSON strings, loaded and called within limits.

A script imports nothing, so no Python code of ours ever runs inside a call of it, and it finds no
clock, randomness, file or network (toolchains call this "stub WASI"). It is compiled ahead of time
in the bounded process, like every guest. From Python a component's values cost microseconds a byte,
so strings of a few KB go in and out, and never pixels.
"""

import re
from pathlib import Path
from threading import get_ident
from typing import Any, Final

import msgspec
from wasmtime import Store, WasmtimeError
from wasmtime.component import Component, Func, Linker, Variant

from edge.contracts import abi
from edge.errors import GuestBudgetError, GuestError, IncompatibleError
from edge.wasm.code import Code
from edge.wasm.code_cache import CodeCache, CompileLimits
from edge.wasm.guest import MAX_PARAMETERS_BYTES, printable
from edge.wasm.interruption import DEADLINE_TICKS, Alarm, new_alarm
from edge.wasm.sandbox import new_engine
from edge.wasm.script_shape import script_interfaces

LIMITS: Final = CompileLimits(cpu_s=180, wall_s=600.0, memory_mib=3072)
"""A Python interpreter takes 11 s of a desktop core, 350 MiB, and 34 MiB of native code."""

_MAX_INSTANCES: Final = 64
"""Core instances inside a component; componentize-py makes 40."""
_MAX_MEMORIES: Final = 4
_MAX_TABLES: Final = 8
_MAX_TABLE_ELEMENTS: Final = 65_536
_INTERRUPT: Final = "interrupt"
_TRAP: Final = re.compile(r"wasm trap: ([^\n]*)")


class ScriptEngine:
    """The engine of scripts, apart from that of core guests: components need other features.

    Args:
        cache_dir: Where compiled scripts are kept, beside the other guests.
        limits: What one compilation may take.
    """

    def __init__(self, cache_dir: Path, limits: CompileLimits = LIMITS) -> None:
        self._cache = CodeCache(cache_dir, limits, code=Code.SCRIPT)
        self.engine = new_engine(Code.SCRIPT)
        self.alarm: Alarm = new_alarm(self.engine)
        self._thread: int | None = None

    def close(self) -> None:
        """Release the alarm. Scripts may not be called any more."""
        self.alarm.close()

    def expect_own_thread(self) -> None:
        """Hold whoever calls to the one engine thread."""
        self._thread = self._thread or get_ident()
        if self._thread != get_ident():
            raise RuntimeError("this guest engine belongs to another thread")

    def load(self, wasm: bytes, sha256: str, name: str, memory_mib: int) -> "ScriptModule":
        """Compile or fetch a component, and hold it to its world.

        Args:
            wasm: The component, already checked against `sha256`.
            sha256: Its digest in hex.
            name: For errors.
            memory_mib: The most that each of its memories may grow to.

        Raises:
            IncompatibleError: It is no script that this host can run; the sentence says why.
            StorageError: The cache cannot be written.
        """
        refusal = ""
        for _ in range(2):
            with self._cache.native_code(wasm, sha256, name) as file:
                try:
                    component = Component.deserialize_file(self.engine, str(file))
                    return ScriptModule(self, component, name, sha256, memory_mib)
                except WasmtimeError as error:
                    refusal = printable(str(error), 300)
                    self._cache.discard(sha256)
        raise IncompatibleError(
            f"guest {name}: this host does not take the code that it compiled itself: {refusal}"
        )


class ScriptModule:
    """A script that was loaded and verified; many instances can be made of it.

    Attributes:
        name: File name and the digest's first digits, for errors.
        sha256: Digest of the component, in hex.
        roles: `decide` alone.
        memory_bytes: The most that each memory of an instance may grow to.
        version: The world's version that it was built for.
        metered: False: fuel is not counted.
    """

    metered: Final = False
    roles: Final = frozenset({"decide"})

    def __init__(
        self, engine: ScriptEngine, component: Component, name: str, sha256: str, memory_mib: int
    ) -> None:
        self._engine = engine
        self._component = component
        self._linker = Linker(engine.engine)
        self.name = name
        self.sha256 = sha256
        self.memory_bytes = memory_mib << 20
        self.version, self._interfaces = script_interfaces(engine.engine, component, name)

    def instantiate(
        self, call_ms: int, *, fuel: int = 0, state_bytes: int = abi.MAX_STATE_BYTES
    ) -> "Script":
        """Make a fresh instance, owned by the calling thread.

        Args:
            call_ms: The budget of each call, 1 or more; of instantiation too.
            fuel: 0: it cannot be counted in a script.
            state_bytes: The largest state that it may save.

        Raises:
            IncompatibleError: It does not fit its grant, or what it does at its start trapped.
        """
        if call_ms < 1:
            raise ValueError(f"call_ms is {call_ms}; at least 1")
        if fuel:
            raise IncompatibleError(
                f"guest {self.name}: fuel is granted, but a script's calls are bounded by call_ms "
                "alone: take fuel out of the manifest"
            )
        engine = self._engine
        engine.expect_own_thread()
        store = Store(engine.engine)
        store.set_limits(
            memory_size=self.memory_bytes,
            table_elements=_MAX_TABLE_ELEMENTS,
            tables=_MAX_TABLES,
            instances=_MAX_INSTANCES,
            memories=_MAX_MEMORIES,
        )
        store.set_epoch_deadline(DEADLINE_TICKS)
        engine.alarm.arm(engine.alarm.budget(call_ms))
        try:
            instance = self._linker.instantiate(store, self._component)
        except WasmtimeError as error:
            raise IncompatibleError(
                f"guest {self.name} cannot be instantiated within its grant of "
                f"{self.memory_bytes >> 20} MiB: {_cause(error)}"
            ) from error
        finally:
            engine.alarm.disarm()
        functions: dict[str, Func] = {}
        for (interface, name), exported in self._interfaces.items():
            place = instance.get_export_index(store, exported)
            index = place and instance.get_export_index(store, name, place)
            func = index and instance.get_func(store, index)
            assert func, f"{interface} was checked when the component was loaded"
            functions[name] = func
        return Script(self, store, functions, engine.alarm, call_ms, state_bytes)


class Script:
    """One instance of a script. Made by `ScriptModule.instantiate`.

    Attributes:
        name: File name and digest, for errors.
        roles: `decide` alone.
        memory_bytes: The most that each of its memories may grow to.
        state_refusal: Why the last state was not taken over; empty: it was.
    """

    def __init__(
        self,
        module: ScriptModule,
        store: Store,
        functions: dict[str, Func],
        alarm: Alarm,
        call_ms: int,
        state_bytes: int,
    ) -> None:
        self.name = module.name
        self.roles = module.roles
        self.memory_bytes = module.memory_bytes
        self.state_refusal = ""
        self.lines: tuple[str, ...] = ()
        self._store = store
        self._functions = functions
        self._alarm = alarm
        self._budget = alarm.budget(call_ms)
        self._call_ms = call_ms
        self._state_bytes = state_bytes
        self._thread = get_ident()
        self._broken = ""

    @property
    def broken(self) -> bool:
        """Whether it trapped: it refuses further calls."""
        return bool(self._broken)

    def exports(self, name: str) -> bool:
        """Whether it does what this function of the core ABI does."""
        if name in {"edge_state_save", "edge_state_restore"}:
            return "save" in self._functions
        return name in {"decide", "edge_configure", "edge_log"}

    def call(self, name: str, *texts: str) -> str:
        """Call a function of the world under the script's budget.

        Args:
            name: `configure`, `decide`, `save` or `restore`.
            texts: Its argument.

        Returns:
            Its text; empty where it gives none.

        Raises:
            ScriptRefusal: It answered an error; the instance is used on.
            GuestError: It lacks the function, trapped now, or had trapped before.
            GuestBudgetError: It did not return in time and was interrupted.
        """
        if self._thread != get_ident():
            raise RuntimeError(f"guest {self.name} belongs to another thread")
        if self._broken:
            raise GuestError(f"guest {self.name}: {name} refused: {self._broken}")
        function = self._functions.get(name)
        if function is None:
            raise GuestError(f"guest {self.name} does not export {name}")
        self._store.set_epoch_deadline(DEADLINE_TICKS)
        self._alarm.arm(self._budget)
        try:
            answer = function(self._store, *texts)
        except WasmtimeError as error:
            self._broken = f"{name} trapped before; a fresh instance is needed"
            raise self._failure(name, error) from None
        finally:
            self._alarm.disarm()
        if isinstance(answer, Variant):
            if answer.tag == "ok":
                return str(answer.payload)
            answer = answer.payload
        elif name == "save":
            return str(answer)
        elif answer is None:
            return ""
        raise ScriptRefusal(printable(str(answer)[: 4 * abi.MAX_ERROR_BYTES], abi.MAX_ERROR_BYTES))

    def _failure(self, name: str, error: WasmtimeError) -> GuestError:
        cause = _cause(error)
        where = f"guest {self.name}: {name}"
        if cause == _INTERRUPT:
            return GuestBudgetError(
                f"{where} did not return within {self._call_ms} ms and was interrupted"
            )
        return GuestError(f"{where} trapped: {cause}")

    def configure(self, document: dict[str, Any]) -> None:
        """Hand the script its parameters, once, before the first frame.

        Raises:
            IncompatibleError: It does not accept them (with its own sentence), trapped, or took
                longer than its budget.
        """
        try:
            text = msgspec.json.encode(document).decode()
        except (TypeError, ValueError) as error:
            raise IncompatibleError(
                f"guest {self.name}: its parameters are no JSON: {error}"
            ) from error
        self.configure_text(text)

    def configure_text(self, text: str) -> None:
        """See `configure`; for those who try how a script takes broken documents."""
        if len(text.encode()) > MAX_PARAMETERS_BYTES:
            raise IncompatibleError(
                f"guest {self.name}: its parameters are more than {MAX_PARAMETERS_BYTES} bytes"
            )
        try:
            self.call("configure", text)
        except ScriptRefusal as refused:
            raise IncompatibleError(
                f"guest {self.name}: configure refused its parameters: {refused}"
            ) from None
        except GuestError as failed:
            raise IncompatibleError(str(failed)) from failed

    def save_state(self) -> bytes | None:
        """What a successor needs to go on where this script stopped.

        Returns:
            UTF-8 text of at most the bytes granted; `None` where the script keeps none.

        Raises:
            GuestError: It trapped, or saved more than it may.
        """
        if "save" not in self._functions or not self._state_bytes:
            return None
        state = self.call("save").encode()
        if len(state) > self._state_bytes:
            raise GuestError(
                f"guest {self.name}: save gave {len(state)} bytes; "
                f"it may keep a state of {self._state_bytes}"
            )
        return state or None

    def restore_state(self, state: bytes) -> bool:
        """Hand the script a forerunner's state.

        Returns:
            Whether it took it; if not, it starts empty, and `state_refusal` says why.

        Raises:
            GuestError: It trapped.
        """
        self.state_refusal = self._restore(state)
        return not self.state_refusal

    def _restore(self, state: bytes) -> str:
        if "restore" not in self._functions:
            return f"guest {self.name} takes over no state"
        if len(state) > self._state_bytes:
            return (
                f"guest {self.name} is granted a state of {self._state_bytes} bytes; "
                f"its forerunner left {len(state)}"
            )
        try:
            self.call("restore", state.decode())
        except UnicodeDecodeError:
            return f"guest {self.name}: its forerunner's state is no text"
        except ScriptRefusal as refused:
            return f"guest {self.name}: restore: {refused}"
        return ""

    def log_lines(self) -> tuple[str, ...]:
        """What the script logged since it was asked last."""
        lines, self.lines = self.lines, ()
        return lines


class ScriptRefusal(GuestError):  # noqa: N818 - it is the script's answer, not an accident
    """A script answered an error of its own; the text is its sentence alone."""


def _cause(error: WasmtimeError) -> str:
    """Why wasmtime stopped: the last trap that it names, or else its first line."""
    text = str(error)
    found = _TRAP.findall(text)
    return printable(found[-1] if found else text.partition("\n")[0], 300)
