"""Judging again: the frame path of a worker, fed with what was recorded. One thread.

A pipeline is built once and used for all records that it fits. Before each frame its policy takes
up the recorded state, so the order of records does not matter.
"""

import contextlib
import tempfile
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from edge.contracts.frame import ContentType, parse_content_type, part_number
from edge.contracts.messages import Judge, Judged, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import Kind
from edge.errors import FrameError, IncompatibleError
from edge.ledger.entry import pinned
from edge.ledger.record import Record
from edge.pipeline.path import FramePath
from edge.rerun import compare
from edge.rerun.compare import DEPLOYMENT, INPUT, RUNTIME, VERDICT, Difference
from edge.rerun.evidence import Evidence
from edge.rerun.planning import Changes, Deployments, plan_of
from edge.wasm.engine import GuestEngine
from edge.worker.loading import build
from edge.worker.versions import versions

IDENTICAL: Final = "identical"
DIFFERS: Final = "differs"
MISSING: Final = "missing"
UNJUDGED: Final = "unjudged"

_PATHS: Final = 4
"""Pipelines that stand at once; each takes its guests' memory and its model's."""
_FOR_EVER: Final = (1 << 63) - 1


class Told(msgspec.Struct, frozen=True):
    """An answer in short."""

    verdict: Kind
    reason: str
    score: float | None
    defects: int


class Outcome(msgspec.Struct, frozen=True):
    """What became of one record.

    Attributes:
        status: `identical`: the same inputs, code and parameters gave the same answer, bit for bit.
            `differs`: one of them, or the answer, is another. `missing`: it cannot be computed.
            `unjudged`: the host gave this verdict (an overrun, say), and nothing computed it.
        here: What came out; None where nothing did.
        differences: Causes, then effects, then engines (`edge.rerun.compare`).
        truth: What a person said of the part; None: nobody did.
    """

    seq: int
    pipeline: str
    frame_id: str
    part_id: str
    status: str
    recorded: Told
    here: Told | None
    differences: tuple[Difference, ...]
    truth: Kind | None = None


class _Standing:
    """A path with the reference that it was lent last."""

    def __init__(self, path: FramePath, plan: PipelinePlan) -> None:
        self.path = path
        self.plan = plan
        self._reference = ""

    def lend(self, key: str, content: ContentType, payload: bytes) -> None:
        if key != self._reference:
            self.path.encoded.forget(self._reference)
            self.path.encoded.keep(key, content, payload)
            self._reference = key


