"""One active pipeline: its intake, its dispatch, and the worker that is kept standing for it.

This is where the rules of `dispatch` meet the broker, the clock and the worker process.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from edge.config import DeviceConfig
from edge.contracts.messages import ActionWish, Failed, Judged
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Reason, Verdict
from edge.daemon.actions import Action, Grant
from edge.daemon.dispatch import Dispatch
from edge.daemon.intake import Fault, Frame, Intake
from edge.daemon.outlets import Seen
from edge.daemon.recording import Recording, entry_of
from edge.daemon.references import ReferenceShelf
from edge.daemon.remembered import Given, Remembered
from edge.daemon.signals import SignalHistory
from edge.daemon.throttle import Throttle
from edge.daemon.worker_process import WorkerGoneError, WorkerProcess
from edge.errors import DeploymentError, StorageError
from edge.ledger.entry import Runtime, pinned
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate, matches
from edge.observability.counters import Counters
from edge.observability.latency import Histogram

log = structlog.get_logger("edge.daemon")

_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SETTLED_S: Final = 30.0
"""A worker that stood so long was sound: its loss starts the backoff afresh."""
STOP_S: Final = 1.0
"""What an idle worker gets to end by itself when the daemon stops."""


class ActivePipeline:
    """A pipeline of the active deployment.

    Args:
        plan: What it is.
        config: The device config.
        session: The broker's session.
        counters: The daemon's counters.
        boot_id: Makes frame ids of our own unique.
        references: Its reference images; None where it uses none.
        signals: The histories of all bound signals, by logical name.
        recording: The ledger at work; None where verdicts are not recorded.
        on_change: Called when its readiness changed.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        config: DeviceConfig,
        session: Session,
        counters: Counters,
        boot_id: str,
        references: ReferenceShelf | None,
        signals: Mapping[str, SignalHistory],
        recording: Recording | None,
        on_change: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.trouble = "starting"
        self._config = config
        self._session = session
        self._counters = counters
        self._references = references
        self._signals = signals
        self._recording = recording
        self._pinned = pinned(plan)
        self._runtime = Runtime()
        self._on_change = on_change
        self._latency = Histogram(float(plan.budget_ms))
        self._grants = tuple(Grant(grant) for grant in plan.actions)
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
        self._worker: WorkerProcess | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def ready(self) -> bool:
        """Whether a worker stands whose probe frame went through on the required provider."""
        return self._dispatch.ready

    @property
    def unanswered(self) -> int:
        """Frames that wait for their verdict."""
        return self._dispatch.unanswered

    async def recall(self) -> None:
        """Remember the verdicts given before this start, for frames that are delivered again."""
        if self._recording is None:
            return
        limit = self._config.limits.remembered_frames
        for given in await self._recording.recent(self.plan.name, limit):
            self._remembered.keep(given.frame_id, Given(given.verdict, given.fingerprint))

    def status(self) -> dict[str, Any]:
        """Return what the status message says of this pipeline."""
        worker = self._worker
        return {
            "ready": self.ready,
            "trouble": self.trouble,
            "deployment": self.plan.deployment,
            "provider": worker.provider if worker else "",
            "worker_pid": worker.pid if worker else 0,
            "budget_ms": self.plan.budget_ms,
            "latency_ms": self._latency.summary(),
            "unanswered": self.unanswered,
        }

    def receive(self, message: Incoming, named: dict[str, str], settle: Callable[[], None]) -> None:
        """Take a camera's message; `settle` is called once its verdict is safe."""
        frame = self._recordable(self._intake.read(message, named, settle))
        self._counters.count("frames_received", pipeline=self.plan.name)
        for oddity in frame.oddities:
            self._counters.count("frames_odd", cause=oddity)
        self._dispatch.submit(
            frame,
            self._references.find(frame.reference_id) if self._references else None,
            tuple(
                self._signals[grant.name].as_of(frame.captured_at_ns, grant.max_age_ms)
                for grant in self.plan.signals
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
        if self._worker is not None:
            self._worker.forget(key)

    async def keep_worker(self, cache_dir: Path) -> None:
        """Keep a worker standing, until cancelled."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._run_worker(cache_dir)
            except (DeploymentError, WorkerGoneError, StorageError) as failed:
                self.trouble = str(failed)
                if time.monotonic() - began > _SETTLED_S:
                    failures = 0
                pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                self._counters.count(
                    "workers_lost", pipeline=self.plan.name, cause=type(failed).__name__
                )
                log.error(
                    "worker_lost",
                    pipeline=self.plan.name,
                    error=type(failed).__name__,
                    detail=str(failed),
                    next_try_s=pause_s,
                )
                self._on_change()
                await asyncio.sleep(pause_s)

    async def _run_worker(self, cache_dir: Path) -> None:
        """Start a worker, use it while it stands; raises when it does not."""
        began = time.monotonic()
        limits = self._config.limits
        worker = await WorkerProcess.spawn(
            self.plan, limits.reference_bytes, limits.worker_memory_mib
        )
        self._counters.count("workers_started", pipeline=self.plan.name)
        grace_s = 0.0
        try:
            timeout_s = self._config.deadlines.start_ms / 1e3
            loaded = await worker.load(cache_dir, self._dispatch.policy, timeout_s)
            probe = await worker.probe(
                time.monotonic_ns() + self._config.deadlines.start_ms * 1_000_000, timeout_s
            )
            worker.on_answer = self._answered
            self._worker = worker
            model = self.plan.model
            self._runtime = Runtime(loaded.versions, model.threads, model.options)
            self.trouble = ""
            self._dispatch.attach(worker)
            log.info(
                "pipeline_ready",
                pipeline=self.plan.name,
                provider=loaded.provider,
                worker_pid=worker.pid,
                start_ms=round((time.monotonic() - began) * 1e3),
                load_ms=loaded.load_ms,
                probe_ms=probe.stage_ms,
                policy_restored=not loaded.state_refused,
            )
            self._on_change()
            grace_s = STOP_S
            # Shielded: who waits for it may be cancelled, the worker's end is still to be told.
            await asyncio.shield(worker.gone)
            grace_s = 0.0
            self._detach()
            raise await worker.loss()
        finally:
            self._detach()
            await worker.end(grace_s)

    def _detach(self) -> None:
        """The frames at work get their verdict at once, whatever the worker's end takes."""
        self._worker = None
        self._dispatch.detach()

    async def drain(self, grace_s: float) -> int:
        """Wait until every accepted frame has its verdict; return how many have not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._dispatch.idle()
        return self.unanswered

    def _answered(self, answer: Judged | Failed) -> None:
        if isinstance(answer, Judged):
            self._dispatch.judged(answer)
        else:
            self._dispatch.failed(answer)

    # What dispatch causes (`edge.daemon.dispatch.Outlets`).

    def now_ns(self) -> int:
        """The monotonic clock."""
        return time.monotonic_ns()

    def call_at(self, instant_ns: int, act: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `act` at an instant; asyncio's clock is the monotonic one."""
        return self._loop.call_at(instant_ns / 1e9, act)

    def give(self, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen) -> None:
        """Send a verdict out at once; settle the frame when broker and ledger both have it."""
        settle = _after(2, frame.settle)
        self._publish(frame, encoded, settle)
        if self._recording is None:
            settle()
        else:
            entry = entry_of(self.plan, self._pinned, self._runtime, frame, verdict, seen)
            self._recording.record(entry, frame.payload, settle)
        total_ms = verdict.latency_ms["total"]
        self._latency.observe(total_ms)
        self._counters.count("verdicts", kind=verdict.verdict, reason=verdict.reason)
        if total_ms > self.plan.budget_ms:
            self._counters.count("deadlines_missed", pipeline=self.plan.name)

    def repeat(self, frame: Frame, encoded: bytes) -> None:
        """Send a verdict again; a frame that came again is settled like the first."""
        self._counters.count("frames_repeated", pipeline=self.plan.name)
        settle = _after(2, frame.settle)
        self._publish(frame, encoded, settle)
        if self._recording is None:
            settle()
        else:
            self._recording.ensure(self.plan.name, frame.frame_id, settle)

    def _publish(self, frame: Frame, verdict: bytes, settle: Callable[[], None]) -> None:
        if frame.response_topic and self._may_answer(frame.response_topic):
            self._session.publish(frame.response_topic, verdict, correlation=frame.correlation)
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
        if not self._session.publish(self._verdict_topic, verdict, on_done=done):
            # Not acknowledged: the broker keeps the frame, and brings it again on the next
            # connection, where it gets this verdict.
            del self._on_the_way[verdict]
            self._complain("verdict_kept_back", frame, "as many publications wait as may")

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        """Publish the actions that are within their grants."""
        for wish in wishes:
            grant = self._grants[wish.index]
            ttl_ms = grant.admit(wish, time.monotonic_ns())
            binding = self._config.bindings.find(grant.name)
            if ttl_ms is None or binding is None:
                self._counters.count("actions_denied", action=grant.name)
                detail = f"{grant.name}: more often than max_per_minute of its grant"
                self._complain("action_denied", frame, detail)
                continue
            self._counters.count("actions_sent", action=grant.name)
            action = Action(
                self._config.device.id,
                self.plan.name,
                frame.frame_id,
                frame.part_id,
                grant.name,
                wish.value,
                ttl_ms,
            )
            self._session.publish(binding.topic, msgspec.json.encode(action), qos=binding.qos)

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
        """Kill the worker; `keep_worker` starts the next."""
        log.error("worker_hangs", pipeline=self.plan.name, detail=detail)
        if self._worker is not None:
            self._worker.kill()

    def _may_answer(self, topic: str) -> bool:
        """Whether a camera's response topic is harmless: no one may steer us through it."""
        reserved = topic.startswith(("$", "edge/")) or topic == "edge"
        if reserved or any(matches(bound, topic) for bound in self._bound):
            self._counters.count("messages_refused", cause="response topic")
            return False
        return True


def _after(events: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return what is to be called at each of so many events; the last of them acts."""
    left = events

    def one() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            act()

    return one
