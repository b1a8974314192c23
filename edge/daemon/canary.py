"""Canary: a candidate judges a share of the parts, and publishes, before it may judge all of them.

1. Which parts is drawn by a hash of the part's id: all frames of one part go to the same worker.
   Where a frame names no part, its own id is drawn.
2. They go through a dispatch of their own, with their own deadlines and fail-safe; a frame has one
   verdict all the same, because both dispatches know what is under way and what was given.
3. The candidate is held to the limits of `[probation]`, against what the active deployment has
   given before and gives beside it. At the first finding it gets no further frame, and what it has
   not answered is answered by the active worker; likewise where its worker is lost.
4. Its policy starts with a copy of the active policy's state. What it makes of that is dropped: the
   exchange that may follow hands over the active policy's state, as ever.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from edge.contracts.messages import ActionWish, Failed, Judged
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Verdict
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.candidate import Candidate
from edge.daemon.dispatch import Dispatch
from edge.daemon.intake import Frame
from edge.daemon.lineup import Lineup
from edge.daemon.outlets import Seen
from edge.daemon.probation import Watching
from edge.daemon.seat import Seat, unheard
from edge.daemon.standing import ReadyWorker
from edge.deployment.rules import CanaryRule
from edge.deployment.watch import Finding

log = structlog.get_logger("edge.daemon")


class CanaryLane:
    """A candidate's worker beside the active one of a pipeline, and the frames that it judges.

    Args:
        pipeline: Whose frames.
        ready: The worker; it stays the caller's.
        rule: Which frames.
        watching: Takes each verdict.
    """

    def __init__(
        self, pipeline: ActivePipeline, ready: ReadyWorker, rule: CanaryRule, watching: Watching
    ) -> None:
        self.pipeline = pipeline
        self._ready = ready
        self._rule = rule
        self._watching = watching
        self._by = pipeline.following_beside(ready)
        self._closed: asyncio.Future[None] | None = None
        self.dispatch: Dispatch = pipeline.judge_beside(self)
        self.dispatch.policy = pipeline.policy
        ready.worker.take_up(pipeline.policy)
        ready.worker.on_answer = self._answered
        self.dispatch.attach(ready.worker)

    @property
    def plan(self) -> PipelinePlan:
        """By which it judges."""
        return self._ready.plan

    @property
    def worker(self) -> Seat:
        """By whom."""
        return self._ready.worker

    def takes(self, frame: Frame) -> bool:
        """Whether it judges this frame: the active worker has those that cannot be judged."""
        if self._closed is not None or self._watching.ended or frame.fault is not None:
            return False
        if self.plan.reference and self.pipeline.see(self.plan, frame).reference is None:
            return False
        subject = frame.part_id or frame.frame_id
        return self._rule.includes(self.plan.deployment.digest, subject)

    def submit(self, frame: Frame) -> None:
        """Judge a frame that it takes."""
        seen = self.pipeline.see(self.plan, frame)
        due = self.pipeline.due(self.plan, frame)
        self.dispatch.submit(due, seen.reference, seen.signals)

    def status(self) -> dict[str, Any]:
        """Return what the status message says of it."""
        return {
            "deployment": self.plan.deployment,
            "worker_pid": self.worker.pid,
            "share": self._rule.share,
        }

    async def finish(self) -> None:
        """Take no more frames, and return when those that it has are answered: each has a deadline.

        Cancelled, or where its worker is lost, `end` has them answered by the active worker.
        """
        self._closed = asyncio.get_running_loop().create_future()
        if self.dispatch.owes:
            waited = (self._closed, self.worker.gone)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def end(self) -> None:
        """Judge no more; what it owes is answered by the active worker."""
        self.worker.on_answer = unheard
        self.pipeline.judge_alone()

    def _answered(self, answer: Judged | Failed) -> None:
        self._by.words.take(answer.lines, answer.state_refused)
        if isinstance(answer, Judged):
            self.dispatch.judged(answer)
        else:
            self.dispatch.failed(answer)

    # What its dispatch causes (`edge.daemon.dispatch.Outlets`).

    def now_ns(self) -> int:
        """The monotonic clock."""
        return self.pipeline.now_ns()

    def call_at(self, instant_ns: int, act: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `act` at an instant."""
        return self.pipeline.call_at(instant_ns, act)

    def give(self, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen) -> None:
        """Send a verdict out, by the candidate's name, and have it watched."""
        self.pipeline.give_by(self._by, frame, verdict, encoded, seen)
        self._watching.observe(frame, verdict, seen)
        closed = self._closed
        if closed is not None and not closed.done() and not self.dispatch.owes:
            closed.set_result(None)

    def repeat(self, frame: Frame, encoded: bytes) -> None:
        """Send a verdict again."""
        self.pipeline.repeat(frame, encoded)

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        """Carry out the wishes that are within the grants of both deployments."""
        self._by.actions.act(frame, wishes)

    def note(self, reason: str, frame: Frame, detail: str) -> None:
        """Count and log why a frame was not judged."""
        self.pipeline.note(reason, frame, f"canary: {detail}")

    def worker_hangs(self, detail: str) -> None:
        """Kill the worker, which ends the canary."""
        log.error("worker_hangs", pipeline=self.plan.name, detail=f"canary: {detail}")
        self.worker.kill()


