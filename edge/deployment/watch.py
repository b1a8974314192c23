"""Whether a candidate is as good as what it replaces: rules over verdicts, without clock or I/O.

Two watches. In *shadow* each frame has two verdicts, the active deployment's and the candidate's,
and they are compared one by one. On *probation* the candidate's verdicts alone go out, and their
rates are compared with its predecessor's. A rate is held against it only when it is beyond chance:
its Wilson interval must lie wholly beyond the limit, so that three rejects in a row do not revert a
good deployment, and three hundred do.
"""

import math
from collections import Counter
from typing import Any, Final, NamedTuple

from edge.contracts.verdict import Kind, Reason
from edge.deployment.rules import ProbationRule, ShadowRule

FAULTS: Final = frozenset(
    {Reason.GUEST_TRAP, Reason.GUEST_BUDGET, Reason.INFERENCE_ERROR, Reason.WORKER_LOST}
)
"""Reasons that lie with guests, model or worker, and with no camera."""
NOT_ITS_DOING: Final = frozenset({Reason.STORAGE, Reason.ID_REUSED})
"""Reasons that no deployment can bring about: a full disk, a camera that counts anew. All others
may be: one that is too slow has `overload`, one that decodes less has `decode-error`."""
_Z: Final = 2.576
"""99 % of a normal distribution, both sides."""
_Z_EARLY: Final = 5.0
"""Before the end, where a rate is looked at after every verdict: with `_Z` one look in a hundred
would be wrong and there are hundreds, and parts that fail come in runs (measured: 1 to 3 % of good
deployments were reverted within 80 verdicts)."""
_BINS: Final = 20


class Finding(NamedTuple):
    """What a watch came to: `reason` is empty where the candidate did well."""

    reason: str
    detail: str
    evidence: dict[str, Any]


class Shadow:
    """Compares a candidate's judgements with the active deployment's."""

    def __init__(self, rule: ShadowRule) -> None:
        self._rule = rule
        self._same = 0
        self._compared = 0
        self._more_actions = 0
        self._faults: Counter[str] = Counter()
        self._active_ms: list[float] = []
        self._candidate_ms: list[float] = []
        self._differences: list[str] = []

    @property
    def compared(self) -> int:
        """Frames that both have judged, or failed to."""
        return self._compared

    @property
    def summary(self) -> str:
        """One sentence about the verdicts so far."""
        return f"{self._same} of {self._compared} verdicts are the same"

    def add(
        self,
        frame_id: str,
        active: Kind,
        active_ms: float,
        candidate: Kind,
        candidate_ms: float,
        *,
        more_actions: bool = False,
    ) -> Finding | None:
        """Take a frame that both judged; return what it comes to once there are enough.

        Args:
            frame_id: For the evidence.
            active: The active deployment's verdict.
            active_ms: What its stages took together.
            candidate: The candidate's verdict.
            candidate_ms: What its stages took together.
            more_actions: Whether the candidate wished more actions than the active one.
        """
        self._compared += 1
        self._more_actions += more_actions
        self._same += active == candidate
        self._active_ms.append(active_ms)
        self._candidate_ms.append(candidate_ms)
        if active != candidate and len(self._differences) < 5:  # noqa: PLR2004 - as examples
            self._differences.append(f"{frame_id}: {active} became {candidate}")
        return self._judge() if self._compared >= self._rule.frames else None

    def fault(self, reason: str, detail: str) -> Finding:
        """Take a frame that the candidate failed at, and the active one did not: once is enough."""
        self._faults[reason] += 1
        return Finding(reason, f"in shadow: {detail}", self.evidence())

    def evidence(self) -> dict[str, Any]:
        """Return the figures so far."""
        return {
            "frames": self._compared,
            "same": self._same,
            "more_actions": self._more_actions,
            "differences": list(self._differences),
            "active_ms": _median(self._active_ms),
            "candidate_ms": _median(self._candidate_ms),
            "faults": dict(self._faults),
        }

    def _judge(self) -> Finding:
        evidence, rule = self.evidence(), self._rule
        ratio = evidence["candidate_ms"] / max(evidence["active_ms"], 0.1)
        if _beyond(self._compared - self._same, self._compared, 1 - rule.min_agreement):
            return Finding(
                "disagreement",
                f"{self._compared - self._same} of {self._compared} verdicts differ from those of "
                f"the active deployment; {1 - rule.min_agreement:.0%} may",
                evidence,
            )
        if _beyond(self._more_actions, self._compared, rule.max_more_actions):
            return Finding(
                "actions",
                f"it wishes more actions than the active deployment at {self._more_actions} of "
                f"{self._compared} frames; {rule.max_more_actions:.0%} may be",
                evidence,
            )
        if ratio > rule.max_latency_ratio:
            return Finding(
                "latency",
                f"it takes {evidence['candidate_ms']:.1f} ms a frame, the active deployment "
                f"{evidence['active_ms']:.1f}; {rule.max_latency_ratio:g} times as much may be",
                evidence,
            )
        return Finding("", self.summary, evidence)


