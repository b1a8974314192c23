"""One active pipeline: its intake, its dispatch, and the worker that is kept standing for it.

This is where the rules of `dispatch` meet the broker, the clock and the worker process. Beside the
active worker a canary may stand, which is given the frames that it chooses.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from edge.config import DeviceConfig
from edge.contracts.messages import ActionWish, GuestLine, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import HOST_REASONS, Reason, Verdict
from edge.daemon.actions import Actions
from edge.daemon.answering import Answering
from edge.daemon.dispatch import Dispatch
from edge.daemon.following import Following
from edge.daemon.frame_traces import FrameTraces
from edge.daemon.guest_words import GuestWords
from edge.daemon.intake import Fault, Frame, Intake
from edge.daemon.keeper import WorkerKeeper
from edge.daemon.latencies import Latencies
from edge.daemon.leases import Leases
from edge.daemon.muster import Muster
from edge.daemon.outlets import Companion, Seen
from edge.daemon.recorded import entry_of
from edge.daemon.recording import Recording
from edge.daemon.references import ReferenceShelf
from edge.daemon.remembered import Given, Remembered, refusal_key
from edge.daemon.signals import SignalHistory
from edge.daemon.standing import ReadyWorker
from edge.daemon.throttle import Throttle
from edge.daemon.underway import Underway
from edge.ledger.entry import Runtime
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability.counters import Counters
from edge.observability.latency import Histogram
from edge.observability.rate import Rate

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
        self.on_given: Callable[[Frame, Verdict, Seen], None] = _unwatched
        self.on_lost: Callable[[str, str], None] = lambda _pipeline, _reason: None
        self._config = config
        self._session = session
        self._counters = counters
        self._references = references
        self._signals = signals
        self._recording = recording
        self._leases = leases
        self._traces = traces
        self.latencies = Latencies(float(plan.budget_ms))
        self._answering = Answering(
            f"edge/{config.device.id}/{plan.name}/verdict",
            config.bindings,
            session,
            counters,
            self._complain,
        )
        self._intake = Intake(
            config.clock, config.limits.max_payload_bytes, plan.budget_ms, boot_id
        )
        self._remembered = Remembered(config.limits.remembered_frames)
        self._underway = Underway()
        self._canary: Companion | None = None
        self._dispatch = Dispatch(
            config.device.id, plan, config.deadlines, self._remembered, self, self._underway
        )
        self._keeper = WorkerKeeper(
            config, self._dispatch, counters, self._use, self._hear, self._lose, on_change
        )
        self._throttle = Throttle(time.monotonic_ns)
        self._loop = asyncio.get_running_loop()
        self._follow(plan, Runtime())
        self._rate = Rate(time.monotonic, self._received)
        for name in ("frames_received", "deadlines_missed"):
            counters.count(name, by=0, pipeline=plan.name)
        for reason in sorted(HOST_REASONS):
            counters.count("frames_dropped", by=0, reason=reason)

    @property
    def plan(self) -> PipelinePlan:
        """By which frames are judged."""
        return self._by.plan

    @property
    def policy(self) -> PolicyState:
        """Where its policy stands."""
        return self._dispatch.policy

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
        return len(self._underway)

    @property
    def oldest_deadline_s(self) -> float:
        """Deadline of the oldest frame that waits or is with the worker; now where there is none.

        Monotonic seconds.
        """
        dispatches = [self._dispatch, *([self._canary.dispatch] if self._canary else [])]
        oldest_ns = [d.oldest_deadline_ns for d in dispatches if d.oldest_deadline_ns is not None]
        return min(oldest_ns) / 1e9 if oldest_ns else time.monotonic()

    async def recall(self) -> None:
        """Remember the verdicts given before this start, for frames that are delivered again."""
        if self._recording is None:
            return
        limit = self._config.limits.remembered_frames
        for given in await self._recording.recent(self.plan.name, limit):
            key = given.frame_id
            if given.reason == Reason.ID_REUSED:  # not of the frame that the id belongs to
                key = refusal_key(key, given.fingerprint)
            self._remembered.keep(key, Given(given.verdict, given.fingerprint))

    @property
    def _received(self) -> int:
        return self._counters.value("frames_received", pipeline=self.plan.name)

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
            "frames_per_s": round(self._rate.per_s(self._received), 1),
            "unanswered": self.unanswered,
            "policy": self._by.words.status(self._dispatch.policy),
            "canary": self._canary.status() if self._canary else None,
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
        if self._canary is not None and self._canary.takes(frame):
            self._canary.submit(frame)
            return
        seen = self.see(self.plan, frame)
        self._dispatch.submit(frame, seen.reference, seen.signals)

    def see(self, plan: PipelinePlan, frame: Frame) -> Seen:
        """What a plan judges a frame with, beside its pixels."""
        shelf = self._references.get(plan.reference)
        return Seen(
            shelf.find(frame.reference_id) if shelf else None,
            tuple(
                self._signals[grant.name].as_of(
                    frame.captured_at_ns, grant.max_age_ms, frame.captured_ns
                )
                for grant in plan.signals
            ),
        )

    def _recordable(self, frame: Frame) -> Frame:
        """Mark a frame whose verdict would find no medium: it is reviewed, and not judged."""
        if self._recording is None or frame.fault is not None or not self._recording.stuck:
            return frame
        why = self._recording.trouble or "as many records wait for the disk as may"
        fault = Fault(Reason.STORAGE, f"its verdict cannot be recorded: {why}")
        return msgspec.structs.replace(frame, fault=fault)

    def reference_dropped(self, key: str) -> None:
        """Have the worker forget a reference image."""
        for worker in (self._keeper.worker, self._canary.worker if self._canary else None):
            if worker is not None:
                worker.forget(key)

    def judge_beside(self, canary: Companion) -> Dispatch:
        """Give a canary, from now on, the frames that it takes; return what it judges them by.

        A frame has one verdict, whoever gives it: both dispatches have the same frames under way,
        and the same verdicts remembered.
        """
        self._canary = canary
        return Dispatch(
            self._config.device.id,
            canary.plan,
            self._config.deadlines,
            self._remembered,
            canary,
            self._underway,
        )

    def judge_alone(self) -> None:
        """Give the canary no more frames, and answer those to which it owes a verdict."""
        canary, self._canary = self._canary, None
        if canary is None:
            return
        owed = [self.due(self.plan, frame) for frame in canary.dispatch.give_back()]
        self._dispatch.adopt([(frame, self.see(self.plan, frame)) for frame in owed])

    @staticmethod
    def due(plan: PipelinePlan, frame: Frame) -> Frame:
        """Return the frame with the deadline that it has under a plan."""
        deadline_ns = frame.captured_ns + plan.budget_ms * 1_000_000
        return msgspec.structs.replace(frame, deadline_ns=deadline_ns)

    async def keep_worker(self, muster: Muster) -> None:
        """Keep a worker standing, until cancelled."""
        await self._keeper.keep(muster)

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
            lambda frame: self.see(ready.plan, frame),
            self._config.deadlines.start_ms / 1e3,
        )

    def _use(self, ready: ReadyWorker) -> None:
        """A worker took the place: what hangs on its plan follows."""
        if ready.plan is not self.plan:
            self._follow(ready.plan, ready.runtime)
        self._by.runtime = ready.runtime
        self._hear(ready.probe.lines, ready.loaded.state_refused)

    def _hear(self, lines: tuple[GuestLine, ...], state_refused: str) -> None:
        """What the guests of whoever stands now have to say."""
        self._by.words.take(lines, state_refused)

    def _follow(self, plan: PipelinePlan, runtime: Runtime) -> None:
        self._by = self._following(plan, runtime)
        self._latency = Histogram(float(plan.budget_ms))
        if plan.budget_ms != self.latencies.whole.budget_ms:
            self.latencies = Latencies(float(plan.budget_ms))
        self._intake.budget_ms = plan.budget_ms

    def following_beside(self, ready: ReadyWorker) -> Following:
        """What hangs on a canary's plan; its actions count as the active deployment's, too."""
        return self._following(ready.plan, ready.runtime, self._by.actions)

    def _following(
        self, plan: PipelinePlan, runtime: Runtime, beside: Actions | None = None
    ) -> Following:
        actions = Actions(
            plan,
            self._config.device.id,
            self._config.bindings,
            self._session,
            self._leases,
            self._counters,
            self._complain,
            beside,
        )
        return Following(plan, actions, GuestWords(plan, self._counters), runtime)

    async def drain(self, grace_s: float) -> int:
        """Wait until every accepted frame has its verdict; return how many were not judged in time.

        These get their fail-safe: who stops for good must not leave a part without a verdict.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._underway.idle()
        left = self.unanswered
        if left:
            self.on_given = _unwatched  # no deployment is to be undone for what our end costs
            self.judge_alone()
            self._dispatch.give_up("the daemon stops, and its worker has not judged it yet")
        return left

    # What dispatch causes (`edge.daemon.dispatch.Outlets`).

    def now_ns(self) -> int:
        """The monotonic clock."""
        return time.monotonic_ns()

    def call_at(self, instant_ns: int, act: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `act` at an instant; asyncio's clock is the monotonic one."""
        return self._loop.call_at(instant_ns / 1e9, act)

    def give(self, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen) -> None:
        """Send a verdict of the active worker out."""
        self.give_by(self._by, frame, verdict, encoded, seen)
        self.on_given(frame, verdict, seen)
        self._latency.observe(verdict.latency_ms["total"])

    def give_by(
        self, by: Following, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen
    ) -> None:
        """Send a verdict out at once; settle the frame when broker and ledger both have it.

        Args:
            by: What hangs on the plan by which it was judged.
            frame: Whose it is.
            verdict: The verdict.
            encoded: Its JSON.
            seen: What it came from.
        """
        settle = published = recorded = _after(2, frame.settle)
        context = frame.trace
        trace = self._traces.begin(frame, verdict) if self._traces is not None else None
        if trace is not None:
            context = str(trace.context)
            published, recorded = _both(trace.published, settle), _both(trace.recorded, settle)
        self._answering.publish(frame, encoded, published, context)
        if self._recording is None:
            settle()
        else:
            entry = entry_of(by.plan, by.pinned, by.runtime, frame, verdict, seen)
            self._recording.record(entry, frame.payload, recorded)
        self.latencies.observe(verdict)
        self._counters.count("verdicts", kind=verdict.verdict, reason=verdict.reason)
        if seen.judged is not None and seen.judged.crops:
            self._counters.count("crops_judged", seen.judged.crops, pipeline=self.plan.name)
            self._counters.count("crops_beyond", seen.judged.crops_beyond, pipeline=self.plan.name)
        if verdict.latency_ms["total"] > by.plan.budget_ms:
            self._counters.count("deadlines_missed", pipeline=self.plan.name)

    def repeat(self, frame: Frame, encoded: bytes) -> None:
        """Send a verdict again; a frame that came again is settled like the first."""
        self._counters.count("frames_repeated", pipeline=self.plan.name)
        settle = _after(2, frame.settle)
        self._answering.publish(frame, encoded, settle, frame.trace)
        if self._recording is None:
            settle()
        else:
            self._recording.ensure(self.plan.name, frame.frame_id, settle)

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        """Carry out the wishes that are within their grants."""
        self._by.actions.act(frame, wishes)

    def note(self, reason: str, frame: Frame, detail: str) -> None:
        """Count and log why a frame was not judged, or its judgement not used."""
        if reason == "late":
            self._counters.count("answers_late", pipeline=self.plan.name)
        else:
            self._counters.count("frames_dropped", reason=reason)
        self._complain("frame_unjudged", frame, detail, reason=reason)

    def _lose(self, reason: str) -> None:
        self.on_lost(self.plan.name, reason)

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


def _unwatched(_frame: Frame, _verdict: Verdict, _seen: Seen) -> None:
    """Nobody is told of a verdict."""


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
