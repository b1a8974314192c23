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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

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
)
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.daemon.references import Held
from edge.errors import DeploymentError, EdgeError, TrialError
from edge.worker.channel import SOCKET_BUFFER_BYTES, PacketReader, decode_from_worker, head

T = TypeVar("T")

PROBE_TICKET: Final = (1 << 63) - 1
_GRAY: Final = 128
_SIGNAL_NAMES: Final = {s.value: s.name for s in signal.Signals}


class WorkerGoneError(EdgeError):
    """The worker process ended or closed its channel: another one is started."""


class WorkerProcess(asyncio.Protocol):
    """A worker of one pipeline. All calls on the event loop's thread.

    Attributes:
        provider: Set once it is loaded.
        gone: Done when its channel closed, with what is known of why.
    """

    def __init__(self, plan: PipelinePlan) -> None:
        loop = asyncio.get_running_loop()
        self.plan = plan
        self.provider = ""
        self.gone: asyncio.Future[str] = loop.create_future()
        self.on_answer: Callable[[Judged | Failed], None] = lambda _answer: None
        self._packets = PacketReader()
        self._first: asyncio.Future[Loaded | LoadFailed] = loop.create_future()
        self._probe: asyncio.Future[Judged | Failed] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    async def spawn(cls, plan: PipelinePlan) -> Self:
        """Start a process; it does nothing until `load`."""
        worker = cls(plan)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        ours.setblocking(False)
        try:
            worker._process = await asyncio.create_subprocess_exec(
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
            await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            await worker.end(grace_s=0)
            raise
        return worker

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
        self.provider = first.provider
        return first

    async def probe(self, deadline_ns: int, timeout_s: float) -> Judged:
        """Send a grey frame the whole way.

        Raises:
            TrialError: It did not come back as a judgement.
            WorkerGoneError: The process ended.
        """
        image = self.plan.image
        pixels = bytes([_GRAY]) * image.max_bytes
        content = ContentType(Encoding.RAW, image.pixel_format, image.max_width, image.max_height)
        digest = ""
        if self.plan.reference:
            digest = "probe"
            self._send(Reference(digest, content), pixels)
        absent = (SignalValue(),) * len(self.plan.signals)
        self._send(Judge(PROBE_TICKET, content, deadline_ns, 0, digest, absent, probe=True), pixels)
        answer = await self._within(self._probe, timeout_s, "the probe frame")
        if digest:
            self._send(Forget(digest))
        if isinstance(answer, Failed):
            raise TrialError(f"the probe frame failed: {answer.reason}: {answer.detail}")
        return answer

    def judge(self, request: Judge, payload: bytes) -> None:
        """Send a frame."""
        self._send(request, payload)

    def keep(self, reference: Held) -> None:
        """Send a reference image."""
        self._send(Reference(reference.digest, reference.content), reference.payload)

    def forget(self, digest: str) -> None:
        """Tell it to drop a reference image."""
        self._send(Forget(digest))

    async def end(self, grace_s: float) -> None:
        """Ask it to finish, then kill it; returns when the process is gone."""
        if self._process is None:
            return
        if grace_s > 0:
            self._send(Stop())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
        if self._process.returncode is None:
            self.kill()
        await self._process.wait()
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End it at once, even where it is stopped."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def epitaph(self) -> str:
        """Say how the process ended."""
        if self._process is None:
            return "it never started"
        status = await self._process.wait()
        if status < 0:
            return f"killed by {_SIGNAL_NAMES.get(-status, -status)}"
        return f"exit status {status}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, chunk: bytes) -> None:
        """Bytes from the worker."""
        for packet, _ in self._packets.feed(chunk):
            self._receive(decode_from_worker.decode(packet))

    def connection_lost(self, _exc: Exception | None) -> None:
        """The worker is gone."""
        if not self.gone.done():
            self.gone.set_result("its channel closed")

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
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(head(message, len(body)))
        if body:
            self._transport.write(body)

    async def _within(self, answer: asyncio.Future[T], timeout_s: float, what: str) -> T:
        either: tuple[asyncio.Future[Any], ...] = (answer, self.gone)
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.gone.done():
            raise WorkerGoneError(f"the worker ended during {what}: {await self.epitaph()}")
        raise TrialError(f"{what} took longer than {timeout_s:.0f} s")
