"""One instance of a guest: its memory, and calls into it under a budget.

Owned by the engine thread. Another thread may read and write memory through views (the decode
thread fills image slots), but never calls.
"""

import ctypes
import json
import math
from threading import get_ident
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from wasmtime import Store, Trap, TrapCode, WasmtimeError

from edge.contracts import abi
from edge.errors import GuestBudgetError, GuestError, IncompatibleError
from edge.wasm.calls import GuestFunction

MAX_PARAMETERS_BYTES: Final = 64 << 10
"""Size of a configuration document as JSON."""

_UNKNOWN_OFFSET: Final = (1 << 64) - 1
_ADDRESS_MASK: Final = 0xFFFF_FFFF
AnyStruct = TypeVar("AnyStruct", bound=abi.Struct)


class _Region:
    """A stretch of guest memory as NumPy sees it; the base of every view, so it keeps the Store."""

    __slots__ = ("__array_interface__", "_store")

    def __init__(self, store: Store, host_address: int, nbytes: int) -> None:
        self._store = store
        self.__array_interface__ = {
            "version": 3,
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (host_address, False),
        }


class Guest:
    """One instance. Made by `GuestModule.instantiate`.

    Attributes:
        name: File name and digest, for errors.
        roles: Which of `abi.ROLES` it serves.
        memory_bytes: Size of its memory.
        state_refusal: Why the last state was not taken over; empty: it was.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        memory: tuple[int, int],
        functions: dict[str, GuestFunction],
        *,
        roles: frozenset[str],
        call_ms: int,
        fuel: int = 0,
        state_bytes: int = abi.MAX_STATE_BYTES,
    ) -> None:
        self.name = name
        self.roles = roles
        self._store = store
        self._base, self.memory_bytes = memory
        self._functions = functions
        self._call_ms = call_ms
        self._fuel = fuel
        self._state_bytes = state_bytes
        self.state_refusal = ""
        self._thread = get_ident()
        self._broken = ""
        self._allocated: list[tuple[int, int]] = []
        self._state = 0
        self._check_version()
        if "edge_state_save" in functions or "edge_state_restore" in functions:
            self._state = self.alloc(abi.MAX_STATE_BYTES)

    @property
    def broken(self) -> bool:
        """Whether it trapped: its memory may be half-written, and it refuses further calls."""
        return bool(self._broken)

    def exports(self, name: str) -> bool:
        """Whether the guest has this function of the ABI."""
        return name in self._functions

    @property
    def fuel_used(self) -> int:
        """What the last call took, in fuel: about one a Wasm instruction; 0 where not metered."""
        return self._fuel - self._store.get_fuel() if self._fuel else 0

    def _check_version(self) -> None:
        wanted = self._set_up("edge_abi") & _ADDRESS_MASK
        major, minor = wanted >> 16, wanted & 0xFFFF
        if major != abi.ABI_MAJOR or minor > abi.ABI_MINOR:
            raise IncompatibleError(
                f"guest {self.name}: it wants guest ABI {major}.{minor}; "
                f"this host has {abi.ABI_MAJOR}.{abi.ABI_MINOR}: rebuild it with this host's SDK"
            )

    # Memory

    def alloc(self, nbytes: int, alignment: int = abi.TENSOR_ALIGNMENT) -> int:
        """Ask the guest for memory, at set-up only; it is the host's until the guest's end.

        Args:
            nbytes: At least 1.
            alignment: A power of two.

        Returns:
            Its address: aligned, inside the guest's memory, apart from all earlier ones.

        Raises:
            IncompatibleError: There is no room, the address is not such a one, or it trapped.
        """
        if nbytes > self.memory_bytes:
            raise IncompatibleError(
                f"guest {self.name}: {nbytes} bytes do not fit into its {self.memory_bytes}: "
                "build the guest with more memory, or grant fewer or smaller images"
            )
        address = self._set_up("edge_alloc", nbytes, alignment) & _ADDRESS_MASK
        asked = f"guest {self.name}: edge_alloc({nbytes}, {alignment})"
        if address == 0:
            raise IncompatibleError(
                f"{asked} found no room in {self.memory_bytes / 2**20:g} MiB: "
                "build the guest with more memory, or grant fewer or smaller images"
            )
        end = address + nbytes
        if address % alignment:
            raise IncompatibleError(f"{asked} returned {address}, which is not aligned")
        if end > self.memory_bytes:
            raise IncompatibleError(
                f"{asked} returned {address}, which ends outside its {self.memory_bytes} bytes"
            )
        for start, stop in self._allocated:
            if address < stop and start < end:
                raise IncompatibleError(
                    f"{asked} returned {address}, inside what it gave before ({start}..{stop})"
                )
        self._allocated.append((address, end))
        return address

    def pointer(self, address: int, nbytes: int) -> int:
        """Host address of a stretch of guest memory.

        Valid while this guest, or any view of it, is alive.

        Raises:
            GuestError: It does not lie inside the guest's memory.
        """
        if address < 0 or nbytes < 0 or address + nbytes > self.memory_bytes:
            raise GuestError(
                f"guest {self.name}: {nbytes} bytes at {address} do not lie inside its "
                f"{self.memory_bytes} bytes"
            )
        return self._base + address

    def view(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A writable array over guest memory; nothing is copied.

        It keeps the instance's memory alive, so it may outlive this object.

        Raises:
            GuestError: It does not lie inside the guest's memory.
        """
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        region = _Region(self._store, self.pointer(address, nbytes), nbytes)
        return np.asarray(region).view(kind).reshape(shape)

    def map(self, struct: type[AnyStruct], address: int) -> AnyStruct:
        """An ABI struct in place; it keeps the instance's memory alive.

        Raises:
            GuestError: It does not lie inside the guest's memory.
        """
        host = self.pointer(address, ctypes.sizeof(struct))
        instance = struct.from_address(host)
        instance._store = self._store
        return instance

    # Calls

    def call(self, name: str, first: int = 0, second: int = 0) -> int:
        """Call a function of the ABI under the guest's budget.

        Args:
            name: One of `abi.EXPORTS` that the guest has.
            first: Address or number, an i32; ignored by functions without parameters.
            second: Likewise.

        Returns:
            The signed i32 result.

        Raises:
            GuestError: The guest lacks the function, trapped now, or had trapped before.
            GuestBudgetError: It did not return in time and was interrupted.
        """
        if self._thread != get_ident():
            raise RuntimeError(f"guest {self.name} belongs to another thread")
        if self._broken:
            raise GuestError(f"guest {self.name}: {name} refused: {self._broken}")
        function = self._functions.get(name)
        if function is None:
            raise GuestError(f"guest {self.name} does not export {name}")
        try:
            return function(first, second)
        except (Trap, WasmtimeError) as error:
            failure = failure_of(error, f"guest {self.name}: {name}", self._call_ms, self._fuel)
            self._broken = f"{name} trapped before; a fresh instance is needed"
            raise failure from None

    def _set_up(self, name: str, first: int = 0, second: int = 0) -> int:
        """Call at set-up: a guest that traps there cannot serve its deployment at all."""
        try:
            return self.call(name, first, second)
        except GuestError as error:
            raise IncompatibleError(str(error)) from error

    def configure(self, document: dict[str, Any]) -> None:
        """Hand the guest its parameters, once, before the first frame.

        Raises:
            IncompatibleError: It does not accept them (with its own sentence where it has one),
                trapped, or took longer than its budget.
        """
        try:
            text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise IncompatibleError(
                f"guest {self.name}: its parameters are no JSON: {error}"
            ) from error
        if len(text) > MAX_PARAMETERS_BYTES:
            raise IncompatibleError(
                f"guest {self.name}: its parameters are {len(text)} bytes of JSON; "
                f"at most {MAX_PARAMETERS_BYTES} may be"
            )
        address = self.alloc(len(text), 8)
        self.view(address, (len(text),), np.uint8)[:] = np.frombuffer(text, np.uint8)
        result = self._set_up("edge_configure", address, len(text))
        if result != abi.OK:
            raise IncompatibleError(
                f"guest {self.name}: edge_configure refused its parameters: "
                f"{self.error_text(result)}"
            )

    def error_text(self, result: int) -> str:
        """What a result other than OK means, with the guest's own sentence where it has one."""
        meaning = abi.ERRORS.get(result, f"result {result}, which the ABI does not know")
        if self._broken or "edge_error" not in self._functions:
            return meaning
        try:
            address = self.call("edge_error") & _ADDRESS_MASK
        except GuestError as error:
            return f"{meaning} ({error})"
        if address == 0:
            return meaning
        if address >= self.memory_bytes:
            return f"{meaning} (edge_error points outside the guest's memory)"
        most = min(abi.MAX_ERROR_BYTES, self.memory_bytes - address)
        raw = ctypes.string_at(self._base + address, most).partition(b"\0")[0]
        sentence = printable(raw.decode("utf-8", "replace"), abi.MAX_ERROR_BYTES)
        return f"{meaning}: {sentence}" if sentence else meaning

    # State

    def save_state(self) -> bytes | None:
        """What a successor needs to go on where this guest stopped.

        Returns:
            A copy of at most the bytes granted; `None` where the guest keeps none, or may not.

        Raises:
            GuestError: It trapped, failed, or claims more than it was given room for.
        """
        if "edge_state_save" not in self._functions or not self._state_bytes:
            return None
        written = self.call("edge_state_save", self._state, self._state_bytes)
        if written < 0:
            raise GuestError(
                f"guest {self.name}: edge_state_save failed within the {self._state_bytes} bytes "
                f"of state_bytes: {self.error_text(written)}"
            )
        if written > self._state_bytes:
            raise GuestError(
                f"guest {self.name}: edge_state_save claims {written} bytes; "
                f"it was given room for {self._state_bytes}"
            )
        return ctypes.string_at(self._base + self._state, written) if written else None

    def restore_state(self, state: bytes) -> bool:
        """Hand the guest a forerunner's state.

        Returns:
            Whether it took it; if not, it starts empty, and `state_refusal` says why.

        Raises:
            GuestError: It trapped.
        """
        if "edge_state_restore" not in self._functions:
            self.state_refusal = f"guest {self.name} takes over no state"
            return False
        if len(state) > self._state_bytes:
            self.state_refusal = (
                f"guest {self.name} is granted a state of {self._state_bytes} bytes; "
                f"its forerunner left {len(state)}"
            )
            return False
        ctypes.memmove(self._base + self._state, state, len(state))
        result = self.call("edge_state_restore", self._state, len(state))
        self.state_refusal = (
            ""
            if result == abi.OK
            else f"guest {self.name}: edge_state_restore: {self.error_text(result)}"
        )
        return result == abi.OK

    # Log

    def log_lines(self) -> tuple[str, ...]:
        """What the guest logged since it was asked last.

        Returns:
            At most `abi.MAX_LOG_LINES` lines of at most `abi.MAX_LOG_LINE_BYTES`, control
            characters escaped; the rest is cut off.

        Raises:
            GuestError: It trapped, or points outside its memory.
        """
        if "edge_log" not in self._functions:
            return ()
        address = self.call("edge_log") & _ADDRESS_MASK
        if address == 0:
            return ()
        if address >= self.memory_bytes:
            raise GuestError(f"guest {self.name}: edge_log points outside its memory")
        most = min(abi.MAX_LOG_BYTES, self.memory_bytes - address)
        raw = ctypes.string_at(self._base + address, most).partition(b"\0")[0]
        lines = [line[: abi.MAX_LOG_LINE_BYTES] for line in raw.split(b"\n") if line]
        return tuple(
            escaped(line.decode("utf-8", "replace")) for line in lines[: abi.MAX_LOG_LINES]
        )


