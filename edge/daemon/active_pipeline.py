"""One active pipeline: its intake, its dispatch, and the worker that is kept standing for it.

This is where the rules of `dispatch` meet the broker, the clock and the worker process.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from edge.config import DeviceConfig
from edge.contracts.messages import ActionWish, GuestLine
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Reason, Verdict
from edge.daemon.actions import Actions
from edge.daemon.dispatch import Dispatch
from edge.daemon.frame_traces import FrameTraces
from edge.daemon.guest_words import GuestWords
from edge.daemon.intake import Fault, Frame, Intake
from edge.daemon.keeper import WorkerKeeper
from edge.daemon.latencies import Latencies
from edge.daemon.leases import Leases
from edge.daemon.outlets import Seen
from edge.daemon.recorded import entry_of
from edge.daemon.recording import Recording
from edge.daemon.references import ReferenceShelf
from edge.daemon.remembered import Given, Remembered
from edge.daemon.signals import SignalHistory
from edge.daemon.standing import ReadyWorker
from edge.daemon.throttle import Throttle
from edge.ledger.entry import Runtime, pinned
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate, matches
from edge.observability.counters import Counters
from edge.observability.latency import Histogram
from edge.observability.tracing import PROPERTY

log = structlog.get_logger("edge.daemon")


class ActivePipeline:
    """A pipeline of the active deployment.

    Args:
        plan: What it is.
        config: The device config.
        session: The broker's session.
        counters: The daemon's counters.
        boot_id: Makes frame ids of our own unique.
        references: All reference images that are kept, by logical name.
        signals: The histories of all bound signals, by logical name.
        recording: The ledger at work; None where verdicts are not recorded.
        leases: Turns off what actions turn on.
        on_change: Called when its readiness changed.
        traces: Makes spans of frames; None: nobody wants them.

    Attributes:
        latencies: Since the start, or since the budget changed.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        config: DeviceConfig,
        session: Session,
        counters: Counters,
        boot_id: str,
        references: Mapping[str, ReferenceShelf],
        signals: Mapping[str, SignalHistory],
        recording: Recording | None,
        leases: Leases,
        on_change: Callable[[], None],
        traces: FrameTraces | None = None,
    ) -> None:
        self.on_given: Callable[[Frame, Verdict, Seen], None] = lambda _frame, _verdict, _seen: None
        self._config = config
        self._session = session
        self._counters = counters
        self._references = references
        self._signals = signals
        self._recording = recording
        self._leases = leases
        self._traces = traces
        self.latencies = Latencies(float(plan.budget_ms))
        self._runtime = Runtime()
        self._verdict_topic = f"edge/{config.device.id}/{plan.name}/verdict"
        self._intake = Intake(
            config.clock, config.limits.max_payload_bytes, plan.budget_ms, boot_id
        )
        self._remembered = Remembered(config.limits.remembered_frames)
        self._dispatch = Dispatch(
            config.device.id,
            plan,
            config.deadlines,
            self._remembered,
            self,
        )
        self._keeper = WorkerKeeper(
            config, self._dispatch, counters, self._use, self._hear, on_change
        )
        self._throttle = Throttle(time.monotonic_ns)
        self._on_the_way: dict[bytes, list[Callable[[], None]]] = {}
        self._bound = tuple(
            TopicTemplate(binding.topic).filter
            for table in (
                config.bindings.camera,
                config.bindings.reference,
                config.bindings.signal,
                config.bindings.action,
            )
            for binding in table.values()
        )
        self._loop = asyncio.get_running_loop()
        self._follow(plan)

    @property
    def trouble(self) -> str:
        """Why it is not ready; empty while it is."""
        return self._keeper.trouble

    @property
    def waiting(self) -> bool:
        """Whether a frame waits for the worker to have time for it."""
        return self._dispatch.waiting

    @property
    def queued(self) -> int:
        """How many wait for it."""
        return self._dispatch.queued

    @property
    def ready(self) -> bool:
        """Whether a worker stands whose probe frame went through on the required provider."""
        return self._dispatch.ready

    @property
    def unanswered(self) -> int:
        """Frames that wait for their verdict."""
        return self._dispatch.unanswered

    @property
    def oldest_deadline_s(self) -> float:
        """Deadline of the oldest frame that waits or is with the worker; now where there is none.

        Monotonic seconds.
        """
        oldest_ns = self._dispatch.oldest_deadline_ns
        return time.monotonic() if oldest_ns is None else oldest_ns / 1e9

    async def recall(self) -> None:
        """Remember the verdicts given before this start, for frames that are delivered again."""
        if self._recording is None:
            return
        limit = self._config.limits.remembered_frames
        for given in await self._recording.recent(self.plan.name, limit):
            self._remembered.keep(given.frame_id, Given(given.verdict, given.fingerprint))

    def status(self) -> dict[str, Any]:
        """Return what the status message says of this pipeline."""
        worker = self._keeper.worker
        return {
            "ready": self.ready,
            "trouble": self.trouble,
            "deployment": self.plan.deployment,
            "provider": worker.provider if worker else "",
            "models": [model.sha256 for model in self.plan.models],
            "worker_pid": worker.pid if worker else 0,
            "budget_ms": self.plan.budget_ms,
            "latency_ms": self._latency.summary(),
            "unanswered": self.unanswered,
            "policy": self._words.status(self._dispatch.policy),
        }

    def receive(
        self,
        message: Incoming,
        named: dict[str, str],
        settle: Callable[[], None],
        fault: Fault | None = None,
    ) -> None:
        """Take a camera's message.

        Args:
            message: As it came.
            named: The placeholders found in its topic.
            settle: Called once when its verdict is safe.
            fault: Why it is not to be judged, where that is known already.
        """
        frame = self._intake.read(message, named, settle)
        if fault is not None and frame.fault is None:
            frame = msgspec.structs.replace(frame, fault=fault)
        frame = self._recordable(frame)
        self._counters.count("frames_received", pipeline=self.plan.name)
        for oddity in frame.oddities:
            self._counters.count("frames_odd", cause=oddity)
        seen = self._see(self.plan, frame)
        self._dispatch.submit(frame, seen.reference, seen.signals)

    def _see(self, plan: PipelinePlan, frame: Frame) -> Seen:
        """What a plan judges a frame with, beside its pixels."""
        shelf = self._references.get(plan.reference)
        return Seen(
            shelf.find(frame.reference_id) if shelf else None,
            tuple(
                self._signals[grant.name].as_of(frame.captured_at_ns, grant.max_age_ms)
                for grant in plan.signals
            ),
        )

    def _recordable(self, frame: Frame) -> Frame:
        """Mark a frame whose verdict would find no medium: it is reviewed, and not judged."""
        if self._recording is None or frame.fault is not None or not self._recording.stuck:
            return frame
        fault = Fault(Reason.STORAGE, f"its verdict cannot be recorded: {self._recording.trouble}")
        return msgspec.structs.replace(frame, fault=fault)

    def reference_dropped(self, key: str) -> None:
        """Have the worker forget a reference image."""
        if self._keeper.worker is not None:
            self._keeper.worker.forget(key)

    async def keep_worker(self, cache_dir: Path) -> None:
        """Keep a worker standing, until cancelled."""
        await self._keeper.keep(cache_dir)

    def begin_with(self, ready: ReadyWorker) -> None:
        """Begin with a worker that is ready, instead of waiting for one."""
        self._keeper.begin_with(ready)

    async def exchange(self, ready: ReadyWorker) -> ReadyWorker | None:
        """Go on by another plan, of the same name, with a worker that is ready, between two frames.

        Returns:
            The worker before, standing still, and the caller's from now on; None where there was
            none.

        Raises:
            WorkerGoneError: It was lost before it came to it: nothing has changed.
        """
        return await self._keeper.exchange(
            ready,
            lambda frame: self._see(ready.plan, frame),
            self._config.deadlines.start_ms / 1e3,
        )

    def _use(self, ready: ReadyWorker) -> None:
        """A worker took the place: what hangs on its plan follows."""
        self._runtime = ready.runtime
        if ready.plan is not self.plan:
            self._follow(ready.plan)
        self._hear(ready.probe.lines, ready.loaded.state_refused)

    def _hear(self, lines: tuple[GuestLine, ...], state_refused: str) -> None:
        """What the guests of whoever stands now have to say."""
        self._words.take(lines, state_refused)

    def _follow(self, plan: PipelinePlan) -> None:
        self.plan = plan
        self._pinned = pinned(plan)
        self._latency = Histogram(float(plan.budget_ms))
        if plan.budget_ms != self.latencies.whole.budget_ms:
            self.latencies = Latencies(float(plan.budget_ms))
        self._actions = Actions(
            plan,
            self._config.device.id,
            self._config.bindings,
            self._session,
            self._leases,
            self._counters,
            self._complain,
        )
        self._words = GuestWords(plan, self._counters)
        self._intake.budget_ms = plan.budget_ms

    async def drain(self, grace_s: float) -> int:
        """Wait until every accepted frame has its verdict; return how many have not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._dispatch.idle()
        return self.unanswered

    # What dispatch causes (`edge.daemon.dispatch.Outlets`).

    def now_ns(self) -> int:
        """The monotonic clock."""
        return time.monotonic_ns()

    def call_at(self, instant_ns: int, act: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `act` at an instant; asyncio's clock is the monotonic one."""
        return self._loop.call_at(instant_ns / 1e9, act)

    def give(self, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen) -> None:
        """Send a verdict out at once; settle the frame when broker and ledger both have it."""
        settle = published = recorded = _after(2, frame.settle)
        context = frame.trace
        trace = self._traces.begin(frame, verdict) if self._traces is not None else None
        if trace is not None:
            context = str(trace.context)
            published, recorded = _both(trace.published, settle), _both(trace.recorded, settle)
        self._publish(frame, encoded, published, context)
        if self._recording is None:
            settle()
        else:
            entry = entry_of(self.plan, self._pinned, self._runtime, frame, verdict, seen)
            self._recording.record(entry, frame.payload, recorded)
        self.on_given(frame, verdict, seen)
        total_ms = verdict.latency_ms["total"]
        self._latency.observe(total_ms)
        self.latencies.observe(verdict)
        self._counters.count("verdicts", kind=verdict.verdict, reason=verdict.reason)
        if seen.judged is not None and seen.judged.crops:
            self._counters.count("crops_judged", seen.judged.crops, pipeline=self.plan.name)
            self._counters.count("crops_beyond", seen.judged.crops_beyond, pipeline=self.plan.name)
        if total_ms > self.plan.budget_ms:
            self._counters.count("deadlines_missed", pipeline=self.plan.name)

    def repeat(self, frame: Frame, encoded: bytes) -> None:
        """Send a verdict again; a frame that came again is settled like the first."""
        self._counters.count("frames_repeated", pipeline=self.plan.name)
        settle = _after(2, frame.settle)
        self._publish(frame, encoded, settle, frame.trace)
        if self._recording is None:
            settle()
        else:
            self._recording.ensure(self.plan.name, frame.frame_id, settle)

    def _publish(
        self, frame: Frame, verdict: bytes, settle: Callable[[], None], context: str
    ) -> None:
        named = {PROPERTY: context} if context else None
        if frame.response_topic and self._may_answer(frame.response_topic):
            self._session.publish(
                frame.response_topic, verdict, correlation=frame.correlation, properties=named
            )
        if verdict in self._on_the_way:
            # The session sends again what a lost connection left unanswered, and the broker sends
            # again the frame: one publication settles both.
            self._on_the_way[verdict].append(settle)
            return

        def done(accepted: bool) -> None:
            # A broker that refuses the verdict would refuse it again: redelivery mends nothing.
            if not accepted:
                self._complain("verdict_refused", frame, f"the broker refused {frame.frame_id}")
            for each in self._on_the_way.pop(verdict):
                each()

        self._on_the_way[verdict] = [settle]
        if not self._session.publish(self._verdict_topic, verdict, properties=named, on_done=done):
            # Not acknowledged: the broker keeps the frame, and brings it again on the next
            # connection, where it gets this verdict.
            del self._on_the_way[verdict]
            self._complain("verdict_kept_back", frame, "as many publications wait as may")

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        """Carry out the wishes that are within their grants."""
        self._actions.act(frame, wishes)

    def note(self, reason: str, frame: Frame, detail: str) -> None:
        """Count and log why a frame was not judged, or its judgement not used."""
        if reason == "late":
            self._counters.count("answers_late", pipeline=self.plan.name)
        else:
            self._counters.count("frames_dropped", reason=reason)
        self._complain("frame_unjudged", frame, detail, reason=reason)

    def _complain(self, event: str, frame: Frame, detail: str, reason: str = "") -> None:
        unsaid = self._throttle.admit(f"{event} {reason}")
        if unsaid is None:
            return
        more = {"reason": reason} if reason else {}
        if unsaid:
            more["not_logged"] = str(unsaid)
        log.warning(
            event,
            pipeline=self.plan.name,
            frame=frame.frame_id,
            part=frame.part_id,
            detail=detail,
            **more,
        )

    def worker_hangs(self, detail: str) -> None:
        """Kill the worker; the next one is started."""
        log.error("worker_hangs", pipeline=self.plan.name, detail=detail)
        self._keeper.kill()

    def _may_answer(self, topic: str) -> bool:
        """Whether a camera's response topic is harmless: no one may steer us through it."""
        reserved = topic.startswith(("$", "edge/")) or topic == "edge"
        if reserved or any(matches(bound, topic) for bound in self._bound):
            self._counters.count("messages_refused", cause="response topic")
            return False
        return True


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """Return what does both."""

    def act() -> None:
        first()
        second()

    return act


def _after(events: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return what is to be called at each of so many events; the last of them acts."""
    left = events

    def one() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            act()

    return one
