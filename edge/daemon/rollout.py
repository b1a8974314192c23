"""Deployments exchanged while the line runs: looked for, proved, shadowed, watched, kept or undone.

The rules are `edge.deployment.rollout`'s and `edge.deployment.watch`'s; here they meet workers, the
repository and the clock.

1. Each step is in the journal before it is taken. One exception: where the disk takes no journal,
   a deployment that failed on probation is left all the same, and the journal follows.
2. A predecessor's workers stand ready until its successor is committed, so that going back is one
   exchange. Until then a device needs the memory of both.
3. Nothing here holds up the event loop, which answers frames: files are read and written by
   threads, workers and the look at the repository are processes.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from edge.config import DeviceConfig
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Verdict
from edge.daemon.canary import Canary
from edge.daemon.candidate import Candidate, GoldenError
from edge.daemon.control import Deployments
from edge.daemon.intake import Frame
from edge.daemon.leaving import Leaving
from edge.daemon.lineup import Former, Lineup
from edge.daemon.outlets import Seen
from edge.daemon.probation import Watching, recent_figures
from edge.daemon.shadowing import Observer, Shadowing
from edge.daemon.standing import stand_up_all
from edge.daemon.unless import unless
from edge.daemon.updates import look
from edge.daemon.worker_process import WorkerGoneError
from edge.deployment import asking, folder, report
from edge.deployment.fetch_messages import Fetched, Nothing, Progress, Refused
from edge.deployment.installed import Installed
from edge.deployment.rollout import FAILURES, MAX_DETAIL, Deployed, Event, State
from edge.deployment.watch import Finding, Rates
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

_AGAIN_S: Final = 30.0
"""After storage failed."""
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
        self._leaving = Leaving()
        self._former = Former.none()
        self._recent: dict[str, tuple[Rates, Rates]] = {}
        self._observe: Observer | None = None
        self._watching: Watching | None = None
        self._chance = random.Random()  # noqa: S311 - no secret
        self._looked_at_ns = 0
        self._looked_at_s = -asking.LEAST_PAUSE_S
        self.trouble = ""
        for reason in FAILURES:
            counters.count("deployments_failed", by=0, reason=reason)
        for step in installed.undone:
            self._tell_failure(step.deployment, step.reason, step.detail)
        if config.updates.repository:
            topic = report.DESIRED.format(device=config.device.id)
            session.subscribe(topic, 1, self._hinted)

    @property
    def settled(self) -> bool:
        """Whether what runs is committed."""
        return self._installed.journal.state is not State.PROBATION

    def given(self, frame: Frame, verdict: Verdict, seen: Seen) -> None:
        """Take note of a verdict of an active pipeline."""
        older, newer = self._recent.get(verdict.pipeline, (Rates(), Rates()))
        if newer.frames >= _RECENT:
            older, newer = newer, Rates()
        self._recent[verdict.pipeline] = older, newer
        newer.add(verdict.verdict, verdict.reason, verdict.score)
        if self._observe is not None:
            self._observe(frame, verdict, seen)

    def lost(self, pipeline: str, reason: str) -> None:
        """Take note of a worker of an active pipeline that ended unasked."""
        if self._watching is not None:
            self._watching.lose(pipeline, reason)

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
        self._session.publish(topic, report.encode(said), retain=True)

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

    async def asked(self, request: Deployments) -> str:
        """Do what a person on the box wants; return why not, or nothing.

        Raises:
            StorageError: The journal cannot be written; nothing has changed.
        """
        match request.act:
            case "look":
                return self.look_now(request.repository)
            case "pin" | "unpin":
                return await self.pin(pinned=request.act == "pin")
            case "rollback":
                return await self.roll_back(request.leaves)

    def look_now(self, repository: str = "") -> str:
        """Look for an update soon, once, at another address where one is given.

        Returns:
            Why not; empty: it will be done.
        """
        updates = self._config.updates
        if not repository and not updates.repository:
            return "this device takes no updates: updates.repository is not set"
        if updates.root_file is None or not updates.group:
            return "nothing is trusted here: updates.root_file and updates.group are not both set"
        if self._installed.journal.state is not State.IDLE:
            return "a deployment is under way: see edge deploy status"
        self._by_hand = repository or updates.repository
        self._wanted.set()
        return ""

    async def pin(self, *, pinned: bool) -> str:
        """Keep to what runs, or take deployments again.

        Pinned, no deployment is taken but by hand, and what is on the way is dropped.
        """
        await self._pin(pinned=pinned)
        coming = self._installed.journal.on_the_way
        if pinned and coming is not None:
            self._leaving.want(coming)
        return ""

    async def _pin(self, *, pinned: bool) -> None:
        await asyncio.to_thread(self._installed.pin, pinned=pinned)
        self._tell()

    async def roll_back(self, leaves: str = "") -> str:
        """Return to the deployment before, by its own trial; on probation at once.

        A candidate that is not active yet is dropped. The device is pinned with it: the next look
        would bring back what was left.

        Args:
            leaves: Digest of the deployment that the person saw and wants left; empty: whichever
                it is now.

        Returns:
            Why not; empty: it will be done.
        """
        # What a person can read on disk may be newer, for a moment, than what is remembered here.
        journal = await asyncio.to_thread(self._installed.settled)
        left = journal.leaves
        if left is None or journal.is_first:
            return "there is no deployment before this one"
        if leaves not in ("", left.digest):
            return (
                f"meanwhile a rollback would leave another deployment, revision {left.revision}: "
                "see edge deploy status, and ask again"
            )
        await self._pin(pinned=True)
        after = self._installed.journal
        # Else it is left already, or on its way out.
        if after.leaves == left and not after.goes_back:
            self._leaving.want(left)
        return ""

    # The loop ------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Look for updates and take them, until cancelled."""
        try:
            while True:
                try:
                    await self._turn()
                except StorageError as failed:
                    self._stuck(failed)
                    await asyncio.sleep(_AGAIN_S)
        finally:
            await self._release()

    async def _turn(self) -> None:
        journal = self._installed.journal
        if journal.state is State.PROBATION:
            await self._watch()
        elif journal.state is not State.IDLE:
            await self._try_candidate()
        elif self._leaving.wanted.is_set():
            if self._leaving.is_about(journal.active) and journal.previous is not None:
                await self._advance(Event.OFFERED, offered=journal.previous)
            self._leaving.drop()
        else:
            await unless(self._leaving.wanted, self._look_in_time())

    async def _look_in_time(self) -> None:
        if self._looked_at_ns or not self._config.updates.repository:
            pause_s = None
            if self._config.updates.repository:
                pause_s = asking.pause_s(self._config.updates.poll_s, self._chance)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            soonest_s = self._looked_at_s + asking.LEAST_PAUSE_S
            await asyncio.sleep(max(0.0, soonest_s - time.monotonic()))
        self._wanted.clear()
        await self._look()

    async def _look(self) -> None:
        journal, by_hand = self._installed.journal, self._by_hand
        self._by_hand = ""
        if (journal.pinned and not by_hand) or not (by_hand or self._config.updates.repository):
            self._looked_at_ns = self._looked_at_ns or time.time_ns()
            return
        try:
            outcome = await look(
                self._config.updates,
                self._config.device.id,
                self._installed.folder,
                journal,
                _say_progress,
                by_hand,
            )
        except ConfigError as unusable:
            outcome = Refused("ConfigError", str(unusable))
        self._looked_at_ns, self._looked_at_s = time.time_ns(), time.monotonic()
        match outcome:
            case Fetched() if self._installed.journal.pinned and not by_hand:
                self.trouble = ""  # somebody pinned the device while it was being fetched
                log.info("update_left", deployment=outcome.name, revision=outcome.revision)
            case Fetched():
                self.trouble = ""
                offered = Deployed(outcome.name, outcome.revision, outcome.manifest)
                await self._advance(Event.OFFERED, offered=offered)
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
                before, self.trouble = self.trouble, f"{outcome.error}: {outcome.detail}"
                self._counters.count("updates_refused", cause=outcome.error)
                # The same again is counted, and told once: a release may stay unsound for days.
                tell = log.debug if self.trouble == before else log.warning
                tell(
                    "update_refused",
                    error=outcome.error,
                    detail=outcome.detail,
                    revision=outcome.revision,
                )
        self._tell()

    # Forward -------------------------------------------------------------------------------------

    async def _try_candidate(self) -> None:
        """Trial, shadow and canary of the candidate, to its swap or its end."""
        if self._installed.journal.state is not State.FETCHED:
            await self._advance(Event.STARTED)
        if self._installed.journal.state is not State.FETCHED:
            return  # it had its last start
        deployed = self._installed.journal.candidate
        assert deployed is not None, "the journal names it in this state"
        goes_back = self._installed.journal.goes_back
        if not goes_back and self._leaving.wanted.is_set():
            await self._withdraw()
            return
        await self._advance(Event.BEGAN)
        self._tell()
        candidate: Candidate | None = None
        try:
            loaded, plans = await asyncio.to_thread(self._load, deployed)
            candidate = Candidate(loaded, plans, self._config, self._cache_dir)
            evidence = {"stood": await candidate.stand(), "golden": await candidate.prove()}
            await self._advance(Event.PROVED, evidence=evidence)
            self._tell()
            finding: Finding | None = Finding("", "the deployment before, by hand", {})
            if not goes_back:  # what is left by hand is no measure
                finding = await self._shadow(candidate)
            if not goes_back and finding is not None and not finding.reason:
                finding = await self._judge_a_share(candidate, finding)
            if finding is None or (not goes_back and self._leaving.wanted.is_set()):
                await self._withdraw()
            elif finding.reason:
                await self._fail(finding)
            else:
                await self._swap(candidate, finding, compared=not goes_back)
        except (DeploymentError, ConfigError, WorkerGoneError) as unfit:
            await self._fail(Finding(_reason(unfit), str(unfit), {}))
        finally:
            if candidate is not None:
                await candidate.end()
        self._tell()

    async def _withdraw(self) -> None:
        withdrawn = self._installed.journal.candidate
        await self._advance(Event.WITHDRAWN, detail="by hand")
        self._leaving.done(withdrawn)
        self._tell()

    async def _shadow(self, candidate: Candidate) -> Finding | None:
        shadowing = Shadowing(candidate, self._lineup)
        self._observe = shadowing.observe
        try:
            return await shadowing.run(self._leaving.wanted)
        finally:
            self._observe = None

    async def _judge_a_share(self, candidate: Candidate, shadow: Finding) -> Finding | None:
        """Have the candidate judge a share of the parts, where its manifest asks for that."""
        canary = Canary(candidate, self._lineup, recent_figures(self._recent))
        if not canary.wanted or self._leaving.wanted.is_set():
            return shadow
        await self._advance(Event.ADMITTED, detail=shadow.detail, evidence=shadow.evidence)
        self._tell()
        self._observe = canary.observe
        try:
            return await canary.run(self._leaving.wanted)
        finally:
            self._observe = None

    async def _swap(self, candidate: Candidate, finding: Finding, *, compared: bool) -> None:
        """Make the candidate active: in the journal first, then between two frames."""
        evidence = dict(finding.evidence)
        if compared:
            evidence["before"] = recent_figures(self._recent)
        await self._advance(Event.AGREED, detail=finding.detail, evidence=evidence)
        self._recent = {}
        self._former = Former(self._lineup.plans, {}, {})
        try:
            await self._lineup.exchange(candidate.readies, {}, self._former)
        except WorkerGoneError as lost:
            await self._go_back(Finding("worker-lost", str(lost), {}))

    async def _watch(self) -> None:
        """Probation of the active deployment, to its commit or its undoing."""
        self._tell()
        journal = self._installed.journal
        deployed = journal.candidate
        assert deployed is not None, "the journal names it in this state"
        if not self._leaving.is_about(deployed):
            self._leaving.drop()  # a second wish for what this one has replaced
        try:
            loaded = await asyncio.to_thread(self._installed.load, deployed)
        except DeploymentError as damaged:
            await self._go_back(Finding("unreadable", str(damaged), {}))
            return
        agreed = journal.last_of(Event.AGREED)
        watching = Watching(
            loaded.manifest.probation,
            [plan.name for plan in self._lineup.plans],
            agreed.evidence.get("before") if agreed else None,
        )
        self._observe, self._watching = watching.observe, watching
        try:
            finding = await watching.run(self._leaving.wanted)
        finally:
            self._observe = self._watching = None
        if finding is None or finding.reason:
            await self._go_back(finding)
            return
        await self._advance(Event.HELD, detail=finding.detail, evidence=finding.evidence)
        log.info("deployment_committed", deployment=deployed.name, revision=deployed.revision)
        await self._release()
        freed = await asyncio.to_thread(self._installed.collect)
        if freed:
            log.info("store_collected", freed_bytes=freed)
        self._tell()

    # Back ----------------------------------------------------------------------------------------

    async def _go_back(self, finding: Finding | None) -> None:
        """Undo the swap: in the journal first, then between two frames."""
        failed_one, active = self._installed.journal.candidate, self._installed.journal.previous
        returned = False
        while True:
            try:
                if finding is None:
                    await self._withdraw()
                else:
                    await self._fail(finding)
                self._leaving.done(failed_one)
                break
            except StorageError as failed:
                # A line must not keep a bad deployment for want of a disk. A start before the
                # journal follows would try it once more, and count that.
                self._stuck(failed)
                if not returned:
                    await self._return_to(active)
                    returned = True
                await asyncio.sleep(_AGAIN_S)
        if not returned:
            await self._return_to(active)
        self._tell()

    async def _return_to(self, active: Deployed | None) -> None:
        """Have the deployment before run again; try until it does."""
        self._recent = {}
        former, self._former = self._former, Former.none()
        readies = {n: r for n, r in former.workers.items() if not r.worker.gone.done()}
        aside = Former(self._lineup.plans, {}, {})
        plans = former.plans
        if not plans and active is not None:  # the swap was before this start
            try:
                _, plans = await asyncio.to_thread(self._load, active)
            except (DeploymentError, ConfigError) as damaged:
                # Better the one that failed than none at all: it answers each frame, and this
                # device takes the next one that is offered.
                self.trouble = f"the deployment before cannot run any more: {damaged}"
                log.error("rollback_impossible", detail=str(damaged))
                return
        while True:
            there = {*readies, *former.parked}
            missing = tuple(plan for plan in plans if plan.name not in there)
            try:
                await stand_up_all(missing, self._config, self._cache_dir, readies)
                await self._lineup.exchange(readies, former.parked, aside)
                break
            except (DeploymentError, WorkerGoneError) as failed:
                # It stood here before: a box out of memory or time for a moment, say.
                log.error("rollback_delayed", detail=str(failed))
                readies = {n: r for n, r in readies.items() if not r.worker.gone.done()}
            await asyncio.sleep(asking.LEAST_PAUSE_S)
        self._former = aside
        await self._release()

    async def _release(self) -> None:
        """Let go of what an exchange put aside."""
        former, self._former = self._former, Former.none()
        for ready in former.workers.values():
            await ready.worker.end(grace_s=0)
        for pipeline in former.parked.values():
            await self._lineup.retire(pipeline, _DRAIN_S)

    # What is told --------------------------------------------------------------------------------

    def _load(self, deployed: Deployed) -> tuple[folder.LoadedDeployment, tuple[PipelinePlan, ...]]:
        loaded = self._installed.load(deployed)
        return loaded, folder.plans(loaded, self._config)

    async def _advance(self, event: Event, **what: Any) -> None:
        """Take an event; who is cancelled meanwhile leaves when it is written.

        Else the next event would meet the journal before this one, and be none that may follow it.
        """
        writing = asyncio.create_task(asyncio.to_thread(self._installed.advance, event, **what))
        try:
            await asyncio.shield(writing)
        finally:
            await asyncio.wait((writing,))

    async def _fail(self, finding: Finding) -> None:
        deployed = self._installed.journal.candidate
        assert deployed is not None, "the journal names it in this state"
        await self._advance(
            Event.FAILED, reason=finding.reason, detail=finding.detail, evidence=finding.evidence
        )
        self._tell_failure(deployed, finding.reason, finding.detail)

    def _tell_failure(self, deployed: Deployed, reason: str, detail: str) -> None:
        self._counters.count("deployments_failed", reason=reason)
        log.error(
            "deployment_failed",
            deployment=deployed.name,
            revision=deployed.revision,
            reason=reason,
            detail=detail[:MAX_DETAIL],
        )

    def _stuck(self, failed: StorageError) -> None:
        self.trouble = str(failed)
        log.error("deployments_stuck", detail=str(failed))
        self._tell()

    def _tell(self) -> None:
        self.say()
        self._on_change()

    def _hinted(self, message: Incoming) -> None:
        if message.payload:
            self._wanted.set()
        self._session.acknowledge(message)


def _say_progress(progress: Progress) -> None:
    log.info(
        "update_file",
        path=progress.path,
        held_bytes=progress.held_bytes,
        total_bytes=progress.total_bytes,
    )


def _reason(unfit: EdgeError) -> str:
    return next(reason for kind, reason in _REASONS if isinstance(unfit, kind))
