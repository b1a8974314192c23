"""The sum of many outcomes: how many are identical, which verdicts moved, and for the better?

Truth is what people said in overrides: `pass` is a good part, `reject` a bad one. Escape and
overkill are as in `edge replay`, over the parts whose truth is known.
"""

from collections import Counter
from typing import Any

from edge.contracts.verdict import Kind
from edge.replay.score import Rate
from edge.rerun.judge import DIFFERS, IDENTICAL, MISSING, UNJUDGED, Outcome, Told


class Tally:
    """Counts outcomes as they come.

    Attributes:
        statuses: How many of each.
        moved: Verdicts that became others: (recorded, here), where a frame was computed again.
    """

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.moved: Counter[tuple[Kind, Kind]] = Counter()
        self._known: Counter[tuple[Kind, Kind, Kind]] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.statuses[outcome.status] += 1
        if outcome.here is None or outcome.status == UNJUDGED:
            return
        before, after = outcome.recorded.verdict, outcome.here.verdict
        if before is not after:
            self.moved[before, after] += 1
        if outcome.truth in (Kind.PASS, Kind.REJECT):
            self._known[outcome.truth, before, after] += 1

    @property
    def total(self) -> int:
        """Records looked at."""
        return self.statuses.total()

    @property
    def clean(self) -> bool:
        """Whether nothing differs, and something was computed."""
        return not self.statuses[DIFFERS] and self.total > self.statuses[MISSING]

    def escape(self) -> tuple[Rate, Rate]:
        """Bad parts that pass, of those known to be bad: as recorded, and as computed here."""
        return self._rate(Kind.REJECT, Kind.PASS, 1), self._rate(Kind.REJECT, Kind.PASS, 2)

    def overkill(self) -> tuple[Rate, Rate]:
        """Good parts that are rejected, of those known to be good: as recorded, and here."""
        return self._rate(Kind.PASS, Kind.REJECT, 1), self._rate(Kind.PASS, Kind.REJECT, 2)

    def to_json(self) -> dict[str, Any]:
        """The sum as plain values; rates are null where nobody said what is true."""
        escape, overkill = self.escape(), self.overkill()
        return {
            "records": self.total,
            **{name: self.statuses[name] for name in (IDENTICAL, DIFFERS, MISSING, UNJUDGED)},
            "moved": {f"{a.value} to {b.value}": count for (a, b), count in self.moved.items()},
            "escape": {"recorded": escape[0].value, "here": escape[1].value},
            "overkill": {"recorded": overkill[0].value, "here": overkill[1].value},
            "known_bad": escape[0].of,
            "known_good": overkill[0].of,
        }

    def _rate(self, truth: Kind, verdict: Kind, column: int) -> Rate:
        known = {key: count for key, count in self._known.items() if key[0] is truth}
        wrong = sum(count for key, count in known.items() if key[column] is verdict)
        return Rate(wrong, sum(known.values()))


def in_short(told: Told | None) -> str:
    """Say an answer in a few words."""
    if told is None:
        return "nothing"
    score = "" if told.score is None else f" {told.score:.4f}"
    return f"{told.verdict.value} {told.reason}{score}"
