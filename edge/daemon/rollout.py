"""Deployments exchanged while the line runs: looked for, proved, shadowed, watched, kept or undone.

The rules are `edge.deployment.rollout`'s and `edge.deployment.watch`'s; here they meet workers, the
repository and the clock. Each step is in the journal before it is taken. A predecessor's workers
stand ready until its successor is committed, so that going back is one exchange.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from edge.config import DeviceConfig
from edge.contracts.messages import Failed
from edge.contracts.verdict import Verdict
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.candidate import Candidate, GoldenError
from edge.daemon.intake import Frame
from edge.daemon.lineup import Former, Lineup
from edge.daemon.outlets import Seen
from edge.daemon.updates import look
from edge.daemon.worker_process import WorkerGoneError
from edge.deployment import folder, report
from edge.deployment.fetch_messages import Fetched, Nothing, Refused
from edge.deployment.installed import Installed
from edge.deployment.rollout import Deployed, Event, State
from edge.deployment.watch import Finding, Probation, Rates, Shadow
from edge.errors import (
    ConfigError,
    DeploymentError,
    EdgeError,
    IncompatibleError,
    StorageError,
    UntrustedError,
)
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

_JITTER: Final = 0.25
_LEAST_PAUSE_S: Final = 2.0
"""Between two looks, whoever asks for them."""
_AGAIN_S: Final = 30.0
"""After storage failed."""
_PATIENCE: Final = 25
"""In shadow a frame is left out while another waits; one in so many is not."""
_RECENT: Final = 2_000
_DRAIN_S: Final = 5.0
_REASONS: Final[tuple[tuple[type[EdgeError], str], ...]] = (
    (GoldenError, "golden"),
    (UntrustedError, "untrusted"),
    (IncompatibleError, "incompatible"),
    (ConfigError, "configuration"),
    (WorkerGoneError, "worker-lost"),
    (EdgeError, "trial"),
)


class Rollout:
    """The deployments of this device.

    Args:
        config: The device config.
        installed: What is installed.
        lineup: What runs.
        session: The broker's session.
        counters: The daemon's counters.
        cache_dir: Of compiled guests.
        on_change: Called when something changed that the status tells.
    """

    def __init__(
        self,
        config: DeviceConfig,
        installed: Installed,
        lineup: Lineup,
        session: Session,
        counters: Counters,
        cache_dir: Path,
        on_change: Callable[[], None],
    ) -> None:
        self._config = config
        self._installed = installed
        self._lineup = lineup
        self._session = session
        self._counters = counters
        self._cache_dir = cache_dir
        self._on_change = on_change
        self._wanted = asyncio.Event()
        self._by_hand = ""
        self._withdrawn = asyncio.Event()
        self._former = Former({}, {})
        self._recent = (Rates(), Rates())
        self._observe: Callable[[Frame, Verdict, Seen], None] | None = None
        self._looked_at_ns = 0
        self.trouble = ""
        if config.updates.repository:
            topic = report.DESIRED.format(device=config.device.id)
            session.subscribe(topic, 1, self._hinted)

    def given(self, frame: Frame, verdict: Verdict, seen: Seen) -> None:
        """Take note of a verdict of an active pipeline."""
        older, newer = self._recent
        if newer.frames >= _RECENT:
            older, newer = newer, Rates()
            self._recent = older, newer
        newer.add(verdict.verdict, verdict.reason, verdict.score)
        if self._observe is not None:
            self._observe(frame, verdict, seen)

    def say(self) -> None:
        """Publish the report, retained."""
        if not self._session.connected:
            return
        said = report.report_of(
            self._installed.journal,
            self._config.device.id,
            self._config.updates.group,
            time.time_ns(),
            self._looked_at_ns,
            self.trouble,
        )
        topic = report.TOPIC.format(device=self._config.device.id)
        self._session.publish(topic, msgspec.json.encode(said), retain=True)

    def status(self) -> dict[str, Any]:
        """Return what the status message says of deployments."""
        journal = self._installed.journal
        return {
            "state": journal.state,
            "active": journal.active,
            "candidate": journal.candidate,
            "pinned": journal.pinned,
            "trouble": self.trouble,
        }

    # What a person on the box may ask for -------------------------------------------------------

    def look_now(self, repository: str = "") -> str:
        """Look for an update soon, once, at another address where one is given."""
        if not repository and not self._config.updates.repository:
            return "this device takes no updates: updates.repository is not set"
        if self._config.updates.root_file is None:
            return "nothing is trusted here: updates.root_file is not set"
        self._by_hand = repository or self._config.updates.repository
        self._wanted.set()
        return ""

    def pin(self, *, pinned: bool) -> str:
        """Take no deployment but by hand, or take them again."""
        self._installed.pin(pinned=pinned)
        self._tell()
        return ""

    def roll_back(self) -> str:
        """Return to the deployment before, by its own trial; on probation at once.

        The device is pinned with it: the next look would bring back what was left.
        """
        journal = self._installed.journal
        if journal.state is State.IDLE and journal.previous is None:
            return "there is no deployment before this one"
        self._installed.pin(pinned=True)
        if journal.state is not State.IDLE:
            self._withdrawn.set()
            return ""
        self._installed.advance(Event.OFFERED, offered=journal.previous)
        self._wanted.set()
        return ""

    # The loop ------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Look for updates and take them, until cancelled."""
        try:
            while True:
                try:
                    await self._turn()
                except StorageError as failed:
                    self.trouble = str(failed)
                    log.error("deployments_stuck", detail=str(failed))
                    self._tell()
                    await asyncio.sleep(_AGAIN_S)
        finally:
            await self._release()

    async def _turn(self) -> None:
        state = self._installed.journal.state
        if state is State.PROBATION:
            await self._watch()
        elif state is not State.IDLE:
            await self._try_candidate()
        else:
            await self._next_look()
            await self._look()

    async def _next_look(self) -> None:
        if self._looked_at_ns or not self._config.updates.repository:
            pause_s = None
            if self._config.updates.repository:
                spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
                pause_s = self._config.updates.poll_s * spread
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            await asyncio.sleep(_LEAST_PAUSE_S)
        self._wanted.clear()

    async def _look(self) -> None:
        journal, by_hand = self._installed.journal, self._by_hand
        self._by_hand = ""
        if journal.state is not State.IDLE:  # a rollback was asked for
            return
        if (journal.pinned and not by_hand) or not (by_hand or self._config.updates.repository):
            self._looked_at_ns = self._looked_at_ns or time.time_ns()
            return
        try:
            outcome = await look(
                self._config.updates,
                self._config.device.id,
                self._installed.folder,
                journal,
                lambda progress: log.info(
                    "update_file",
                    path=progress.path,
                    held_bytes=progress.held_bytes,
                    total_bytes=progress.total_bytes,
                ),
                by_hand,
            )
        except ConfigError as unusable:
            outcome = Refused("ConfigError", str(unusable))
        self._looked_at_ns = time.time_ns()
        match outcome:
            case Fetched():
                self.trouble = ""
                offered = Deployed(outcome.name, outcome.revision, outcome.manifest)
                self._installed.advance(Event.OFFERED, offered=offered)
                log.info(
                    "update_fetched",
                    deployment=outcome.name,
                    revision=outcome.revision,
                    received_bytes=outcome.received_bytes,
                )
            case Nothing():
                self.trouble = ""
                log.debug("update_none", detail=outcome.detail)
            case Refused():
                self.trouble = f"{outcome.error}: {outcome.detail}"
                self._counters.count("updates_refused", cause=outcome.error)
                log.warning(
                    "update_refused",
                    error=outcome.error,
                    detail=outcome.detail,
                    revision=outcome.revision,
                )
        self._tell()

    async def _try_candidate(self) -> None:
        """Trial and shadow of the candidate, to its swap or its end."""
        if self._installed.journal.state is not State.FETCHED:
            self._installed.advance(Event.STARTED)
        deployed = self._installed.journal.candidate
        assert deployed is not None, "the journal names it in this state"
        self._withdrawn.clear()
        self._installed.advance(Event.BEGAN)
        self._tell()
        candidate: Candidate | None = None
        try:
            loaded = self._installed.load(deployed)
            plans = folder.plans(loaded, self._config)
            candidate = Candidate(loaded, plans, self._config, self._cache_dir)
            evidence = {"stood": await candidate.stand(), "golden": await candidate.prove()}
            self._installed.advance(Event.PROVED, evidence=evidence)
            self._tell()
            finding = await self._shadow(candidate)
            if finding is None:
                self._installed.advance(Event.WITHDRAWN, detail="by hand")
            elif finding.reason:
                self._fail(finding)
            else:
                await self._swap(candidate, finding)
        except (DeploymentError, ConfigError, WorkerGoneError) as unfit:
            self._fail(Finding(_reason(unfit), str(unfit), {}))
        finally:
            if candidate is not None:
                await candidate.end()
        self._tell()

    async def _shadow(self, candidate: Candidate) -> Finding | None:
        """Judge the line's frames beside the active deployment; None where it was withdrawn."""
        rule = candidate.loaded.manifest.shadow
        if not len(self._lineup) or not rule.frames:
            return Finding("", "there was nothing to compare with", {})
        shadow = Shadow(rule)
        frames: asyncio.Queue[tuple[Frame, Verdict, Seen]] = asyncio.Queue(maxsize=1)
        left_out = 0

        def observe(frame: Frame, verdict: Verdict, seen: Seen) -> None:
            nonlocal left_out
            pipeline = self._active(verdict.pipeline)
            if frames.full() or seen.judged is None or pipeline is None:
                return
            left_out += 1
            if not pipeline.waiting or left_out > _PATIENCE:
                left_out = 0
                frames.put_nowait((frame, verdict, seen))

        self._observe = observe
        withdrawn = asyncio.create_task(self._withdrawn.wait())
        try:
            async with asyncio.timeout(rule.max_wait_s):
                while True:
                    getting = asyncio.create_task(frames.get())
                    waited: set[asyncio.Future[Any]] = {getting, withdrawn}
                    waited |= {ready.worker.gone for ready in candidate.readies.values()}
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                    if not getting.done():
                        getting.cancel()
                        if withdrawn.done():
                            return None
                        return shadow.fault("worker-lost", "its worker ended")
                    finding = await self._compare(candidate, shadow, *getting.result())
                    if finding is not None:
                        return finding
        except TimeoutError:
            return Finding("", "the line brought too few frames to compare", shadow.evidence())
        except WorkerGoneError as lost:
            return shadow.fault("worker-lost", str(lost))
        finally:
            self._observe = None
            withdrawn.cancel()

    async def _compare(
        self, candidate: Candidate, shadow: Shadow, frame: Frame, verdict: Verdict, seen: Seen
    ) -> Finding | None:
        answer = await candidate.shadow(frame, verdict, seen)
        if answer is None or seen.judged is None:
            return None
        if isinstance(answer, Failed):
            return shadow.fault(answer.reason, answer.detail)
        return shadow.add(
            frame.frame_id,
            seen.judged.verdict,
            sum(seen.judged.stage_ms.values()),
            answer.verdict,
            sum(answer.stage_ms.values()),
        )

    async def _swap(self, candidate: Candidate, finding: Finding) -> None:
        """Make the candidate active: in the journal first, then between two frames."""
        older, newer = self._recent
        before = newer if newer.judged >= older.judged else older
        evidence = {**finding.evidence, "before": before.as_figures()}
        self._installed.advance(Event.AGREED, detail=finding.detail, evidence=evidence)
        self._recent = (Rates(), Rates())
        try:
            self._former = await self._lineup.exchange(candidate.take())
        except WorkerGoneError as lost:
            await self._go_back(Finding("worker-lost", str(lost), {}))

    async def _watch(self) -> None:
        """Probation of the active deployment, to its commit or its undoing."""
        self._tell()
        deployed = self._installed.journal.candidate
        assert deployed is not None, "the journal names it in this state"
        rule = self._installed.load(deployed).manifest.probation
        agreed = self._installed.journal.last_of(Event.AGREED)
        before = Rates.of_figures(agreed.evidence.get("before")) if agreed else None
        probation = Probation(rule, before)
        ended: asyncio.Future[Finding] = asyncio.get_running_loop().create_future()

        def observe(_frame: Frame, verdict: Verdict, _seen: Seen) -> None:
            finding = probation.add(verdict.verdict, verdict.reason, verdict.score)
            if finding is not None and not ended.done():
                ended.set_result(finding)

        self._observe = observe
        withdrawn = asyncio.create_task(self._withdrawn.wait())
        try:
            if not rule.frames:
                ended.set_result(probation.over())
            waited: set[asyncio.Future[Any]] = {ended, withdrawn}
            await asyncio.wait(waited, timeout=rule.max_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._observe = None
            withdrawn.cancel()
        if ended.done():
            finding = ended.result()
        elif self._withdrawn.is_set():
            await self._go_back(None)
            return
        else:
            finding = probation.over()
        if finding.reason:
            await self._go_back(finding)
            return
        self._installed.advance(Event.HELD, detail=finding.detail, evidence=finding.evidence)
        log.info("deployment_committed", deployment=deployed.name, revision=deployed.revision)
        await self._release()
        freed = await asyncio.to_thread(self._installed.collect)
        if freed:
            log.info("store_collected", freed_bytes=freed)
        self._tell()

    async def _go_back(self, finding: Finding | None) -> None:
        """Undo the swap: in the journal first, then between two frames."""
        if finding is None:
            self._installed.advance(Event.WITHDRAWN, detail="by hand")
        else:
            self._fail(finding)
        self._withdrawn.clear()
        self._recent = (Rates(), Rates())
        former, self._former = self._former, Former({}, {})
        workers = {n: r for n, r in former.workers.items() if not r.worker.gone.done()}
        active = self._installed.journal.active
        spare: Candidate | None = None
        if active is not None:
            loaded = self._installed.load(active)
            missing = tuple(
                plan
                for plan in folder.plans(loaded, self._config)
                if plan.name not in workers and plan.name not in former.parked
            )
            spare = Candidate(loaded, missing, self._config, self._cache_dir)
            while True:
                try:
                    await spare.stand()
                    break
                except (DeploymentError, WorkerGoneError) as failed:
                    # It stood here before: a box out of memory for a moment, say.
                    log.error("rollback_delayed", detail=str(failed))
                    await spare.end()
                    await asyncio.sleep(_LEAST_PAUSE_S)
            workers |= spare.take()
        self._former = await self._lineup.exchange(workers, former.parked)
        await self._release()
        self._tell()

    async def _release(self) -> None:
        """Let go of what an exchange put aside."""
        former, self._former = self._former, Former({}, {})
        for ready in former.workers.values():
            await ready.worker.end(grace_s=0)
        for pipeline in former.parked.values():
            await self._lineup.retire(pipeline, _DRAIN_S)

    def _fail(self, finding: Finding) -> None:
        deployed = self._installed.journal.candidate
        assert deployed is not None, "the journal names it in this state"
        self._installed.advance(
            Event.FAILED, reason=finding.reason, detail=finding.detail, evidence=finding.evidence
        )
        self._counters.count("deployments_failed", reason=finding.reason)
        log.error(
            "deployment_failed",
            deployment=deployed.name,
            revision=deployed.revision,
            reason=finding.reason,
            detail=finding.detail,
        )

    def _active(self, name: str) -> ActivePipeline | None:
        return next((pipeline for pipeline in self._lineup if pipeline.plan.name == name), None)

    def _tell(self) -> None:
        self.say()
        self._on_change()

    def _hinted(self, message: Incoming) -> None:
        if message.payload:
            self._wanted.set()
        self._session.acknowledge(message)


def _reason(unfit: EdgeError) -> str:
    return next(reason for kind, reason in _REASONS if isinstance(unfit, kind))
