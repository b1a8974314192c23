"""One worker process, seen from the supervisor: spawned, spoken to, watched, ended.

Spawned and never forked: a forked child inherits locks of threads that it does not have. The
child gets one end of a socket pair and nothing else of ours.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import Final, Self

import msgspec
import structlog

from edge.contracts.messages import FromWorker, Message, Stop
from edge.contracts.plan import PipelinePlan
from edge.daemon.seat import Seat
from edge.daemon.worker_memory import MemoryWatch, prefer_in_want
from edge.errors import EdgeError, TransportError
from edge.worker.channel import SOCKET_BUFFER_BYTES, PacketReader, decode_from_worker, head

log = structlog.get_logger("edge.daemon")

_GREY: Final = memoryview(bytes([128]) * (64 << 10))
"""A probe frame's pixels, a slice at a time. In one piece, a camera of 20 megapixels would take 180
MB of the supervisor at each start of a worker, and some of it stays: malloc keeps what it once had
in the heap where something small lies above."""
END_S: Final = 5.0
"""A killed process is gone at once, but for one that a driver holds in the kernel."""
_SIGNAL_NAMES: Final = {s.value: s.name for s in signal.Signals}


class WorkerGoneError(EdgeError):
    """The worker process ended or closed its channel: another one is started."""


class WorkerMemoryError(WorkerGoneError):
    """The worker process took more memory than `limits.worker_memory_mib`, and was ended."""


class WorkerProcess(asyncio.Protocol):
    """A worker, with a seat for each pipeline in it. All calls on the event loop's thread.

    Args:
        memory_mib: The most that it may have resident.

    Attributes:
        gone: Done when its channel closed, with what is known of why.
    """

    def __init__(self, memory_mib: int) -> None:
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._memory_mib = memory_mib
        self._memory: MemoryWatch | None = None
        self._loss: type[WorkerGoneError] = WorkerGoneError
        self._seats: list[Seat] = []
        self._taken: set[Seat] = set()
        self._packets = PacketReader(max_body_bytes=0)
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def spawn(cls, memory_mib: int) -> Self:
        """Start a process; it does nothing until one of its seats is loaded.

        Raises:
            WorkerGoneError: The kernel has no process, thread, memory or descriptor left for it.
        """
        worker = cls(memory_mib)
        try:
            await worker._start()
        except (OSError, RuntimeError) as failed:  # no thread left, for asyncio to wait for its end
            await worker.end(grace_s=0)
            raise WorkerGoneError(f"a worker cannot be started: {failed}") from failed
        except BaseException:
            await worker.end(grace_s=0)
            raise
        return worker

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        ours.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "edge.worker",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                # A group of its own, which is ended as one. A worker that outlives its supervisor
                # sees its channel close and ends.
                start_new_session=True,
            )
            theirs.close()
            prefer_in_want(self.pid)
            self._memory = MemoryWatch(self.pid, self._memory_mib, self._too_large)
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid if self._process else 0

    def seat(self, plan: PipelinePlan, reference_bytes: int) -> Seat:
        """Give a pipeline a seat; whoever has it ends it.

        Args:
            plan: The pipeline.
            reference_bytes: The most that its encoded references in the worker may take.
        """
        seat = Seat(self, len(self._seats), plan, reference_bytes)
        self._seats.append(seat)
        self._taken.add(seat)
        return seat

    async def leave(self, seat: Seat, grace_s: float) -> None:
        """Take note that a seat is not used any more; the last one ends the process."""
        self._taken.discard(seat)
        if not self._taken:
            await self.end(grace_s)

    async def end(self, grace_s: float) -> None:
        """Ask it to finish, then kill it; returns when the process is gone, or will not go."""
        try:
            if self._process is not None and self._process.returncode is None:
                await self._end(self._process, grace_s)
        finally:
            if self._memory is not None:
                self._memory.stop()
            if self._transport is not None:
                self._transport.abort()

    async def _end(self, process: asyncio.subprocess.Process, grace_s: float) -> None:
        if grace_s > 0:
            self.send(Stop())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await process.wait()
        self.kill()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            log.error(
                "worker_stays",
                pipeline=", ".join(seat.plan.name for seat in self._seats),
                worker_pid=process.pid,
                detail=f"killed {END_S:.0f} s ago, and the kernel has not ended it: a driver hangs",
            )

    def kill(self) -> None:
        """End it at once, even where it is stopped, with a compiler that it has started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _too_large(self, resident_mib: int) -> None:
        self._loss = WorkerMemoryError
        self._lost(
            f"it had {resident_mib} MiB resident; limits.worker_memory_mib is {self._memory_mib}"
        )
        self.kill()

    async def loss(self, when: str = "") -> WorkerGoneError:
        """Say how a worker that is gone was lost; `when` stands before it."""
        return self._loss(f"{when}{self.gone.result()}: {await self.epitaph()}")

    async def epitaph(self) -> str:
        """Say how the process ended; one that has only closed its channel is ended here."""
        if self._process is None:
            return "it never started"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._process.wait()
        if self._process.returncode is None:
            await self.end(grace_s=0)
            return "it left its channel, but did not end"
        status = self._process.returncode
        if status < 0:
            return f"killed by {_SIGNAL_NAMES.get(-status, -status)}"
        return f"exit status {status}"

    def send(self, message: Message, body: bytes = b"") -> None:
        """Send a message; one to a worker that is gone goes nowhere."""
        self._write(head(message, len(body)))
        if body:
            self._write(body)

    async def send_grey(self, message: Message, body_bytes: int) -> None:
        """Send a message with a grey image, no faster than the worker reads it."""
        self._write(head(message, body_bytes))
        for at in range(0, body_bytes, len(_GREY)):
            await self._writable.wait()
            self._write(_GREY[: body_bytes - at])

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, chunk: bytes) -> None:
        """Bytes from the worker; one that speaks nonsense is given up."""
        try:
            messages = [self._read(packet) for packet, _ in self._packets.feed(chunk)]
        except (TransportError, msgspec.DecodeError, UnicodeDecodeError) as nonsense:
            self._lost(f"it sent what is no message: {nonsense}")
            self.kill()
            return
        for seat, message in messages:
            seat.receive(message)

    def _read(self, packet: bytes) -> tuple[Seat, FromWorker]:
        message: FromWorker = decode_from_worker.decode(packet)
        if message.seat >= len(self._seats):
            raise TransportError("a word of a seat that nobody has")
        seat = self._seats[message.seat]
        seat.vet(message)
        return seat, message

    def pause_writing(self) -> None:
        """The worker reads slower than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The worker is gone."""
        self._writable.set()
        self._lost("its channel closed")

    def _lost(self, why: str) -> None:
        if self._memory is not None:
            self._memory.stop()
        if not self.gone.done():
            self.gone.set_result(why)
