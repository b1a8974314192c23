"""A deployment on its way to become active: its workers, made ready and proved beside the line.

What it may not do here is disturb the line: its workers stand aside, judge golden frames one at a
time, and in shadow a frame only when the active pipeline has none that waits.
"""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any, Final

from edge.config import DeviceConfig
from edge.contracts.frame import ContentType, Encoding, part_number
from edge.contracts.messages import Failed, Judge, Judged
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import Verdict
from edge.daemon.intake import Frame
from edge.daemon.outlets import Seen
from edge.daemon.references import Held
from edge.daemon.signals import as_granted
from edge.daemon.standing import ReadyWorker, stand_up_all
from edge.daemon.worker_process import WorkerGoneError
from edge.deployment import files
from edge.deployment.folder import LoadedDeployment
from edge.deployment.pins import MAX_IMAGE_BYTES
from edge.deployment.rules import Golden
from edge.deployment.schema import Pinned
from edge.errors import DeploymentError, TrialError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PATIENCE: Final = 20
"""Budgets that an answer is waited for. A frame that takes more than one has failed; the rest is
for a line that leaves no time, and ends a worker that never answers."""


_FIRST_TICKET: Final = 1 << 62
"""Beyond those of a pipeline's dispatch, which may speak to the same worker next: what it was asked
here and answers late is no answer there."""


class GoldenError(TrialError):
    """A golden frame was not judged as it must be."""


