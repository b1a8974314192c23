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
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
import structlog

from edge.contracts.frame import ContentType, Encoding
from edge.contracts.messages import (
    Failed,
    Forget,
    FromWorker,
    Judge,
    Judged,
    Loaded,
    LoadFailed,
    Message,
    PolicyState,
    Reference,
    Start,
    Stop,
    TakeUp,
)
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.daemon.references import Held
from edge.daemon.worker_memory import MemoryWatch, prefer_in_want
from edge.errors import DeploymentError, EdgeError, TransportError, TrialError
from edge.worker.channel import SOCKET_BUFFER_BYTES, PacketReader, decode_from_worker, head

log = structlog.get_logger("edge.daemon")

T = TypeVar("T")

PROBE_TICKET: Final = (1 << 63) - 1
_GREY: Final = memoryview(bytes([128]) * (64 << 10))
"""A probe frame's pixels, a slice at a time. In one piece, a camera of 20 megapixels would take 180
MB of the supervisor at each start of a worker, and some of it stays: malloc keeps what it once had
in the heap where something small lies above."""
END_S: Final = 5.0
"""A killed process is gone at once, but for one that a driver holds in the kernel."""
_HOST_TIMES: Final = frozenset({"total", "transport", "wait", "channel"})
"""Names in a verdict's account of its time that are not a worker's to give."""
_SIGNAL_NAMES: Final = {s.value: s.name for s in signal.Signals}


class WorkerGoneError(EdgeError):
    """The worker process ended or closed its channel: another one is started."""


class WorkerMemoryError(WorkerGoneError):
    """The worker process took more memory than `limits.worker_memory_mib`, and was ended."""


