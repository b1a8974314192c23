"""A pipeline's seat in a worker process: what it is lent there, asked, and what it answers.

A process has one seat, or one for each of the pipelines that share it. Whoever has a seat need not
know which: but for the process's end, seats have nothing to do with each other.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from edge.contracts.frame import ContentType, Encoding
from edge.contracts.messages import (
    Failed,
    Forget,
    FromWorker,
    Judge,
    Judged,
    Loaded,
    LoadFailed,
    PolicyState,
    Reference,
    Start,
    TakeUp,
)
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.daemon.references import Held
from edge.errors import DeploymentError, TransportError, TrialError

if TYPE_CHECKING:
    from edge.daemon.worker_process import WorkerGoneError, WorkerProcess

T = TypeVar("T")

PROBE_TICKET: Final = (1 << 63) - 1
_HOST_TIMES: Final = frozenset({"total", "transport", "wait", "channel"})
"""Names in a verdict's account of its time that are not a worker's to give."""


class Seat:
    """A pipeline in a worker. All calls on the event loop's thread.

    The worker holds a reference image from the first frame that names it, so what may wait for one
    that does not read is bounded: the frames at work, and theirs.

    Args:
        process: Whose seat it is; it makes them.
        number: Of the seat.
        plan: The pipeline.
        reference_bytes: The most that its encoded references in the worker may take.

    Attributes:
        plan: As given.
        provider: Set once it is loaded.
        versions: Likewise, of its engines.
        on_answer: Called with each answer to a frame, but for the probe's.
    """

    def __init__(
        self, process: "WorkerProcess", number: int, plan: PipelinePlan, reference_bytes: int
    ) -> None:
        loop = asyncio.get_running_loop()
        self.plan = plan
        self.provider = ""
        self.versions: dict[str, str] = {}
        self.on_answer: Callable[[Judged | Failed], None] = unheard
        self._process = process
        self._number = number
        self._reference_bytes = reference_bytes
        self._held: OrderedDict[str, int] = OrderedDict()
        self._stages = frozenset(stage for stage, _ in plan.guests)
        self._classes = frozenset(plan.classes)
        self._first: asyncio.Future[Loaded | LoadFailed] = loop.create_future()
        self._probe: asyncio.Future[Judged | Failed] = loop.create_future()

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    @property
    def gone(self) -> asyncio.Future[str]:
        """Done when the worker is gone, with what is known of why."""
        return self._process.gone

    async def load(self, cache_dir: Path, policy: PolicyState, timeout_s: float) -> Loaded:
        """Have the worker build the pipeline.

        Raises:
            DeploymentError: The pipeline cannot stand on this device.
            WorkerGoneError: The process ended.
            TrialError: It took too long; the worker is killed.
        """
        self._process.send(Start(self.plan, str(cache_dir), policy, seat=self._number))
        first = await self._within(self._first, timeout_s, "loading")
        if isinstance(first, LoadFailed):
            raise DeploymentError(f"{first.error}: {first.detail}")
        self.provider, self.versions = first.provider, first.versions
        return first

    async def probe(self, timeout_s: float) -> Judged:
        """Send a grey frame the whole way.

        Raises:
            TrialError: It did not come back as a judgement.
            WorkerGoneError: The process ended.
        """
        image, seat = self.plan.image, self._number
        content = ContentType(Encoding.RAW, image.pixel_format, image.max_width, image.max_height)
        key = "probe" if self.plan.reference else ""
        absent = (SignalValue(),) * len(self.plan.signals)
        deadline_ns = time.monotonic_ns() + round(timeout_s * 1e9)
        request = Judge(PROBE_TICKET, content, deadline_ns, 0, key, absent, probe=True, seat=seat)
        try:
            async with asyncio.timeout(timeout_s):
                if key:
                    await self._process.send_grey(
                        Reference(key, content, seat=seat), image.max_bytes
                    )
                await self._process.send_grey(request, image.max_bytes)
        except TimeoutError:
            self.kill()
            raise TrialError(f"the probe frame was not read in {timeout_s:.0f} s") from None
        answer = await self._within(self._probe, timeout_s, "the probe frame")
        if key:
            self._process.send(Forget(key, seat=seat))
        if isinstance(answer, Failed):
            raise TrialError(f"the probe frame failed: {answer.reason}: {answer.detail}")
        return answer

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        """Send a frame, and before it its reference where the worker has not got that yet."""
        if reference is not None:
            self._lend(reference)
        if self._number:
            request = msgspec.structs.replace(request, seat=self._number)
        self._process.send(request, payload)

    def take_up(self, policy: PolicyState) -> None:
        """Have its policy go on from a state, with the next frame."""
        self._process.send(TakeUp(policy, seat=self._number))

    def forget(self, key: str) -> None:
        """Tell the worker to drop a reference image; one that it has not got is no error."""
        if self._held.pop(key, None) is not None:
            self._process.send(Forget(key, seat=self._number))

    def _lend(self, reference: Held) -> None:
        if reference.key in self._held:
            self._held.move_to_end(reference.key)
            return
        size = len(reference.payload)
        while self._held and sum(self._held.values()) + size > self._reference_bytes:
            # The channel keeps the order: frames that were sent before still find theirs.
            self.forget(next(iter(self._held)))
        self._held[reference.key] = size
        named = Reference(reference.key, reference.content, seat=self._number)
        self._process.send(named, reference.payload)

    async def end(self, grace_s: float) -> None:
        """Leave the worker. Whoever leaves last ends it: see `WorkerProcess.end`."""
        self.on_answer = unheard
        await self._process.leave(self, grace_s)

    def kill(self) -> None:
        """End the worker at once, with all that have a seat in it."""
        self._process.kill()

    async def loss(self) -> "WorkerGoneError":
        """Say how a worker that is gone was lost."""
        return await self._process.loss()

    def vet(self, message: FromWorker) -> None:
        """Hold what the worker says of this seat to the plan.

        Raises:
            TransportError: The plan has not what it says.
        """
        if isinstance(message, Judged | Failed):
            if any(line.role not in self._stages for line in message.lines):
                raise TransportError("a line of a guest that the plan has not")
            if not all(line.text.isprintable() for line in message.lines):
                raise TransportError("a line that could steer a terminal")
            if _HOST_TIMES & message.stage_ms.keys():
                raise TransportError("a stage under a name that is not a worker's")
        if isinstance(message, Judged):
            if any(wish.index >= len(self.plan.actions) for wish in message.actions):
                raise TransportError("an action that the plan does not grant")
            if any(defect.label not in self._classes for defect in message.defects):
                raise TransportError("a defect of a class that the plan has not")

    def receive(self, message: FromWorker) -> None:
        """Take what the worker says of this seat, once it is vetted."""
        if isinstance(message, Loaded | LoadFailed):
            if not self._first.done():
                self._first.set_result(message)
        elif message.ticket == PROBE_TICKET:
            if not self._probe.done():
                self._probe.set_result(message)
        else:
            self.on_answer(message)

    async def _within(self, answer: asyncio.Future[T], timeout_s: float, what: str) -> T:
        either: tuple[asyncio.Future[Any], ...] = (answer, self.gone)
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.gone.done():
            raise await self._process.loss(f"the worker ended during {what}: ")
        self.kill()  # whoever shares the worker would wait behind it
        raise TrialError(
            f"{what} took longer than {timeout_s:.0f} s (deadlines.start_ms gives it more)"
        )


def unheard(_answer: Judged | Failed) -> None:
    """Nobody waits for an answer."""
