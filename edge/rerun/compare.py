"""Differences between what was recorded and what is here. Pure.

Three kinds are causes: an input, a file or setting of the deployment, a parameter. Where one of
them differs it is not the recorded verdict that was computed again. A differing engine or processor
is told beside them, for it may be why; alone it is no finding. A differing verdict is the effect.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

import msgspec

from edge.contracts.messages import Judged
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Defect
from edge.ledger.entry import PARAMETERS, Pinned
from edge.ledger.record import Record

INPUT: Final = "input"
DEPLOYMENT: Final = "deployment"
PARAMETER: Final = "parameter"
RUNTIME: Final = "runtime"
VERDICT: Final = "verdict"

_ROLES: Final = ("preprocess", "postprocess", "decide")


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it was recorded.

    Attributes:
        kind: One of the constants above.
        what: Its name.
        recorded: As it was, for people; empty: there was none.
        here: As it is, likewise.
        by: How far the two lie apart, where they are numbers.
        note: What became of it, where nothing is here.
    """

    kind: str
    what: str
    recorded: str
    here: str
    by: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return f"{self.what}: {self.recorded} recorded, {self.note}"
        apart = "" if self.by is None else f" ({self.by:+.6g})"
        return f"{self.what}: {self.recorded or 'none'} recorded, {self.here or 'none'} here{apart}"


def of_deployment(
    record: Record, digest: str, pinned: Pinned, recorded_parameters: bytes | None
) -> Iterator[Difference]:
    """Compare the manifest's digest, the pinned files and the parameters.

    Args:
        record: The record.
        digest: Of the manifest that is used here.
        pinned: Of the plan that is used here.
        recorded_parameters: The document behind the recorded digest, where it was kept.
    """
    was = record.digests
    if record.deployment.digest != digest:
        yield Difference(DEPLOYMENT, "manifest", record.deployment.digest, digest)
    for role in ("model", *_ROLES):
        before, now = getattr(was, role), getattr(pinned, role)
        if before != now:
            yield Difference(DEPLOYMENT, role, before, now)
    yield from _values(
        DEPLOYMENT,
        "refine",
        msgspec.to_builtins(was.refine) if was.refine else {},
        msgspec.to_builtins(pinned.refine) if pinned.refine else {},
    )
    if was.parameters == pinned.parameters:
        return
    if recorded_parameters is None:
        yield Difference(PARAMETER, "parameters", was.parameters, pinned.parameters)
        return
    before_all, now_all = json.loads(recorded_parameters), json.loads(pinned.document)
    for role, before, now in zip(
        PARAMETERS, *_of_length(len(PARAMETERS), before_all, now_all), strict=True
    ):
        yield from _values(PARAMETER, role, before, now)


def _of_length(length: int, *documents: list[Any]) -> Iterator[list[Any]]:
    """Documents of parameters with nothing in the place of a second model that is not there."""
    for document in documents:
        yield document + [{}] * (length - len(document))


def of_runtime(
    record: Record, provider: str, plan: PipelinePlan, versions: Mapping[str, str]
) -> Iterator[Difference]:
    """Compare provider, threads, options, versions and processor."""
    was = record.runtime
    here = {"provider": provider, "threads": plan.model.threads, "options": plan.model.options}
    before = {"provider": record.provider, "threads": was.threads, "options": was.options}
    yield from _values(RUNTIME, "", before, here)
    yield from _values(RUNTIME, "", was.versions, dict(versions))


def of_verdict(record: Record, judged: Judged) -> Iterator[Difference]:
    """Compare the answers; findings bit for bit, as they were before rounding."""
    for what, before, now in (
        ("verdict", record.verdict.value, judged.verdict.value),
        ("reason", record.reason, judged.reason),
        ("score", record.score, judged.score),
    ):
        yield from _values(VERDICT, what, before, now)
    numbered = enumerate(zip_longest(record.defects, judged.defects), start=1)
    shown = [each for n, pair in numbered for each in _defect(n, *pair)]
    yield from shown
    if not shown and record.digests.findings != judged.findings:
        # Less than the record's digits show: four of a score, two of a coordinate.
        yield Difference(VERDICT, "findings", record.digests.findings, judged.findings)


def _defect(n: int, before: Defect | None, now: Defect | None) -> Iterator[Difference]:
    if before is None or now is None:
        yield Difference(VERDICT, f"defect {n}", _named(before), _named(now))
        return
    yield from _values(VERDICT, f"defect {n} class", before.label, now.label)
    yield from _values(VERDICT, f"defect {n} score", before.score, now.score)
    if before.box != now.box:
        moved = max((b - a for a, b in zip(before.box, now.box, strict=True)), key=abs)
        boxes = str(list(before.box)), str(list(now.box))
        yield Difference(VERDICT, f"defect {n} box", *boxes, by=moved)


def _named(defect: Defect | None) -> str:
    return "" if defect is None else f"{defect.label} {defect.score:.4f} at {list(defect.box)}"


def _values(kind: str, what: str, before: Any, now: Any) -> Iterator[Difference]:
    """Walk two values of JSON side by side, and yield the leaves that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{what}.{key}" if what else key
            yield from _values(kind, name, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list):
        for n, (one, other) in enumerate(zip_longest(before, now)):
            yield from _values(kind, f"{what}[{n}]", one, other)
    elif before != now:
        numbers = isinstance(before, int | float) and isinstance(now, int | float)
        yield Difference(kind, what, _text(before), _text(now), now - before if numbers else None)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
