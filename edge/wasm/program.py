"""Programs: commands of WASI preview 1 that turn a picture into findings, by way of wasi-nn.

Each run is a fresh instance: the picture on standard input, the findings on standard output, and
where it fails, a sentence on standard error. Host functions written in Python answer a number and
never raise: wasmtime's binding hands such an exception to whichever thread asks next.
"""

import ctypes
import struct
from collections.abc import Callable
from threading import get_ident
from typing import Final

from wasmtime import (
    Engine,
    Func,
    FuncType,
    Global,
    Instance,
    Memory,
    MemoryType,
    Module,
    Store,
    Table,
    Trap,
    ValType,
    WasmtimeError,
)

from edge.errors import GuestError, IncompatibleError
from edge.wasm import wasi
from edge.wasm.guest import failure_of, printable
from edge.wasm.interruption import DEADLINE_TICKS, Alarm
from edge.wasm.neural import Network, NeuralCalls
from edge.wasm.program_link import HOSTED, NN_MODULE, STATUS_EXPORT, TABLE_EXPORT
from edge.wasm.shape import PAGE_BYTES

MAX_OUTPUT_BYTES: Final = 64 << 10
MAX_COMPLAINT_BYTES: Final = 1024
"""Of standard error; the rest is dropped."""
_MAX_TABLE_ELEMENTS: Final = 65_536
_MAX_TABLES: Final = 8
_MAX_VECTORS: Final = 1024
"""Buffers that one read or write may name."""
_EBADF, _EFAULT, _EFBIG, _EINVAL, _EIO = 8, 21, 22, 28, 29
_STDIN, _STDOUT, _STDERR = range(3)
_VECTOR: Final = struct.Struct("<II")
_START: Final = "_start"