class Candidate:
    """A deployment that is being proved.

    Args:
        loaded: The deployment.
        plans: Its pipelines.
        config: The device config.
        cache_dir: Of compiled guests.

    Attributes:
        loaded: As given.
        readies: Its workers, by pipeline, once they stand; the candidate's until they are taken.
    """

    def __init__(
        self,
        loaded: LoadedDeployment,
        plans: tuple[PipelinePlan, ...],
        config: DeviceConfig,
        cache_dir: Path,
    ) -> None:
        self.loaded = loaded
        self.readies: dict[str, ReadyWorker] = {}
        self._plans = plans
        self._config = config
        self._cache_dir = cache_dir
        self._tickets = itertools.count(_FIRST_TICKET)
        self._asked: dict[int, asyncio.Future[Judged | Failed]] = {}

    async def stand(self) -> dict[str, Any]:
        """Make its workers ready; return how long each took.

        One that does not stand is tried once more: a guest's time runs on a busy box, too.

        Raises:
            DeploymentError: One cannot stand on this device.
            WorkerGoneError: One ended.
        """
        try:
            await stand_up_all(self._plans, self._config, self._cache_dir, self.readies)
        except (DeploymentError, WorkerGoneError):
            left = tuple(plan for plan in self._plans if plan.name not in self.readies)
            await stand_up_all(left, self._config, self._cache_dir, self.readies)
        for ready in self.readies.values():
            ready.worker.on_answer = self._answered
        return {
            name: {"start_ms": ready.start_ms, "provider": ready.loaded.provider}
            for name, ready in self.readies.items()
        }

    async def prove(self) -> dict[str, Any]:
        """Have the golden frames judged.

        Returns:
            Number of frames, and the time of the slowest, by pipeline.

        Raises:
            GoldenError: One was not judged as it must be, or not in the pipeline's budget.
            DeploymentError: A frame of the folder is not the pinned one.
            WorkerGoneError: A worker ended.
        """
        found: dict[str, Any] = {}
        for name, ready in self.readies.items():
            golden = self.loaded.manifest.pipelines[name].golden
            took = [await self._judge_golden(ready, number, g) for number, g in enumerate(golden)]
            found[name] = {"golden": len(golden), "slowest_ms": round(max(took, default=0.0), 2)}
        return found

    async def shadow(
        self, frame: Frame, verdict: Verdict, seen: Seen, active: PipelinePlan
    ) -> Judged | Failed | None:
        """Judge a frame that the active pipeline has judged; None where it cannot be compared.

        Args:
            frame: The frame.
            verdict: What it was given.
            seen: What that came from.
            active: The plan by which it was given.

        Raises:
            WorkerGoneError: The worker ended.
        """
        ready = self.readies.get(verdict.pipeline)
        if ready is None or seen.judged is None:
            return None
        plan = ready.plan
        if plan.reference and (seen.reference is None or plan.reference != active.reference):
            return None
        # The policy decides from the state that the active one decided from, where it can read it.
        ready.worker.take_up(seen.judged.before)
        known = dict(zip((grant.name for grant in active.signals), seen.signals, strict=True))
        signals = tuple(
            as_granted(known.get(grant.name, SignalValue()), grant) for grant in plan.signals
        )
        request = self._request(
            ready,
            frame.content,
            frame.captured_at_ns,
            seen.reference,
            signals,
            part_number(frame.part_id),
        )
        reference = seen.reference if plan.reference else None
        return await self._ask(ready, request, frame.payload, reference)

    async def end(self) -> None:
        """End the workers that took no place in the line."""
        readies, self.readies = self.readies, {}
        for ready in readies.values():
            await ready.worker.end(grace_s=0)

    async def _judge_golden(self, ready: ReadyWorker, number: int, golden: Golden) -> float:
        payload = self._read(golden.frame)
        reference = None
        if golden.reference is not None:
            encoded = self._read(golden.reference)
            reference = Held.of(_content(encoded), encoded)
        absent = (SignalValue(),) * len(ready.plan.signals)
        request = self._request(
            ready, _content(payload), time.time_ns(), reference, absent, probe=True
        )
        began = time.monotonic()
        answer = await self._ask(ready, request, payload, reference)
        took_ms = (time.monotonic() - began) * 1e3
        what = f"{ready.plan.name}: golden frame {number + 1} ({golden.frame.path})"
        if isinstance(answer, Failed):
            raise GoldenError(f"{what}: {answer.reason}: {answer.detail}")
        found: dict[str, object] = {"verdict": answer.verdict.value}
        wanted: dict[str, object] = {"verdict": golden.verdict}
        if golden.defects is not None:
            found["defects"], wanted["defects"] = len(answer.defects), golden.defects
        if found != wanted:
            raise GoldenError(f"{what}: found {found}, wanted {wanted}")
        if golden.score is not None and abs(answer.score - golden.score) > golden.score_tolerance:
            raise GoldenError(
                f"{what}: score {answer.score:g}, wanted {golden.score:g} within "
                f"{golden.score_tolerance:g}"
            )
        if took_ms > ready.plan.budget_ms:
            raise GoldenError(
                f"{what}: took {took_ms:.0f} ms, and the budget is {ready.plan.budget_ms}"
            )
        return took_ms

    def _request(
        self,
        ready: ReadyWorker,
        content: ContentType,
        captured_at_ns: int,
        reference: Held | None,
        signals: tuple[SignalValue, ...],
        part: int = 0,
        *,
        probe: bool = False,
    ) -> Judge:
        return Judge(
            ticket=next(self._tickets),
            content_type=content,
            deadline_ns=time.monotonic_ns() + round(_patience_s(ready) * 1e9),
            captured_at_ns=captured_at_ns,
            reference=reference.key if reference and ready.plan.reference else "",
            signals=signals,
            probe=probe,
            part=part,
        )

    async def _ask(
        self, ready: ReadyWorker, request: Judge, payload: bytes, reference: Held | None
    ) -> Judged | Failed:
        answer: asyncio.Future[Judged | Failed] = asyncio.get_running_loop().create_future()
        self._asked[request.ticket] = answer
        try:
            ready.worker.judge(request, payload, reference)
            within_s = _patience_s(ready)
            await asyncio.wait(
                (answer, ready.worker.gone), timeout=within_s, return_when="FIRST_COMPLETED"
            )
            if answer.done():
                return answer.result()
            if ready.worker.gone.done():
                raise await ready.worker.loss()
            raise WorkerGoneError(f"its worker gave no answer in {within_s:g} s")
        finally:
            del self._asked[request.ticket]

    def _answered(self, answer: Judged | Failed) -> None:
        waiting = self._asked.get(answer.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _read(self, image: Pinned) -> bytes:
        return files.read(self.loaded.root, image.path, MAX_IMAGE_BYTES, image.sha256)


def _patience_s(ready: ReadyWorker) -> float:
    return _PATIENCE * ready.plan.budget_ms / 1e3


def _content(payload: bytes) -> ContentType:
    return ContentType(Encoding.PNG if payload.startswith(_PNG) else Encoding.JPEG)
