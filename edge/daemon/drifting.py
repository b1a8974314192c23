"""Drift at work: frames to their watches, changes to the log, and what was learnt to disk.

The rules are `edge.drift`'s; here they meet the clock, the log and the state directory. Nothing
here changes a verdict, and a disk that takes nothing costs what was learnt since, and no frame.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from edge import durable
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Verdict
from edge.daemon.control import LearnAnew
from edge.daemon.intake import Frame
from edge.daemon.outlets import Seen
from edge.drift import kept
from edge.drift.kept import Kept, Sample
from edge.drift.watch import Change, Watch
from edge.errors import StorageError
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

FILE: Final = "drift.json"
"""In the state directory."""
MAX_FILE_BYTES: Final = 16 << 20
MAX_PIPELINES: Final = 32
"""Kept; those of deployments that went give way."""
SAVE_S: Final = 600.0
"""What a kill may cost of what was learnt; a change of what drifts is written at once."""


def read(folder: Path) -> dict[str, Kept]:
    """Return what was learnt, by pipeline; nothing where there is no file.

    Args:
        folder: The state directory.

    Raises:
        StorageError: The file cannot be read, or is something else.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            return kept.decode(file.read(MAX_FILE_BYTES))
    except FileNotFoundError:
        return {}
    except OSError as failed:
        raise durable.storage_error(str(path), failed) from failed
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise StorageError(
            f"{path}: {broken} (the daemon learns anew what is usual, and writes the file anew: "
            "see that the line is well meanwhile)"
        ) from broken


class Drifting:
    """All watches of the daemon; on the event loop's thread.

    Args:
        folder: The state directory.
        counters: The daemon's.
        settled: Whether what runs is committed: verdicts given on probation are no reference.
        on_change: Called when something changed that the status tells.
    """

    def __init__(
        self,
        folder: Path,
        counters: Counters,
        settled: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._file = folder / FILE
        self._counters = counters
        self._settled = settled
        self._on_change = on_change
        self._book: dict[str, Kept] = {}
        self._watches: dict[str, Watch] = {}
        self._unwritten = False
        self._urgent = asyncio.Event()
        self._writing = asyncio.Lock()

    def recover(self) -> None:
        """Take up what was learnt before this start; what cannot be read is learnt anew."""
        try:
            self._book = read(self._file.parent)
        except StorageError as unreadable:
            log.error("drift_unreadable", detail=str(unreadable))

    def given(self, plan: PipelinePlan, frame: Frame, verdict: Verdict, seen: Seen) -> None:
        """Take note of a verdict of an active pipeline."""
        sight = seen.judged.sight if seen.judged is not None else None
        if sight is None or not plan.drift.learn_frames:
            return
        recipe = frame.reference_id if plan.reference else ""
        sample = Sample(recipe, sight, verdict.verdict, verdict.score, len(verdict.defects))
        deployment = plan.deployment.digest if self._settled() else ""
        self._unwritten = True
        for change in self._watch(plan).add(sample, deployment, time.time_ns()):
            self._tell(plan.name, change)

    def status(self, plan: PipelinePlan) -> dict[str, Any] | None:
        """Return what the status message says of a pipeline's drift; None: it is not watched."""
        if not plan.drift.learn_frames:
            return None
        watch = self._watch(plan)
        return {
            "state": watch.state,
            "learnt": watch.learnt_frames,
            "of": plan.drift.learn_frames,
            "since_ns": watch.kept.since_ns,
            "by": watch.kept.by,
            "findings": [
                {"measure": name, "since_ns": watch.kept.drifting[name], "detail": standing.text}
                for name, standing in watch.standings.items()
                if name in watch.kept.drifting
            ],
            "measures": {
                name: {
                    "now": round(standing.now, 3),
                    "reference": round(standing.reference, 3),
                    "ratio": round(standing.ratio, 3),
                }
                for name, standing in watch.standings.items()
            },
        }

    async def learn_anew(self, request: LearnAnew, via: str) -> str:
        """Forget what is usual, and learn it from now on; return why not, or nothing."""
        names = [request.pipeline] if request.pipeline else list(self._watches)
        if unknown := [name for name in names if name not in self._watches]:
            known = ", ".join(self._watches) or "none is"
            return f"pipeline {unknown[0]!r} is not watched ({known})"
        for name in names:
            before = self._watches.pop(name)
            self._book[name] = Kept(
                camera=before.kept.camera,
                since_ns=time.time_ns(),
                by=f"{request.by} ({via}): {request.reason}",
            )
            log.warning(
                "drift_learnt_anew",
                pipeline=name,
                by=request.by,
                via=via,
                detail=request.reason,
                drifted=sorted(before.kept.drifting),
                reference={n: round(s.reference, 3) for n, s in before.standings.items()},
            )
        self._unwritten = True
        self._urgent.set()
        self._on_change()
        return "" if names else "nothing is watched here: no pipeline runs"

    async def keep(self) -> None:
        """Write what was learnt down, now and then and when something changed; until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_S):
                    await self._urgent.wait()
            self._urgent.clear()
            await self.save()

    async def save(self) -> None:
        """Write what was learnt down, where there is something new."""
        if not self._unwritten:
            return
        async with self._writing:
            self._unwritten = False
            content = kept.encode(self._book)
            try:
                await asyncio.to_thread(durable.replace, self._file, content)
            except OSError as failed:
                self._unwritten = True  # next time
                self._counters.count("drift_unwritten")
                log.error("drift_unwritten", file=str(self._file), detail=str(failed))

    def _watch(self, plan: PipelinePlan) -> Watch:
        watch = self._watches.get(plan.name)
        camera = f"{plan.source} {plan.image.pixel_format}"
        if watch is None or watch.plan is not plan.drift or watch.kept.camera != camera:
            found = self._book.pop(plan.name, None) or Kept()
            if found.camera != camera:
                found = Kept(camera=camera, by=found.by)
            self._book[plan.name] = found  # the one used last is at the end
            while len(self._book) > MAX_PIPELINES:
                del self._book[next(iter(self._book))]
            watch = self._watches[plan.name] = Watch(plan.name, plan.source, plan.drift, found)
        return watch

    def _tell(self, pipeline: str, change: Change) -> None:
        standing = change.standing
        match change.event:
            case "learnt":
                log.info(
                    "drift_learnt", pipeline=pipeline, recipe=change.subject, usual=change.learnt
                )
            case "began":
                assert standing is not None, "it is what drifts"
                self._counters.count("drifts", pipeline=pipeline, measure=change.subject)
                log.warning(
                    "drift_began",
                    pipeline=pipeline,
                    measure=change.subject,
                    now=round(standing.now, 3),
                    reference=round(standing.reference, 3),
                    ratio=round(standing.ratio, 2),
                    detail=standing.text,
                )
            case "ended":
                log.info(
                    "drift_ended",
                    pipeline=pipeline,
                    measure=change.subject,
                    now=round(standing.now, 3) if standing else None,
                    reference=round(standing.reference, 3) if standing else None,
                    detail="" if standing else "another deployment's verdicts are learnt",
                )
        self._urgent.set()
        self._on_change()