class ProgramModule:
    """A program that was loaded and verified; `run` makes an instance of it each time.

    Args:
        engine: Of core guests, with its alarm.
        module: Compiled; imports nothing (`edge.wasm.program_link`).
        name: File name and the digest's first digits, for errors.
        sha256: Digest of the Wasm file, in hex.
        memory_mib: The most that its memory may grow to.

    Raises:
        IncompatibleError: It is no command, or begins with more memory than it is granted.
    """

    def __init__(
        self,
        engine: Engine,
        alarm: Alarm,
        module: Module,
        *,
        name: str,
        sha256: str,
        memory_mib: int,
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.memory_bytes = memory_mib << 20
        self._engine = engine
        self._alarm = alarm
        self._module = module
        self._thread: int | None = None
        exports = {export.name: export.type for export in module.exports}
        memory, start = exports.get("memory"), exports.get(_START)
        if not isinstance(memory, MemoryType) or memory.is_64 or memory.is_shared:
            raise self._unfit('it exports no 32-bit memory named "memory"')
        if memory.limits.min * PAGE_BYTES > self.memory_bytes:
            raise self._unfit(
                f"it begins with {memory.limits.min * PAGE_BYTES / 2**20:g} MiB of memory; "
                f"{memory_mib} MiB are granted"
            )
        if not isinstance(start, FuncType) or len(start.params) or len(start.results):
            raise self._unfit(f"it exports no function {_START} without parameters: no command")

    def run(self, picture: bytes | memoryview, network: Network, call_ms: int) -> bytes:
        """Run the program once, on one picture.

        Args:
            picture: What it finds on standard input.
            network: The model that wasi-nn gives it.
            call_ms: The longest that the run may take, inference included.

        Returns:
            What it wrote to standard output.

        Raises:
            GuestError: It trapped, ended with a status other than 0, or wrote too much.
            GuestBudgetError: It took longer than its budget.
            InferenceError: The model could not be run.
        """
        self._thread = self._thread or get_ident()
        if self._thread != get_ident():
            raise RuntimeError(f"program {self.name} belongs to another thread")
        store = Store(self._engine)
        store.set_limits(
            memory_size=self.memory_bytes,
            table_elements=_MAX_TABLE_ELEMENTS,
            tables=_MAX_TABLES,
            instances=1,
            memories=1,
        )
        store.set_epoch_deadline(DEADLINE_TICKS)
        streams = _Streams(picture)
        neural = NeuralCalls(streams, network)
        self._alarm.arm(self._alarm.budget(call_ms))
        try:
            self._start(store, streams, neural, call_ms)
        finally:
            self._alarm.disarm()
            streams.close()
        if neural.failure is not None:
            raise neural.failure
        if streams.bug is not None:
            raise streams.bug
        if streams.overflowed:
            raise GuestError(
                f"guest {self.name}: wrote more than {MAX_OUTPUT_BYTES} bytes to standard output"
            )
        return bytes(streams.output)

    def _start(self, store: Store, streams: "_Streams", neural: NeuralCalls, call_ms: int) -> None:
        status: Global | None = None
        try:
            exports = Instance(store, self._module, []).exports(store)
            memory, table = exports["memory"], exports[TABLE_EXPORT]
            found, start = exports[STATUS_EXPORT], exports[_START]
            assert isinstance(memory, Memory)
            assert isinstance(table, Table)
            assert isinstance(found, Global)
            assert isinstance(start, Func)
            status = found
            streams.open(store, memory)
            for slot, function in enumerate(_functions(store, streams, neural)):
                table.set(store, slot, function)
            start(store)
        except Trap as trap:
            code = -1 if status is None else int(status.value(store))
            if code == 0:
                return
            if code > 0:
                said = printable(streams.complaint.decode(errors="replace"), MAX_COMPLAINT_BYTES)
                raise GuestError(
                    f"guest {self.name}: ended with status {code}: {said or 'it said nothing'}"
                ) from None
            raise failure_of(trap, f"guest {self.name}: {_START}", call_ms) from None
        except WasmtimeError as error:
            raise failure_of(error, f"guest {self.name}: {_START}", call_ms) from None

    def _unfit(self, problem: str) -> IncompatibleError:
        return IncompatibleError(f"guest {self.name}: {problem}")


class _Streams:
    """Standard streams of one run, and the memory that they are read from and written to."""

    def __init__(self, picture: bytes | memoryview) -> None:
        self._picture = memoryview(picture).cast("B")
        self._at = 0
        self._store: Store | None = None
        self._memory: Memory | None = None
        self.output = bytearray()
        self.complaint = bytearray()
        self.overflowed = False
        self.bug: Exception | None = None

    def open(self, store: Store, memory: Memory) -> None:
        """Say whose memory it is."""
        self._store, self._memory = store, memory

    def close(self) -> None:
        """Let go of the store: wasmtime keeps host functions, and what they hold, as long as it."""
        self._store = self._memory = None

    def view(self, address: int, count: int) -> memoryview | None:
        """A stretch of the memory as it is now; `None` where it does not lie inside."""
        if self._store is None or self._memory is None:
            return None
        if address + count > self._memory.data_len(self._store):
            return None
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        return memoryview((ctypes.c_ubyte * count).from_address(base + address)).cast("B")

    def fd_read(self, stream: int, vectors: int, count: int, read: int) -> int:
        """Give the picture's next bytes."""
        if stream != _STDIN:
            return _EBADF
        places = self._buffers(vectors, count)
        done = self.view(read, 4)
        if places is None or done is None:
            return _EFAULT
        total = 0
        for place in places:
            part = self._picture[self._at : self._at + len(place)]
            place[: len(part)] = part
            self._at += len(part)
            total += len(part)
        done[:] = total.to_bytes(4, "little")
        return 0

    def fd_write(self, stream: int, vectors: int, count: int, written: int) -> int:
        """Take findings, or a complaint."""
        if stream not in {_STDOUT, _STDERR}:
            return _EBADF
        parts = self._buffers(vectors, count)
        done = self.view(written, 4)
        if parts is None or done is None:
            return _EFAULT
        total = sum(map(len, parts))
        kept, most = (
            (self.output, MAX_OUTPUT_BYTES)
            if stream == _STDOUT
            else (self.complaint, MAX_COMPLAINT_BYTES)
        )
        if stream == _STDOUT and len(kept) + total > most:
            self.overflowed = True
            return _EFBIG
        for part in parts:
            kept += part[: most - len(kept)]
        done[:] = (total & 0xFFFF_FFFF).to_bytes(4, "little")
        return 0

    def _buffers(self, vectors: int, count: int) -> list[memoryview] | None:
        listed = self.view(vectors, 8 * count) if count <= _MAX_VECTORS else None
        if listed is None:
            return None
        found = [self.view(*_VECTOR.unpack_from(listed, 8 * index)) for index in range(count)]
        places = [place for place in found if place is not None]
        return places if len(places) == count else None


def _functions(store: Store, streams: _Streams, neural: NeuralCalls) -> list[Func]:
    """The host functions in the order of the table."""
    i32 = ValType.i32()
    served: dict[tuple[str, str], Callable[..., int]] = {
        (wasi.MODULE, "fd_read"): streams.fd_read,
        (wasi.MODULE, "fd_write"): streams.fd_write,
    }
    return [
        Func(
            store,
            FuncType([i32] * parameters, [i32]),
            _unsigned(
                served.get((module, name)) or getattr(neural, name),
                streams,
                1 if module == NN_MODULE else _EIO,
            ),
        )
        for (module, name), parameters in HOSTED.items()
    ]


def _unsigned(function: Callable[..., int], streams: _Streams, failed: int) -> Callable[..., int]:
    """Addresses and sizes are unsigned; a bug of ours becomes a number now, and is raised later."""

    def call(*words: int) -> int:
        try:
            return function(*(word & 0xFFFF_FFFF for word in words))
        except Exception as bug:  # noqa: BLE001 - nothing may leave a host function
            streams.bug = bug
            return failed

    return call