class WorkerProcess(asyncio.Protocol):
    """A worker of one pipeline. All calls on the event loop's thread.

    It holds a reference image from the first frame that names it, so what may wait for a worker
    that does not read is bounded: the frames at work, and theirs.

    Args:
        plan: The pipeline.
        reference_bytes: The most that the encoded references in the worker may take.
        memory_mib: The most that it may have resident.

    Attributes:
        provider: Set once it is loaded.
        versions: Likewise, of its engines.
        gone: Done when its channel closed, with what is known of why.
    """

    def __init__(self, plan: PipelinePlan, reference_bytes: int, memory_mib: int) -> None:
        loop = asyncio.get_running_loop()
        self.plan = plan
        self.provider = ""
        self.versions: dict[str, str] = {}
        self.gone: asyncio.Future[str] = loop.create_future()
        self.on_answer: Callable[[Judged | Failed], None] = lambda _answer: None
        self._reference_bytes = reference_bytes
        self._memory_mib = memory_mib
        self._memory: MemoryWatch | None = None
        self._loss: type[WorkerGoneError] = WorkerGoneError
        self._held: OrderedDict[str, int] = OrderedDict()
        self._packets = PacketReader(max_body_bytes=0)
        self._stages = frozenset(stage for stage, _ in plan.guests)
        self._first: asyncio.Future[Loaded | LoadFailed] = loop.create_future()
        self._probe: asyncio.Future[Judged | Failed] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def spawn(cls, plan: PipelinePlan, reference_bytes: int, memory_mib: int) -> Self:
        """Start a process; it does nothing until `load`.

        Raises:
            WorkerGoneError: The kernel has no process, memory or descriptor left for it.
        """
        worker = cls(plan, reference_bytes, memory_mib)
        try:
            await worker._start()
        except OSError as failed:
            await worker.end(grace_s=0)
            raise WorkerGoneError(f"a worker cannot be started: {failed.strerror}") from failed
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
                # A worker that outlives its supervisor sees its channel close and ends.
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

    async def load(self, cache_dir: Path, policy: PolicyState, timeout_s: float) -> Loaded:
        """Have it build its pipeline.

        Raises:
            DeploymentError: The pipeline cannot stand on this device.
            WorkerGoneError: The process ended.
            TrialError: It took too long.
        """
        self._send(Start(self.plan, str(cache_dir), policy))
        first = await self._within(self._first, timeout_s, "loading")
        if isinstance(first, LoadFailed):
            raise DeploymentError(f"{first.error}: {first.detail}")
        self.provider, self.versions = first.provider, first.versions
        return first

    async def probe(self, deadline_ns: int, timeout_s: float) -> Judged:
        """Send a grey frame the whole way.

        Raises:
            TrialError: It did not come back as a judgement.
            WorkerGoneError: The process ended.
        """
        image = self.plan.image
        content = ContentType(Encoding.RAW, image.pixel_format, image.max_width, image.max_height)
        key = "probe" if self.plan.reference else ""
        absent = (SignalValue(),) * len(self.plan.signals)
        request = Judge(PROBE_TICKET, content, deadline_ns, 0, key, absent, probe=True)
        try:
            async with asyncio.timeout(timeout_s):
                if key:
                    await self._send_grey(Reference(key, content), image.max_bytes)
                await self._send_grey(request, image.max_bytes)
        except TimeoutError:
            raise TrialError(f"the probe frame was not read in {timeout_s:.0f} s") from None
        answer = await self._within(self._probe, timeout_s, "the probe frame")
        if key:
            self._send(Forget(key))
        if isinstance(answer, Failed):
            raise TrialError(f"the probe frame failed: {answer.reason}: {answer.detail}")
        return answer

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        """Send a frame, and before it its reference where the worker has not got that yet."""
        if reference is not None:
            self._lend(reference)
        self._send(request, payload)

    def take_up(self, policy: PolicyState) -> None:
        """Have its policy go on from a state, with the next frame."""
        self._send(TakeUp(policy))

    def forget(self, key: str) -> None:
        """Tell it to drop a reference image; one that it has not got is no error."""
        if self._held.pop(key, None) is not None:
            self._send(Forget(key))

    def _lend(self, reference: Held) -> None:
        if reference.key in self._held:
            self._held.move_to_end(reference.key)
            return
        size = len(reference.payload)
        while self._held and sum(self._held.values()) + size > self._reference_bytes:
            # The channel keeps the order: frames that were sent before still find theirs.
            self.forget(next(iter(self._held)))
        self._held[reference.key] = size
        self._send(Reference(reference.key, reference.content), reference.payload)

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
            self._send(Stop())
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
                pipeline=self.plan.name,
                worker_pid=process.pid,
                detail=f"killed {END_S:.0f} s ago, and the kernel has not ended it: a driver hangs",
            )

    def kill(self) -> None:
        """End it at once, even where it is stopped."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def _too_large(self, resident_mib: int) -> None:
        self._loss = WorkerMemoryError
        self._lost(
            f"it had {resident_mib} MiB resident; limits.worker_memory_mib is {self._memory_mib}"
        )
        self.kill()

    async def loss(self) -> WorkerGoneError:
        """Say how a worker that is gone was lost."""
        return self._loss(f"{self.gone.result()}: {await self.epitaph()}")

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, chunk: bytes) -> None:
        """Bytes from the worker; one that speaks nonsense is given up."""
        try:
            messages = [self._read(head) for head, _ in self._packets.feed(chunk)]
        except (TransportError, msgspec.DecodeError, UnicodeDecodeError) as nonsense:
            self._lost(f"it sent what is no message: {nonsense}")
            self.kill()
            return
        for message in messages:
            self._receive(message)

    def _read(self, packet: bytes) -> FromWorker:
        """Read a message, and hold it to the plan."""
        message: FromWorker = decode_from_worker.decode(packet)
        if isinstance(message, Judged | Failed):
            if any(line.role not in self._stages for line in message.lines):
                raise TransportError("a line of a guest that the plan has not")
            if _HOST_TIMES & message.stage_ms.keys():
                raise TransportError("a stage under a name that is not a worker's")
        wishes = message.actions if isinstance(message, Judged) else ()
        if any(wish.index >= len(self.plan.actions) for wish in wishes):
            raise TransportError("an action that the plan does not grant")
        return message

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

    def _receive(self, message: FromWorker) -> None:
        if isinstance(message, Loaded | LoadFailed):
            if not self._first.done():
                self._first.set_result(message)
        elif message.ticket == PROBE_TICKET:
            if not self._probe.done():
                self._probe.set_result(message)
        else:
            self.on_answer(message)

    def _send(self, message: Message, body: bytes = b"") -> None:
        self._write(head(message, len(body)))
        if body:
            self._write(body)

    async def _send_grey(self, message: Message, body_bytes: int) -> None:
        """Send a message with a grey image, no faster than the worker reads it."""
        self._write(head(message, body_bytes))
        for at in range(0, body_bytes, len(_GREY)):
            await self._writable.wait()
            self._write(_GREY[: body_bytes - at])

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _within(self, answer: asyncio.Future[T], timeout_s: float, what: str) -> T:
        either: tuple[asyncio.Future[Any], ...] = (answer, self.gone)
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.gone.done():
            raise self._loss(
                f"the worker ended during {what}: {self.gone.result()}: {await self.epitaph()}"
            )
        raise TrialError(f"{what} took longer than {timeout_s:.0f} s")