class Canary:
    """The canary of one candidate, in each pipeline that takes its frames where the active does.

    Args:
        candidate: Its workers stand.
        lineup: What runs.
        before: What `recent_figures` says of what runs.
    """

    def __init__(self, candidate: Candidate, lineup: Lineup, before: Mapping[str, Any]) -> None:
        self._rule = candidate.loaded.manifest.canary
        self._lineup = lineup
        self._pairs = [
            (pipeline, ready)
            for pipeline in lineup
            if (ready := candidate.readies.get(pipeline.plan.name)) is not None
            and ready.plan.source == pipeline.plan.source
        ]
        limits = candidate.loaded.manifest.probation.model_copy(
            update={"frames": self._rule.frames, "max_s": self._rule.max_s}
        )
        names = [pipeline.plan.name for pipeline, _ in self._pairs]
        self._watching = Watching(limits, names, before, "canary")
        self._lanes: list[CanaryLane] = []

    @property
    def wanted(self) -> bool:
        """Whether the manifest asks for it, and there are frames to share."""
        return self._rule.frames > 0 and bool(self._pairs)

    def observe(self, _frame: Frame, verdict: Verdict, _seen: Seen) -> None:
        """Take note of a verdict of an active pipeline: what the candidate is compared with."""
        self._watching.compare_with(verdict)

    async def run(self, withdrawn: asyncio.Event) -> Finding | None:
        """Judge a share until there is a finding; None where it was withdrawn meanwhile.

        On return the active workers judge every frame, whatever came of it.
        """
        try:
            for pipeline, ready in self._pairs:
                self._lineup.want(ready.plan)
                self._lanes.append(CanaryLane(pipeline, ready, self._rule, self._watching))
            finding = await self._unless_lost(withdrawn)
            if finding is not None and not finding.reason:
                for lane in self._lanes:
                    await lane.finish()
            return finding
        finally:
            for lane in self._lanes:
                lane.end()

    async def _unless_lost(self, withdrawn: asyncio.Event) -> Finding | None:
        watched = asyncio.create_task(self._watching.run(withdrawn))
        gone: list[asyncio.Future[Any]] = [lane.worker.gone for lane in self._lanes]
        try:
            await asyncio.wait([watched, *gone], return_when=asyncio.FIRST_COMPLETED)
            for lane in self._lanes:
                if lane.worker.gone.done():
                    lane.end()  # first: what its worker's end takes is no business of the line
                    detail = f"{lane.plan.name}: as canary: {await lane.worker.loss()}"
                    return Finding("worker-lost", detail, self._watching.evidence())
            return watched.result()
        finally:
            watched.cancel()
            await asyncio.wait((watched,))
