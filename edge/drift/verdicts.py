"""How verdicts are distributed: scores, kinds and findings, each by bins, and their index."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from edge.contracts.plan import DriftPlan
from edge.contracts.verdict import Kind
from edge.drift.kept import DEFECT_BINS, SCORE_BINS, Judgement, Verdicts
from edge.drift.statistics import chance, quantile, stability, typical_of_counts

KINDS: Final = tuple(Kind)
_WIDE_BINS: Final = 10
"""Of scores, for the index: many bins see less of a change in few frames."""
_SCORE_FLOOR: Final = 0.05
"""The least spread that scores are taken to have."""
_NOT_PASSED: Final = tuple(n for n, kind in enumerate(KINDS) if kind is not Kind.PASS)
_DEFECTS_FROM: Final = (1, 2, 3, 5, 9)
"""From so many findings on another bin begins; the first is of frames without any."""
assert len(_DEFECTS_FROM) + 1 == DEFECT_BINS


class Compared(NamedTuple):
    """A window beside what was to be expected.

    Attributes:
        name: `scores` or `defects`, and the figures are means; or `reject` or `review`, whichever
            has the share that changed more, and they are its shares.
        ratio: How far the window is from it, over what may be.
        how: The figure behind that, for people.
    """

    name: str
    now: float
    reference: float
    ratio: float
    how: str


def learn(judgement: Judgement, verdicts: Verdicts) -> None:
    """Add a verdict to a reference."""
    verdicts.kinds[_kind_bin(judgement)] += 1
    verdicts.scores[_score_bin(judgement)] += 1
    verdicts.defects[_defects_bin(judgement)] += 1
    verdicts.score_sum += judgement.score
    verdicts.defect_sum += judgement.defects


def compare(
    window: Sequence[Judgement], learnt: Mapping[str, Verdicts], plan: DriftPlan
) -> dict[str, Compared]:
    """Compare verdicts with what their recipes led one to expect, each by its share of them.

    Args:
        window: The newest verdicts; those of a recipe that `learnt` has not are left out.
        learnt: By recipe.
        plan: What may be.

    Returns:
        Of `scores`, `kinds` and `defects`; nothing where nothing can be compared.
    """
    known = [
        each
        for each in window
        if each.recipe in learnt and learnt[each.recipe].frames >= plan.learn_frames
    ]
    return _Beside(known, learnt, plan).compared() if known else {}


class _Beside:
    """A window of verdicts, not empty, beside the references of its recipes."""

    def __init__(
        self, window: Sequence[Judgement], learnt: Mapping[str, Verdicts], plan: DriftPlan
    ) -> None:
        self._window = window
        self._plan = plan
        mixed = Counter(each.recipe for each in window)
        self._mixed = [(learnt[recipe], count / len(window)) for recipe, count in mixed.items()]
        self._learnt = {recipe: learnt[recipe] for recipe in mixed}
        self._frames = min(each.frames for each in self._learnt.values())

    def compared(self) -> dict[str, Compared]:
        """See `compare`."""
        usual_score, usual_defects = self._expected(lambda of: (of.score_sum, of.defect_sum))
        kinds, usual_kinds = self._shares(len(KINDS), _kind_bin), self._expected(_kinds)
        moved = max(_NOT_PASSED, key=lambda kind: abs(kinds[kind] - usual_kinds[kind]))
        shape = self._index(
            self._expected(lambda of: _widened(of.scores)), self._shares(_WIDE_BINS, _wide_bin)
        )
        defects = self._index(
            self._expected(lambda of: of.defects), self._shares(DEFECT_BINS, _defects_bin)
        )
        score = sum(each.score for each in self._window) / len(self._window)
        found = sum(each.defects for each in self._window) / len(self._window)
        return {
            "scores": Compared("scores", score, usual_score, *max(shape, self._level())),
            "kinds": Compared(
                KINDS[moved], kinds[moved], usual_kinds[moved], *self._index(usual_kinds, kinds)
            ),
            "defects": Compared("defects", found, usual_defects, *defects),
        }

    def _expected(self, of: Callable[[Verdicts], Sequence[float]]) -> list[float]:
        """Figures a frame, of the recipes as they are mixed in the window."""
        rows = [
            [share * figure / verdicts.frames for figure in of(verdicts)]
            for verdicts, share in self._mixed
        ]
        return [sum(column) for column in zip(*rows, strict=True)]

    def _shares(self, bins: int, bin_of: Callable[[Judgement], int]) -> list[float]:
        counts = Counter(map(bin_of, self._window))
        return [counts[index] / len(self._window) for index in range(bins)]

    def _index(self, expected: Sequence[float], found: Sequence[float]) -> tuple[float, str]:
        """The stability index over its limit, and both in words."""
        window = len(self._window)
        psi = stability(expected, self._frames, found, window)
        limit = max(self._plan.max_psi, chance(len(expected), self._frames, window))
        return psi / limit, f"stability index {psi:.2f}, {limit:.2f} may be"

    def _level(self) -> tuple[float, str]:
        """How far scores lie from their recipes' usual ones: of few frames the index says less."""
        usual = {name: typical_of_counts(of.scores) for name, of in self._learnt.items()}
        distances = [
            (each.score - usual[each.recipe][0]) / max(usual[each.recipe][1], _SCORE_FLOOR)
            for each in self._window
        ]
        distance, most = abs(quantile(sorted(distances), 0.5)), self._plan.max_distance
        return distance / most, f"{distance:.1f} spreads away, {most:g} may be"


def _kinds(verdicts: Verdicts) -> Sequence[int]:
    return verdicts.kinds


def _score_bin(judgement: Judgement) -> int:
    return min(max(int(judgement.score * SCORE_BINS), 0), SCORE_BINS - 1)


def _wide_bin(judgement: Judgement) -> int:
    return _score_bin(judgement) * _WIDE_BINS // SCORE_BINS


def _widened(counts: Sequence[int]) -> list[int]:
    each = SCORE_BINS // _WIDE_BINS
    return [sum(counts[start : start + each]) for start in range(0, SCORE_BINS, each)]


def _kind_bin(judgement: Judgement) -> int:
    return KINDS.index(judgement.kind)


def _defects_bin(judgement: Judgement) -> int:
    return sum(judgement.defects >= first for first in _DEFECTS_FROM)
