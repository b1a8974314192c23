"""Shadow: a candidate judges the line's frames beside the active deployment, and publishes nothing.

Each pipeline that both have is compared by itself, so that a good one hides no bad one. A frame is
taken when the active pipeline has none that waits; on a line without a pause, one in so many is
taken all the same.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from edge.contracts.messages import Failed
from edge.contracts.verdict import Verdict
from edge.daemon.candidate import Candidate
from edge.daemon.intake import Frame
from edge.daemon.lineup import Lineup
from edge.daemon.outlets import Seen
from edge.daemon.worker_process import WorkerGoneError
from edge.deployment.watch import Finding, Shadow

_PATIENCE: Final = 25
"""A frame is left out while another waits; one in so many is not."""

Observer = Callable[[Frame, Verdict, Seen], None]


class Shadowing:
    """The comparison of one candidate with what runs.

    Args:
        candidate: Its workers stand.
        lineup: What runs.
    """

    def __init__(self, candidate: Candidate, lineup: Lineup) -> None:
        self._candidate = candidate
        self._rule = candidate.loaded.manifest.shadow
        self._pipelines = {
            pipeline.plan.name: pipeline
            for pipeline in lineup
            if (ready := candidate.readies.get(pipeline.plan.name)) is not None
            and ready.plan.source == pipeline.plan.source
            and self._rule.frames
        }
        self._shadows = {name: Shadow(self._rule) for name in self._pipelines}
        self._open = set(self._shadows)
        self._left_out: Counter[str] = Counter()
        self._frames: asyncio.Queue[tuple[Frame, Verdict, Seen]] = asyncio.Queue(maxsize=1)

    def observe(self, frame: Frame, verdict: Verdict, seen: Seen) -> None:
        """Take note of a verdict of an active pipeline."""
        name = verdict.pipeline
        if name not in self._open or self._frames.full() or seen.judged is None:
            return
        self._left_out[name] += 1
        if not self._pipelines[name].waiting or self._left_out[name] > _PATIENCE:
            self._left_out[name] = 0
            self._frames.put_nowait((frame, verdict, seen))

    async def run(self, withdrawn: asyncio.Event) -> Finding | None:
        """Compare until there is a finding; None where the candidate was withdrawn meanwhile."""
        if not self._open:
            return Finding("", "there was nothing to compare with", {})
        asked = asyncio.create_task(withdrawn.wait())
        try:
            async with asyncio.timeout(self._rule.max_wait_s):
                return await self._compare_all(asked)
        except TimeoutError:
            return Finding("", "the line brought too few frames to compare", self._evidence())
        except WorkerGoneError as lost:
            return Finding("worker-lost", f"in shadow: {lost}", self._evidence())
        finally:
            self._open.clear()
            asked.cancel()

    async def _compare_all(self, withdrawn: asyncio.Task[bool]) -> Finding | None:
        while self._open:
            getting = asyncio.create_task(self._frames.get())
            waited: set[asyncio.Future[Any]] = {getting, withdrawn}
            waited |= {ready.worker.gone for ready in self._candidate.readies.values()}
            try:
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                getting.cancel()  # without effect where it is done
            if withdrawn.done():
                return None
            if not getting.done() or getting.cancelled():
                raise WorkerGoneError("its worker ended")
            finding = await self._compare(*getting.result())
            if finding is not None:
                return finding
        said = "; ".join(f"{name}: {each.summary}" for name, each in self._shadows.items())
        return Finding("", said, self._evidence())

    async def _compare(self, frame: Frame, verdict: Verdict, seen: Seen) -> Finding | None:
        name, active = verdict.pipeline, seen.judged
        by = self._pipelines[name].plan
        answer = await self._candidate.shadow(frame, verdict, seen, by)
        if answer is None or active is None:
            return None
        shadow = self._shadows[name]
        if isinstance(answer, Failed):
            return self._found(name, shadow.fault(answer.reason, answer.detail))
        finding = shadow.add(
            frame.frame_id,
            active.verdict,
            sum(active.stage_ms.values()),
            answer.verdict,
            sum(answer.stage_ms.values()),
            more_actions=len(answer.actions) > len(active.actions),
        )
        if finding is None:
            return None
        if finding.reason:
            return self._found(name, finding)
        self._open.discard(name)
        return None

    def _found(self, name: str, finding: Finding) -> Finding:
        return Finding(finding.reason, f"{name}: {finding.detail}", self._evidence())

    def _evidence(self) -> dict[str, Any]:
        return {"shadow": {name: shadow.evidence() for name, shadow in self._shadows.items()}}
