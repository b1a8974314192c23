"""One pipeline, watched: its references learnt, its window compared with them.

1. Each recipe has a reference of its own: what a line makes differs more in its looks than a lamp
   ages. A look enters the window as its distances from its recipe's reference, so that one window
   serves them all, and a change of recipe is no drift.
2. The looks of a recipe stay learnt when the deployment changes: else a lamp that ages through
   twelve deployments would never be found. Verdicts are learnt anew with each deployment, once it
   is committed.
3. What drifts is told when it begins and when it ends, with a gap between the two limits: what lies
   near one of them does not begin and end all the time.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from edge.contracts.plan import DriftPlan
from edge.drift import measures
from edge.drift.kept import MAX_RECIPES, Judgement, Kept, Numbers, Reference, Sample, Verdicts
from edge.drift.measures import SIGHT, VERDICTS
from edge.drift.statistics import quantile, typical
from edge.drift.verdicts import compare, learn

_ENDS_BELOW: Final = 0.75
"""Of the limit."""
_LOOKS_A_WINDOW: Final = 20
"""Comparisons while a window is renewed: each costs some 0.3 ms of the supervisor, and a window's
median moves little from frame to frame."""

_T = TypeVar("_T")


class Standing(NamedTuple):
    """Where a measure stands.

    Attributes:
        now: In the window: a look's number in its unit, the mean of scores or of findings a frame,
            the share of a kind of verdict.
        reference: As it was learnt, of what was made last.
        ratio: How far the window is from it, over what may be: 1 and more is drift.
        text: For people.
    """

    now: float
    reference: float
    ratio: float
    text: str


class Change(NamedTuple):
    """Something to be told.

    Attributes:
        event: A reference was learnt; a measure began, or ceased, to drift.
        subject: The recipe, or the measure.
        standing: Of the measure; None where there is none any more, as after a new deployment.
        learnt: The typical numbers of the recipe, where one was.
    """

    event: Literal["learnt", "began", "ended"]
    subject: str
    standing: Standing | None = None
    learnt: dict[str, float] | None = None


class Watch:
    """Watches one pipeline.

    Args:
        pipeline: Its name.
        camera: Its source, as people call it.
        plan: What its deployment asks for.
        kept: What an earlier watch left, or a new one; changed in place.
    """

    def __init__(self, pipeline: str, camera: str, plan: DriftPlan, kept: Kept) -> None:
        self._pipeline = pipeline
        self._camera = camera
        self.plan = plan
        self.kept = kept
        self._newest = next(reversed(kept.references), "")
        self._uncompared = 0
        self.standings: dict[str, Standing] = {}
        del kept.sights[: -plan.window_frames]
        del kept.judgements[: -plan.window_frames]
        self._compare()

    @property
    def state(self) -> Literal["learning", "watching", "drifting"]:
        """What it does now, with what was made last."""
        if self.kept.drifting:
            return "drifting"
        return "watching" if self._learnt() else "learning"

    @property
    def learnt_frames(self) -> int:
        """Of what was made last, so many of `learn_frames` were learnt."""
        reference = self.kept.references.get(self._newest)
        if reference is None:
            return 0
        looks = self.plan.learn_frames if reference.typical else len(reference.samples)
        return min(looks, reference.verdicts.frames)

    def add(self, sample: Sample, deployment: str, now_ns: int) -> list[Change]:
        """Take a frame.

        Args:
            sample: The frame.
            deployment: Digest of the one that judged it; empty while that is on probation, and its
                verdicts are nobody's reference.
            now_ns: UTC.
        """
        changes: list[Change] = []
        if not self.kept.since_ns:
            self.kept.since_ns = now_ns
        reference = self._reference(sample.recipe)
        if deployment and deployment != self.kept.deployment:
            changes += self._follow(deployment)
        changes += self._take_sight(sample, reference)
        if deployment:
            judgement = Judgement(sample.recipe, sample.kind, sample.score, sample.defects)
            if reference.verdicts.frames < self.plan.learn_frames:
                learn(judgement, reference.verdicts)
            else:
                _push(self.kept.judgements, judgement, self.plan.window_frames)
        self._uncompared += 1
        if self._uncompared * _LOOKS_A_WINDOW >= self.plan.window_frames:
            self._uncompared = 0
            self._compare()
            changes += self._tell(now_ns)
        return changes

    def _learnt(self) -> bool:
        reference = self.kept.references.get(self._newest)
        return (
            reference is not None
            and reference.typical is not None
            and reference.verdicts.frames >= self.plan.learn_frames
        )

    def _reference(self, recipe: str) -> Reference:
        references = self.kept.references
        reference = references.pop(recipe, None)
        if reference is None:
            reference = Reference()
            while len(references) >= MAX_RECIPES:
                del references[next(iter(references))]
        references[recipe] = reference
        self._newest = recipe
        return reference

    def _follow(self, deployment: str) -> list[Change]:
        """Forget how the deployment before judged."""
        self.kept.deployment = deployment
        self.kept.judgements.clear()
        for reference in self.kept.references.values():
            reference.verdicts = Verdicts()
        changes = []
        for name in VERDICTS:
            self.standings.pop(name, None)
            if self.kept.drifting.pop(name, None) is not None:
                changes.append(Change("ended", name))
        return changes

    def _take_sight(self, sample: Sample, reference: Reference) -> list[Change]:
        numbers = msgspec.structs.astuple(sample.sight)
        if reference.typical is not None:
            columns = zip(numbers, reference.typical, _scale(reference), strict=True)
            distances = [round((number - usual) / width, 3) for number, usual, width in columns]
            _push(self.kept.sights, _as_numbers(distances), self.plan.window_frames)
            return []
        reference.samples.append(_as_numbers(numbers))
        if len(reference.samples) < self.plan.learn_frames:
            return []
        both = [typical(column) for column in zip(*reference.samples, strict=True)]
        reference.typical = _as_numbers([round(middle, 4) for middle, _ in both])
        reference.spread = _as_numbers([round(spread, 4) for _, spread in both])
        reference.samples.clear()
        learnt = dict(zip(SIGHT, reference.typical, strict=True))
        return [Change("learnt", sample.recipe, learnt=learnt)]

    def _compare(self) -> None:
        if len(self.kept.sights) >= self.plan.window_frames:
            self._compare_sights()
        if len(self.kept.judgements) >= self.plan.window_frames:
            self._compare_verdicts()

    def _compare_sights(self) -> None:
        reference = self.kept.references.get(self._newest)
        if reference is None or reference.typical is None:
            return  # one is being learnt: the window is of another
        columns = zip(*self.kept.sights, strict=True)
        for name, column, usual, width in zip(
            SIGHT, columns, reference.typical, _scale(reference), strict=True
        ):
            distance = quantile(sorted(column), 0.5)
            now = usual + distance * width
            self.standings[name] = Standing(
                now,
                usual,
                abs(distance) / self.plan.max_distance,
                measures.say_sight(name, self._camera, now, usual),
            )

    def _compare_verdicts(self) -> None:
        learnt = {name: each.verdicts for name, each in self.kept.references.items()}
        for name, found in compare(self.kept.judgements, learnt, self.plan).items():
            self.standings[name] = Standing(
                found.now,
                found.reference,
                found.ratio,
                measures.say_verdicts(
                    found.name, self._pipeline, found.now, found.reference, found.how
                ),
            )

    def _tell(self, now_ns: int) -> list[Change]:
        changes = []
        drifting = self.kept.drifting
        for name, standing in self.standings.items():
            if name not in drifting and standing.ratio >= 1:
                drifting[name] = now_ns
                changes.append(Change("began", name, standing))
            elif name in drifting and standing.ratio < _ENDS_BELOW:
                del drifting[name]
                changes.append(Change("ended", name, standing))
        return changes


def _scale(reference: Reference) -> Numbers:
    """The spreads of a recipe's numbers, none less than what is no change."""
    assert reference.typical is not None
    assert reference.spread is not None
    return _as_numbers(
        [
            max(spread, measures.floor_of(name, usual))
            for name, usual, spread in zip(SIGHT, reference.typical, reference.spread, strict=True)
        ]
    )


def _as_numbers(values: Sequence[float]) -> Numbers:
    first, second, third, fourth, fifth, sixth, seventh = values
    return first, second, third, fourth, fifth, sixth, seventh


def _push(window: list[_T], newest: _T, most: int) -> None:
    window.append(newest)
    del window[:-most]