class Rejudge:
    """Judges recorded frames again; `with` ends what it started.

    Args:
        deployments: Where the recorded ones are found.
        changes: What is to be other than recorded.
        provider: Another provider to run on; empty: the recorded one.
    """

    def __init__(
        self, deployments: Deployments, changes: Changes | None = None, provider: str = ""
    ) -> None:
        self._deployments = deployments
        self._changes = changes or Changes()
        self._provider = provider
        self._versions = versions()
        self._standing: OrderedDict[bytes, _Standing] = OrderedDict()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        cache = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-replay-"))
        self._engine = self._stack.enter_context(GuestEngine(Path(cache)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._standing.clear()
        self._stack.close()

    def judge(self, evidence: Evidence, truth: Kind | None = None) -> Outcome:
        """Judge one record's frame again.

        Raises:
            DeploymentError: A wished parameter is not what its guest takes.
        """
        record = evidence.record
        here, differences = self._compared(evidence)
        return Outcome(
            seq=record.seq,
            pipeline=record.pipeline,
            frame_id=record.frame_id,
            part_id=record.part_id,
            status=_status(record, here, differences),
            recorded=Told(record.verdict, record.reason, record.score, len(record.defects)),
            here=here,
            differences=differences,
            truth=truth,
        )

    def _compared(self, evidence: Evidence) -> tuple[Told | None, tuple[Difference, ...]]:
        record = evidence.record
        if evidence.missing:
            return None, evidence.missing
        deployment = self._deployments.find(record.deployment)
        plan = plan_of(deployment, record, self._provider) if deployment else None
        if deployment is None or plan is None:
            return None, _absent(record)
        try:
            standing = self._stand(self._changes.applied(plan))
        except IncompatibleError as unfit:
            if self._changes.wished:
                raise  # it is the wish that does not fit
            note = f"it cannot stand here: {unfit} (--provider names another one)"
            return None, (Difference(RUNTIME, "provider", record.provider, "", note=note),)
        causes = [
            *compare.of_deployment(
                record, deployment.digest, pinned(standing.plan), evidence.parameters
            ),
            *self._changed_signals(record),
        ]
        answer = self._run(standing, evidence)
        refusal = standing.path.take_state_refusal()
        if refusal:
            causes.append(Difference(DEPLOYMENT, "policy state", record.digests.state, refusal))
        here, effects = _effects(record, answer)
        notes: list[Difference] = []
        if record.judged:
            provider = standing.path.provider
            notes += compare.of_runtime(record, provider, standing.plan, self._versions)
        return here, (*causes, *effects, *notes)

    def _stand(self, plan: PipelinePlan) -> _Standing:
        key = msgspec.json.encode(plan, order="sorted")
        standing = self._standing.get(key)
        if standing is None:
            while len(self._standing) >= _PATHS:
                self._standing.popitem(last=False)
            path, _ = build(self._engine, plan, PolicyState())
            standing = self._standing[key] = _Standing(path, plan)
        self._standing.move_to_end(key)
        return standing

    def _run(self, standing: _Standing, evidence: Evidence) -> Judged | FrameError:
        record, path = evidence.record, standing.path
        key = ""
        if standing.plan.reference:
            content = parse_content_type(record.content.get("reference"))
            key = f"{record.digests.reference}-{content}"
            standing.lend(key, content, evidence.reference)
        path.take_up(evidence.policy)
        request = Judge(
            ticket=record.seq,
            content_type=parse_content_type(record.content.get("frame")),
            deadline_ns=_FOR_EVER,
            captured_at_ns=record.captured_at_ns,
            reference=key,
            signals=tuple(self._signal(record, grant.name) for grant in standing.plan.signals),
            part=part_number(record.part_id),
        )
        try:
            return path.judge(path.decode(request, evidence.frame))
        except FrameError as failed:
            return failed
        finally:
            path.mend()

    def _signal(self, record: Record, name: str) -> SignalValue:
        if name in self._changes.signals:
            return SignalValue(self._changes.signals[name], 0, SignalState.FRESH)
        seen = record.signals.get(name)
        if seen is None or seen.value is None:
            return SignalValue()
        return SignalValue(seen.value, seen.age_ns, seen.state)

    def _changed_signals(self, record: Record) -> list[Difference]:
        changed = []
        for name, value in self._changes.signals.items():
            seen = record.signals.get(name)
            before = None if seen is None or seen.state is SignalState.ABSENT else seen.value
            if before != value:
                by = None if before is None else value - before
                told = "" if before is None else str(before)
                changed.append(Difference(INPUT, f"signal {name}", told, str(value), by))
        return changed


def _absent(record: Record) -> tuple[Difference, ...]:
    """Say which files of the deployment are needed."""
    was = record.digests
    named = record.deployment
    wanted = {
        f"deployment {named.name} revision {named.revision}, its manifest": named.digest,
        "model": was.model,
        "preprocess": was.preprocess,
        "postprocess": was.postprocess,
        "decide": was.decide,
        **(
            {f"refine.{k}": v for k, v in msgspec.to_builtins(was.refine).items()}
            if was.refine
            else {}
        ),
    }
    return tuple(
        Difference(DEPLOYMENT, what, digest, "", note="not here") for what, digest in wanted.items()
    )


def _effects(record: Record, answer: Judged | FrameError) -> tuple[Told, list[Difference]]:
    if isinstance(answer, Judged):
        told = Told(answer.verdict, answer.reason, answer.score, len(answer.defects))
        return told, list(compare.of_verdict(record, answer))
    told = Told(record.verdict, answer.reason, 0.0, 0)
    if record.reason == answer.reason and not record.judged:
        return told, []
    return told, [Difference(VERDICT, "failure", record.reason, f"{answer.reason}: {answer}")]


def _status(record: Record, here: Told | None, differences: tuple[Difference, ...]) -> str:
    if here is None:
        return MISSING
    found = [each for each in differences if each.kind != RUNTIME]
    if not record.judged and any(each.kind == VERDICT for each in found):
        return UNJUDGED
    return DIFFERS if found else IDENTICAL
