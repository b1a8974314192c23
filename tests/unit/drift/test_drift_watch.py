"""A watch: references learnt by recipe; drift found, named and ended; nothing found in peace."""

import random
from typing import Any, Final

import msgspec
import pytest

from edge.contracts.plan import DriftPlan
from edge.contracts.sight import Sight
from edge.contracts.verdict import Kind
from edge.drift.kept import MAX_RECIPES, Kept, Sample, decode, encode
from edge.drift.measures import MEASURES, SIGHT, VERDICTS
from edge.drift.watch import Change, Watch

PLAN: Final = DriftPlan(learn_frames=200, window_frames=100, every_ms=0)
USUAL: Final = Sight(118.0, 50.0, 1.0, 2.0, 0.4, 50.0, 50.0)
NOISE: Final = Sight(3.0, 1.0, 0.3, 0.3, 0.01, 0.3, 0.3)
"""How much pictures of one recipe differ."""


class Stage:
    """A watch, and a line before it that makes what it is told."""

    def __init__(self, plan: DriftPlan = PLAN, kept: Kept | None = None) -> None:
        self.watch = Watch("pcb", "camera.top", plan, kept or Kept())
        self._draw = random.Random(5)
        self.now_ns = 0

    @property
    def state(self) -> str:
        return self.watch.state

    def make(
        self,
        frames: int,
        recipe: str = "a",
        *,
        rejects: float = 0.1,
        deployment: str = "d1",
        score: float = 0.0,
        **look: float,
    ) -> list[Change]:
        """Make frames whose look differs from the usual one by `look`; return what was told."""
        changes = []
        for _ in range(frames):
            self.now_ns += 1
            sight = Sight(
                **{
                    name: usual + look.get(name, 0.0) + self._draw.gauss(0, noise)
                    for name, usual, noise in zip(
                        SIGHT,
                        msgspec.structs.astuple(USUAL),
                        msgspec.structs.astuple(NOISE),
                        strict=True,
                    )
                }
            )
            bad = self._draw.random() < rejects
            sample = Sample(
                recipe,
                sight,
                Kind.REJECT if bad else Kind.PASS,
                min(max(self._draw.gauss(0.8 if bad else 0.15, 0.05) + score, 0.0), 1.0),
                2 if bad else 0,
            )
            changes += self.watch.add(sample, deployment, self.now_ns)
        return changes


def told(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.event, change.subject) for change in changes]


def text_of(changes: list[Change], measure: str) -> str:
    (standing,) = (c.standing for c in changes if c.subject == measure and c.event == "began")
    assert standing is not None
    return standing.text


def test_what_is_usual_is_learnt_and_stays_usual() -> None:
    stage = Stage()
    assert stage.state == "learning"
    (learnt,) = stage.make(200)
    assert learnt.event == "learnt"
    assert learnt.learnt is not None
    assert learnt.learnt["brightness"] == pytest.approx(118, abs=1)
    assert stage.state == "watching"
    assert stage.make(5_000) == []
    assert stage.watch.standings.keys() == set(MEASURES)
    assert all(standing.ratio < 1 for standing in stage.watch.standings.values())


@pytest.mark.parametrize(
    ("look", "measure", "words"),
    [
        ({"brightness": -30.0}, "brightness", "camera.top is darker than when"),
        ({"brightness": 30.0}, "brightness", "camera.top is brighter than when"),
        ({"contrast": -15.0}, "contrast", "shows less contrast"),
        ({"sharpness": -0.1}, "sharpness", "is less sharp"),
        ({"sharpness": 0.1}, "sharpness", "sharper or noisier"),
        ({"dark": 8.0}, "dark", "shows more black"),
        ({"bright": 8.0}, "bright", "is overexposed more"),
        ({"across": 4.0}, "across", "brighter towards the right"),
        ({"down": -4.0}, "down", "brighter towards the top"),
    ],
)
def test_a_look_that_changes_is_found_and_named_alone(
    look: dict[str, Any], measure: str, words: str
) -> None:
    stage = Stage()
    stage.make(300)
    changes = stage.make(100, **look)
    assert told(changes) == [("began", measure)]
    assert words in text_of(changes, measure)
    assert stage.state == "drifting"
    assert told(stage.make(200)) == [("ended", measure)]
    assert stage.state == "watching"


def test_a_finding_has_both_figures_and_the_remedy() -> None:
    stage = Stage()
    stage.make(300)
    stage.make(100, brightness=-76.0)
    assert stage.watch.standings["brightness"].text == (
        "camera.top is darker than when the reference was learnt: brightness 42 against 118 "
        "(of 255); clean the lens, check the lamp and its cover"
    )


def test_verdicts_that_change_are_found_and_named() -> None:
    stage = Stage()
    stage.make(300)
    changes = stage.make(100, rejects=0.6)
    assert {subject for _, subject in told(changes)} == set(VERDICTS)
    assert "pcb rejects more than when the reference was learnt" in text_of(changes, "kinds")
    assert "findings a frame against" in text_of(changes, "defects")
    assert "on average" in text_of(changes, "scores")