def failure_of(error: Trap | WasmtimeError, where: str, call_ms: int, fuel: int = 0) -> GuestError:
    """Translate what wasmtime raised into our error; what the guest named is made printable."""
    if not isinstance(error, Trap):
        return GuestError(f"{where} failed: {printable(str(error), 500)}")
    code = error.trap_code
    if code is TrapCode.INTERRUPT:
        return GuestBudgetError(f"{where} did not return within {call_ms} ms and was interrupted")
    if code is TrapCode.OUT_OF_FUEL:
        return GuestBudgetError(f"{where} used up its fuel of {fuel} and was interrupted")
    kind = _KINDS.get(code) or (code.name.lower().replace("_", " ") if code else "unknown trap")
    frames = error.frames
    place = ""
    if frames:
        frame = frames[0]
        place = f", in function {printable(frame.func_name or f'#{frame.func_index}', 80)}"
        if frame.module_offset != _UNKNOWN_OFFSET:
            place += f" at offset {frame.module_offset:#x} of the module"
    return GuestError(f"{where} trapped: {kind}{place}")


_KINDS: Final[dict[TrapCode | None, str]] = {
    TrapCode.STACK_OVERFLOW: "stack overflow",
    TrapCode.MEMORY_OUT_OF_BOUNDS: "out-of-bounds memory access",
    TrapCode.UNREACHABLE: "unreachable executed",
}


def escaped(text: str) -> str:
    """A line in which whatever could steer a terminal or a log is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(text: str, most: int) -> str:
    """One line that cannot steer a terminal or a log, of at most `most` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(clean.split())[:most]
