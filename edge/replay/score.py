"""Scores verdicts against truth. Pure: what was played and what was answered, nothing else.

Rates are told with their 95 % Wilson intervals, since a few hundred parts prove little. They are
what the line sees: a fail-safe that rejects a good part is overkill, whatever its reason.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edge.contracts.verdict import Defect, Kind, Reason, Verdict
from edge.replay.parts import TrueBox, Truth

TAIL_FRAMES: Final = 1_000
"""Values of which one in a thousand is told."""
MATCH_IOU: Final = 0.33
"""DeepPCB's own protocol (arXiv 1902.06197)."""
_Z95: Final = 1.959964


@dataclass(frozen=True)
class Shot:
    """A frame that was published.

    Attributes:
        truth: None where nothing is known of the part.
        published_ns: CLOCK_MONOTONIC, when it was handed to the broker's connection.
        series: Of a time lapse, what it is a frame of.
        grouped: Whether it is one of several frames of its part.
    """

    frame_id: str
    part_id: str
    truth: Truth | None
    published_ns: int
    series: str = ""
    grouped: bool = False


@dataclass(frozen=True)
class Answer:
    """A verdict that came.

    Attributes:
        arrived_ns: CLOCK_MONOTONIC.
        redelivered: The broker says that it sent it before: no second verdict of the daemon.
    """

    verdict: Verdict
    arrived_ns: int
    redelivered: bool = False


@dataclass(frozen=True)
class Rate:
    """A share of parts: how many of how many."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % Wilson interval; None of nothing."""
        return wilson(self.count, self.of) if self.of else None


@dataclass(frozen=True)
class Boxes:
    """Findings against true defects: same class, overlap of at least `MATCH_IOU`, one to one."""

    true: int
    found: int
    matched: int


@dataclass(frozen=True)
class Parts:
    """Frames fused to the parts that they show: a part is judged as its worst frame is.

    Attributes:
        count: Parts with at least one verdict.
        escape: Bad parts of which every frame passed, of the bad parts.
        overkill: Good parts of which a frame was rejected, of the good parts.
    """

    count: int
    escape: Rate
    overkill: Rate