def test_scores_that_creep_are_found_before_a_verdict_changes() -> None:
    stage = Stage()
    stage.make(300)
    assert told(stage.make(100, score=0.15)) == [("began", "scores")]


def test_a_level_that_rises_is_found_in_few_frames() -> None:
    stage = Stage(DriftPlan(learn_frames=20, window_frames=20, every_ms=0))
    stage.make(60, rejects=0.0)
    changes = stage.make(20, rejects=0.0, score=0.25)
    assert told(changes) == [("began", "scores")]
    assert "spreads away, 3 may be" in text_of(changes, "scores")


def test_parts_that_are_alike_to_the_last_grey_level_are_no_trap() -> None:
    stage = Stage()
    numb = Sample("a", USUAL, Kind.PASS, 0.1, 0)
    cloud = numb._replace(sight=msgspec.structs.replace(USUAL, brightness=113.0, across=50.5))
    for each in [*[numb] * 300, *[cloud] * 200]:
        assert not [c for c in stage.watch.add(each, "d1", 1) if c.event == "began"]


def test_what_lies_near_the_limit_does_not_begin_and_end_all_the_time() -> None:
    stage = Stage()
    stage.make(300)
    changes = stage.make(100, brightness=-13.5)
    assert told(changes) == [("began", "brightness")]
    # Back below the limit, not yet below three quarters of it.
    assert told(stage.make(400, brightness=-10.5)) == []
    assert told(stage.make(300, brightness=-5.0)) == [("ended", "brightness")]


def test_another_recipe_is_no_drift_and_has_its_own_usual() -> None:
    stage = Stage()
    stage.make(300, "a")
    assert told(stage.make(400, "b", brightness=60.0)) == [("learnt", "b")]
    for _ in range(5):
        assert stage.make(90, "a") == []
        assert stage.make(90, "b", brightness=60.0) == []
    assert told(stage.make(100, "b", brightness=30.0)) == [("began", "brightness")]
    assert stage.watch.standings["brightness"].reference == pytest.approx(178, abs=1)


def test_recipes_are_bounded_and_the_one_not_seen_for_longest_goes() -> None:
    stage = Stage()
    for number in range(MAX_RECIPES):
        stage.make(1, f"r{number}")
    stage.make(1, "r0")
    stage.make(1, "one more")
    assert len(stage.watch.kept.references) == MAX_RECIPES
    assert "r0" in stage.watch.kept.references
    assert "r1" not in stage.watch.kept.references


def test_a_new_deployment_has_its_verdicts_learnt_anew_and_the_lamp_ages_on() -> None:
    stage = Stage()
    stage.make(300)
    assert ("began", "kinds") in told(stage.make(100, rejects=0.9))
    # On probation nothing is learnt of its verdicts, but it is looked.
    changes = stage.make(300, rejects=0.9, deployment="", brightness=-30.0)
    assert told(changes) == [("began", "brightness")]
    changes = stage.make(300, rejects=0.9, deployment="d2", brightness=-30.0)
    assert sorted(told(changes)) == [("ended", name) for name in sorted(VERDICTS)]
    assert stage.state == "drifting"
    assert stage.watch.kept.drifting.keys() == {"brightness"}
    assert stage.make(200, rejects=0.9, deployment="d2", brightness=-30.0) == []


def test_a_restart_goes_on_where_it_was() -> None:
    stage = Stage()
    stage.make(150)
    again = Stage(kept=decode(encode({"pcb": stage.watch.kept}))["pcb"])
    assert again.watch.learnt_frames == 150
    assert told(again.make(50)) == [("learnt", "a")]
    again.make(100)
    again.make(100, brightness=-30.0)
    third = Stage(kept=decode(encode({"pcb": again.watch.kept}))["pcb"])
    assert third.state == "drifting"
    assert third.watch.standings["brightness"] == again.watch.standings["brightness"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"pcb": 1}',
        b'{"pcb": {"v": 2}}',
        b'{"pcb": {"references": {"a": {"typical": [1, 2]}}}}',
        b'{"pcb": {"references": {"a": {"verdicts": {"kinds": [1]}}}}}',
        b'{"pcb": {"references": {"a": {"verdicts": {"kinds": [1, -1, 0]}}}}}',
        b'{"pcb": {"since_ns": 9223372036854775808}}',
        b'{"pcb": {"sights": [[null, 0, 0, 0, 0, 0, 0]]}}',
        b'{"pcb": {"judgements": [["a", "maybe", 0.5, 0]]}}',
        b"\xff\xfe",
    ],
)
def test_what_is_something_else_is_not_taken_for_a_reference(content: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode(content)


def test_a_window_is_cut_to_what_a_new_deployment_asks_for() -> None:
    stage = Stage()
    stage.make(300)
    shorter: Any = Stage(DriftPlan(200, 20, 0), stage.watch.kept)
    assert len(shorter.watch.kept.sights) == 20
    assert shorter.make(300) == []