class Rates:
    """How the verdicts of one deployment are distributed; what it cannot be blamed for is left out.

    Attributes:
        frames: Verdicts.
        rejects: Of those that were judged, how many did not pass.
        overruns: Came too late.
        faults: Failed, by reason.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.rejects = 0
        self.overruns = 0
        self.faults: Counter[str] = Counter()
        self._scores = [0] * _BINS

    def add(self, kind: Kind, reason: str, score: float) -> None:
        """Take a verdict."""
        if reason in NOT_ITS_DOING:
            return
        self.frames += 1
        self.overruns += reason == Reason.OVERRUN
        if reason in FAULTS:
            self.faults[reason] += 1
        if reason not in FAULTS and reason != Reason.OVERRUN:
            self.rejects += kind is not Kind.PASS
            self._scores[min(int(score * _BINS), _BINS - 1)] += 1

    @property
    def judged(self) -> int:
        """Frames that were in time, and at which neither guest, model nor worker failed."""
        return sum(self._scores)

    def as_figures(self) -> dict[str, Any]:
        """Return it as plain figures, for the journal."""
        return {"rejects": self.rejects, "frames": self.frames, "scores": list(self._scores)}

    @classmethod
    def of_figures(cls, figures: dict[str, Any] | None) -> "Rates | None":
        """Return what `as_figures` gave; None where nothing, or something else, was kept."""
        if not figures or len(figures.get("scores", ())) != _BINS:
            return None
        rates = cls()
        rates.frames, rates.rejects = int(figures["frames"]), int(figures["rejects"])
        rates._scores = [int(count) for count in figures["scores"]]
        return rates

    def shift(self, other: "Rates") -> float:
        """Kolmogorov and Smirnov's statistic of the two distributions of the score, 0..1."""
        if not self.judged or not other.judged:
            return 0.0
        distance = mine = theirs = 0.0
        for own, others in zip(self._scores, other._scores, strict=True):
            mine += own / self.judged
            theirs += others / other.judged
            distance = max(distance, abs(mine - theirs))
        return distance


class Probation:
    """Watches the verdicts of a candidate that is active.

    Args:
        rule: What it must keep to.
        before: The predecessor's verdicts; None where there was none.
    """

    def __init__(self, rule: ProbationRule, before: Rates | None) -> None:
        self._rule = rule
        self._before = before
        self._workers_lost = 0
        self.now = Rates()

    def add(self, kind: Kind, reason: str, score: float) -> Finding | None:
        """Take a verdict; return what it comes to: at once where it is bad, else at the end."""
        self.now.add(kind, reason, score)
        bad = self._bad()
        if bad is not None:
            return bad
        return self.over() if self.now.frames >= self._rule.frames else None

    def lose(self, why: str) -> Finding | None:
        """Take a worker that ended unasked; return a finding where that is one too many."""
        self._workers_lost += 1
        most = self._rule.max_workers_lost
        if self._workers_lost <= most:
            return None
        return Finding(
            Reason.WORKER_LOST.value,
            f"its worker was lost {self._workers_lost} times, {most} may be; at last: {why}",
            self.evidence(),
        )

    def over(self) -> Finding:
        """Return what it comes to when the time is up."""
        return self._bad(final=True) or Finding(
            "", f"{self.now.frames} verdicts kept to the rules", self.evidence()
        )

    def evidence(self) -> dict[str, Any]:
        """Return the figures so far."""
        before = self._before
        return {
            "frames": self.now.frames,
            "overruns": self.now.overruns,
            "faults": dict(self.now.faults),
            "workers_lost": self._workers_lost,
            "rejects": self.now.rejects,
            "rejects_before": [before.rejects, before.judged] if before and before.judged else None,
            "score_shift": round(self.now.shift(before), 3) if before and before.judged else None,
        }

    def _bad(self, *, final: bool = False) -> Finding | None:
        rule, now = self._rule, self.now
        faults = sum(now.faults.values())
        for reason, count, limit, what in (
            (Reason.OVERRUN.value, now.overruns, rule.max_overrun_share, "came too late"),
            (_commonest(now.faults), faults, rule.max_fault_share, "failed"),
        ):
            if count > limit * rule.frames:
                return Finding(
                    reason,
                    f"{count} of {now.frames} judgements {what}; {limit:.1%} may",
                    self.evidence(),
                )
        return self._changed(_Z if final else _Z_EARLY)

    def _changed(self, z: float) -> Finding | None:
        before, now, rule = self._before, self.now, self._rule
        if before is None or not before.judged or not now.judged:
            return None
        least, most = interval(before.rejects, before.judged, z)
        low, high = interval(now.rejects, now.judged, z)
        if low > most + rule.max_reject_change or high < least - rule.max_reject_change:
            return Finding(
                "reject-rate",
                f"{now.rejects} of {now.judged} parts do not pass; under its predecessor "
                f"{before.rejects} of {before.judged} did not",
                self.evidence(),
            )
        # The distance that two samples of one distribution exceed once in a hundred pairs.
        chance = 1.63 * math.sqrt((now.judged + before.judged) / (now.judged * before.judged))
        shift = now.shift(before)
        if shift > rule.max_score_shift + chance:
            return Finding(
                "score-shift",
                f"scores are distributed otherwise than under its predecessor: distance "
                f"{shift:.2f}, {rule.max_score_shift:g} may be",
                self.evidence(),
            )
        return None


def interval(count: int, total: int, z: float = _Z) -> tuple[float, float]:
    """Wilson's interval of a share; 99 % unless told."""
    if total == 0:
        return 0.0, 1.0
    share, squared = count / total, z * z
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    spread = (z / (1 + squared / total)) * math.sqrt(
        share * (1 - share) / total + squared / (4 * total * total)
    )
    return max(0.0, min(share, middle - spread)), min(1.0, max(share, middle + spread))


def _beyond(count: int, total: int, limit: float) -> bool:
    """Whether a share is above its limit beyond chance."""
    return interval(count, total)[0] > limit


def _commonest(faults: Counter[str]) -> str:
    return faults.most_common(1)[0][0] if faults else ""


def _median(values: list[float]) -> float:
    if not values:
        return 0.0
    return round(sorted(values)[len(values) // 2], 2)