@dataclass(frozen=True)
class Score:
    """The score of one replay.

    Attributes:
        frames: Published.
        answered: Of them, with at least one verdict.
        duplicates: Second verdicts for a frame, redeliveries by the broker left out.
        contradictions: Second verdicts that say something else than the first.
        foreign: Verdicts for frames that were not ours.
        escape: Bad parts that passed, of the bad parts answered.
        overkill: Good parts rejected, of the good parts answered.
        good_reviewed: Good parts sent to review, of the good parts answered.
        bad_reviewed: Bad parts sent to review, of the bad parts answered.
        boxes: None where no defects are known one by one.
        parts: None where no part has several frames.
        labelled: Frames whose strongest finding is of the kind that is known, of those with a known
            kind; None where no kind is known, or the model tells none of the known kinds.
        drift: For each series Spearman's rank correlation of score and time, -1..1.
        latency_ms: Publication to verdict, as the camera sees it (`percentiles`).
        daemon_latency_ms: What the daemon says itself, from capture (or arrival) to publication.
        budget_ms: What the daemon says; 0 where no verdict came.
        provider: Likewise; empty where no verdict came.
        unsent: Frames that the broker did not take; they are missing, too.
        unheard: Frames that nobody subscribes to, likewise; 0 where the broker does not say so.
        undecodable: Messages on the verdict topic that are no verdict.
        lag_ms: How much later than planned frames went out.
    """

    frames: int
    answered: int
    verdicts: Mapping[str, int]
    reasons: Mapping[str, int]
    duplicates: int
    contradictions: int
    redelivered: int
    foreign: int
    escape: Rate
    overkill: Rate
    good_reviewed: Rate
    bad_reviewed: Rate
    boxes: Boxes | None
    latency_ms: Mapping[str, float]
    daemon_latency_ms: Mapping[str, float]
    budget_ms: float
    provider: str
    unsent: int = 0
    unheard: int = 0
    undecodable: int = 0
    lag_ms: Mapping[str, float] = field(default_factory=dict)
    parts: Parts | None = None
    labelled: Rate | None = None
    drift: Mapping[str, float] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Frames without a verdict."""
        return self.frames - self.answered

    @property
    def overruns(self) -> int:
        """Frames whose fail-safe was sent because of their deadline."""
        return self.reasons.get(Reason.OVERRUN, 0)

    @property
    def is_clean(self) -> bool:
        """Whether each frame had exactly one verdict, and none was an overrun."""
        return not (
            self.missing
            or self.duplicates
            or self.contradictions
            or self.overruns
            or self.undecodable
        )

    def to_json(self) -> dict[str, Any]:
        """The score as plain values; rates are null where there was no such part."""
        return {
            "frames": self.frames,
            "verdicts": dict(self.verdicts),
            "reasons": dict(self.reasons),
            "escape": self.escape.value,
            "overkill": self.overkill.value,
            "overruns": self.overruns,
            "latency_ms": dict(self.latency_ms),
            "budget_ms": self.budget_ms,
            "provider": self.provider,
            "answered": self.answered,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "contradictions": self.contradictions,
            "redelivered": self.redelivered,
            "foreign": self.foreign,
            "good": self.overkill.of,
            "bad": self.escape.of,
            "escape_interval": self.escape.interval,
            "overkill_interval": self.overkill.interval,
            "good_reviewed": self.good_reviewed.value,
            "bad_reviewed": self.bad_reviewed.value,
            "boxes": _boxes_json(self.boxes),
            "parts": _parts_json(self.parts),
            "labelled": None if self.labelled is None else self.labelled.value,
            "drift": dict(self.drift),
            "daemon_latency_ms": dict(self.daemon_latency_ms),
            "unsent": self.unsent,
            "unheard": self.unheard,
            "undecodable": self.undecodable,
            "lag_ms": dict(self.lag_ms),
        }


def score(shots: Sequence[Shot], answers: Sequence[Answer]) -> Score:
    """Score what was played; the first verdict of a frame counts, further ones are findings."""
    known = {shot.frame_id: shot for shot in shots}
    first: dict[str, Answer] = {}
    duplicates = contradictions = redelivered = foreign = 0
    for answer in answers:
        frame_id = answer.verdict.frame_id
        if frame_id not in known:
            foreign += 1
        elif frame_id not in first:
            first[frame_id] = answer
        elif _contradict(first[frame_id].verdict, answer.verdict):
            contradictions += 1
        elif answer.redelivered:
            redelivered += 1
        else:
            duplicates += 1
    judged = [(known[frame_id], answer) for frame_id, answer in first.items()]
    good = [a.verdict.verdict for s, a in judged if s.truth is not None and s.truth.is_good]
    bad = [a.verdict.verdict for s, a in judged if s.truth is not None and not s.truth.is_good]
    verdicts = [answer.verdict for answer in first.values()]
    return Score(
        frames=len(shots),
        answered=len(first),
        verdicts={kind.value: sum(v.verdict is kind for v in verdicts) for kind in Kind},
        reasons=dict(Counter(v.reason for v in verdicts).most_common()),
        duplicates=duplicates,
        contradictions=contradictions,
        redelivered=redelivered,
        foreign=foreign,
        escape=Rate(bad.count(Kind.PASS), len(bad)),
        overkill=Rate(good.count(Kind.REJECT), len(good)),
        good_reviewed=Rate(good.count(Kind.REVIEW), len(good)),
        bad_reviewed=Rate(bad.count(Kind.REVIEW), len(bad)),
        boxes=_match_all(judged),
        parts=_fuse(judged),
        labelled=_labelled(judged),
        drift=_drift(judged),
        latency_ms=percentiles([(a.arrived_ns - s.published_ns) / 1e6 for s, a in judged]),
        daemon_latency_ms=percentiles(
            [v.latency_ms["total"] for v in verdicts if "total" in v.latency_ms]
        ),
        budget_ms=max((v.budget_ms for v in verdicts), default=0.0),
        provider=_most_common([v.provider for v in verdicts if v.provider]),
    )


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927); `of` at least 1."""
    share, squared = count / of, _Z95 * _Z95
    middle = (share + squared / (2 * of)) / (1 + squared / of)
    half = _Z95 / (1 + squared / of) * math.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 (nearest rank: values that occurred) and max; zeros of nothing.

    From `TAIL_FRAMES` values on p99_9 stands before max; of fewer it would be another name of it.
    """
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
    if len(values) < TAIL_FRAMES:
        del shares["p99_9"]
    if not values:
        return dict.fromkeys(shares, 0.0)
    ranked = sorted(values)
    return {
        name: round(ranked[max(math.ceil(share * len(ranked)) - 1, 0)], 3)
        for name, share in shares.items()
    }


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Overlap of two boxes x0, y0, x1, y1: intersection over union, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def count_matches(true: Sequence[TrueBox], found: Sequence[Defect]) -> int:
    """Findings that meet a true defect of their class; the surest finding chooses first."""
    free = list(true)
    matched = 0
    for defect in sorted(found, key=lambda defect: -defect.score):
        rivals = [t for t in free if t.label == defect.label]
        best = max(rivals, key=lambda t: iou(t.box, defect.box), default=None)
        if best is not None and iou(best.box, defect.box) >= MATCH_IOU:
            free.remove(best)
            matched += 1
    return matched


def _match_all(judged: Sequence[tuple[Shot, Answer]]) -> Boxes | None:
    pairs = [
        (shot.truth.boxes, answer.verdict.defects)
        for shot, answer in judged
        if shot.truth is not None and shot.truth.boxes is not None
    ]
    if not pairs:
        return None
    return Boxes(
        true=sum(len(true) for true, _ in pairs),
        found=sum(len(found) for _, found in pairs),
        matched=sum(count_matches(true, found) for true, found in pairs),
    )


def _fuse(judged: Sequence[tuple[Shot, Answer]]) -> Parts | None:
    """A part is bad when one of its frames is known to be bad."""
    frames: dict[str, list[tuple[Truth, Kind]]] = {}
    for shot, answer in judged:
        if shot.truth is not None and shot.grouped:
            frames.setdefault(shot.part_id, []).append((shot.truth, answer.verdict.verdict))
    if not frames:
        return None
    bad = [k for k in frames.values() if not all(truth.is_good for truth, _ in k)]
    good = [k for k in frames.values() if all(truth.is_good for truth, _ in k)]
    return Parts(
        len(frames),
        Rate(sum(all(kind is Kind.PASS for _, kind in part) for part in bad), len(bad)),
        Rate(sum(any(kind is Kind.REJECT for _, kind in part) for part in good), len(good)),
    )


def _labelled(judged: Sequence[tuple[Shot, Answer]]) -> Rate | None:
    known = [(shot.truth.label, a.verdict) for shot, a in judged if shot.truth and shot.truth.label]
    named = {defect.label for _, verdict in known for defect in verdict.defects}
    if not named & {label for label, _ in known}:
        return None
    met = [bool(v.defects) and v.defects[0].label == label for label, v in known]
    return Rate(sum(met), len(met))


def _drift(judged: Sequence[tuple[Shot, Answer]]) -> dict[str, float]:
    series: dict[str, list[tuple[int, float]]] = {}
    for shot, answer in judged:
        if shot.series:
            series.setdefault(shot.series, []).append((shot.published_ns, answer.verdict.score))
    return {
        name: round(spearman([score for _, score in sorted(points)]), 4)
        for name, points in series.items()
        if len(points) > 1
    }


def spearman(values: Sequence[float]) -> float:
    """Rank correlation of values with their order, -1..1; equal values share their mean rank."""
    places = sorted(range(len(values)), key=lambda place: values[place])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(places):
        end = start
        while end + 1 < len(places) and values[places[end + 1]] == values[places[start]]:
            end += 1
        for place in places[start : end + 1]:
            ranks[place] = (start + end) / 2
        start = end + 1
    middle = (len(values) - 1) / 2
    covariance = sum((rank - middle) * (n - middle) for n, rank in enumerate(ranks))
    spread = sum((rank - middle) ** 2 for rank in ranks)
    full = sum((n - middle) ** 2 for n in range(len(values)))
    return covariance / math.sqrt(spread * full) if spread else 0.0


def _parts_json(parts: Parts | None) -> dict[str, Any] | None:
    if parts is None:
        return None
    return {
        "count": parts.count,
        "escape": parts.escape.value,
        "escape_interval": parts.escape.interval,
        "overkill": parts.overkill.value,
        "overkill_interval": parts.overkill.interval,
    }


def _boxes_json(boxes: Boxes | None) -> dict[str, float | int | None] | None:
    if boxes is None:
        return None
    return {
        "true": boxes.true,
        "found": boxes.found,
        "matched": boxes.matched,
        "precision": Rate(boxes.matched, boxes.found).value,
        "recall": Rate(boxes.matched, boxes.true).value,
        "iou": MATCH_IOU,
    }


def _contradict(one: Verdict, other: Verdict) -> bool:
    return one.verdict is not other.verdict or one.reason != other.reason


def _most_common(values: Sequence[str]) -> str:
    return Counter(values).most_common(1)[0][0] if values else ""
