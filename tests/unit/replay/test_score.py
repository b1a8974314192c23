"""The score: hand-made verdicts whose right score is known."""

from typing import Any

import pytest

from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.replay.parts import TrueBox, Truth
from edge.replay.score import (
    Answer,
    Parts,
    Rate,
    Score,
    Shot,
    count_matches,
    iou,
    percentiles,
    wilson,
)
from edge.replay.score import score as score_of

GOOD = Truth(is_good=True, boxes=())
BAD = Truth(is_good=False, boxes=(TrueBox("open", (10, 10, 30, 30)),))
MS = 1_000_000


def verdict(frame_id: str, kind: str = "pass", **changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "device": "box1",
        "pipeline": "pcb",
        "deployment": DeploymentRef("pcb", 1, "ab"),
        "frame_id": frame_id,
        "part_id": "p",
        "verdict": Kind(kind),
        "reason": "ok" if kind == "pass" else "defect",
        "score": 0.5,
        "defects": (),
        "captured_at_ns": 1,
        "latency_ms": {"total": 12.0},
        "budget_ms": 200.0,
        "provider": "cpu",
    }
    return Verdict(**(fields | changes))


def shots(*truths: Truth | None) -> list[Shot]:
    return [Shot(f"f{n}", f"p{n}", truth, n * 100 * MS) for n, truth in enumerate(truths)]


def answers(*verdicts: Verdict, after_ms: int = 20) -> list[Answer]:
    return [Answer(v, (int(v.frame_id[1:]) * 100 + after_ms) * MS) for v in verdicts]


def played(truths: list[Truth | None], *verdicts: Verdict) -> Score:
    return score_of(shots(*truths), answers(*verdicts))


def test_a_clean_replay_is_clean() -> None:
    score = played([GOOD, BAD], verdict("f0"), verdict("f1", "reject"))
    assert score.is_clean
    assert (score.escape, score.overkill) == (Rate(0, 1), Rate(0, 1))
    assert score.latency_ms == {"p50": 20.0, "p95": 20.0, "p99": 20.0, "max": 20.0}
    assert score.daemon_latency_ms["max"] == 12.0


def test_a_bad_part_that_passes_is_an_escape() -> None:
    score = played([BAD, BAD], verdict("f0"), verdict("f1", "reject"))
    assert score.escape == Rate(1, 2)
    assert score.overkill.value is None


def test_a_good_part_rejected_is_overkill_and_reviewed_is_counted_apart() -> None:
    score = played(
        [GOOD, GOOD, GOOD, BAD],
        verdict("f0", "reject"),
        verdict("f1", "review"),
        verdict("f2"),
        verdict("f3", "review"),
    )
    assert score.overkill == Rate(1, 3)
    assert score.good_reviewed == Rate(1, 3)
    assert score.escape == Rate(0, 1)
    assert score.bad_reviewed == Rate(1, 1)


def test_a_part_of_several_frames_is_judged_as_its_worst() -> None:
    truths = [GOOD, GOOD, BAD, BAD]
    burst = [
        Shot(f"f{n}", f"part{n // 2}", truth, n, grouped=True) for n, truth in enumerate(truths)
    ]
    given = answers(*(verdict(f"f{n}", kind) for n, kind in enumerate(
        ("pass", "reject", "pass", "review")
    )))  # fmt: skip
    assert score_of(burst, given).parts == Parts(2, Rate(0, 1), Rate(1, 1))
    passed = answers(*(verdict(f"f{n}") for n in range(4)))
    assert score_of(burst, passed).parts == Parts(2, Rate(1, 1), Rate(0, 1))
    assert played([GOOD], verdict("f0")).parts is None


def test_the_strongest_finding_is_held_to_the_known_kind() -> None:
    scratched = Truth(is_good=False, label="scratch")
    named = [Defect("scratch", 0.9, (0, 0, 1, 1)), Defect("ash", 0.2, (0, 0, 1, 1))]
    score = played(
        [scratched, scratched, scratched, BAD],
        verdict("f0", "reject", defects=tuple(named)),
        verdict("f1", "reject", defects=tuple(reversed(named))),
        verdict("f2"),
        verdict("f3", "reject", defects=tuple(named)),
    )
    assert score.labelled == Rate(1, 3)
    assert score.to_json()["labelled"] == pytest.approx(1 / 3)
    assert played([BAD], verdict("f0")).labelled is None
    only_odd = verdict("f0", "reject", defects=(Defect("anomaly", 0.9, (0, 0, 1, 1)),))
    assert played([scratched], only_odd).labelled is None


@pytest.mark.parametrize(
    ("scores", "correlation"),
    [((0.1, 0.2, 0.4, 0.9), 1.0), ((0.9, 0.5, 0.3, 0.0), -1.0), ((0.5,) * 4, 0.0),
     ((0.1, 0.4, 0.2, 0.9), 0.8), ((0.1, 0.3, 0.3, 0.9), 0.9487)],
)  # fmt: skip
def test_drift_is_the_rank_correlation_of_score_and_time(
    scores: tuple[float, ...], correlation: float
) -> None:
    shots = [Shot(f"f{n}", f"p{n}", None, n, series="spindle") for n in range(4)]
    given = answers(*(verdict(f"f{n}", score=value) for n, value in enumerate(scores)))
    assert score_of(shots, reversed_answers(given)).drift == {"spindle": correlation}


def reversed_answers(given: list[Answer]) -> list[Answer]:
    """Answers in another order than the frames: time is that of the frames."""
    return given[::-1]


def test_a_missing_verdict_is_a_finding_and_no_escape() -> None:
    score = played([BAD, BAD], verdict("f1", "reject"))
    assert (score.missing, score.escape) == (1, Rate(0, 1))
    assert not score.is_clean


def test_a_second_verdict_is_a_finding() -> None:
    score = played([GOOD], verdict("f0"), verdict("f0"))
    assert (score.duplicates, score.contradictions) == (1, 0)
    assert not score.is_clean


def test_a_second_verdict_that_differs_is_a_contradiction_and_the_first_counts() -> None:
    score = played([GOOD], verdict("f0"), verdict("f0", "reject"))
    assert (score.duplicates, score.contradictions) == (0, 1)
    assert score.overkill == Rate(0, 1)
    assert not score.is_clean


def test_a_redelivery_by_the_broker_is_no_second_verdict() -> None:
    first, again = answers(verdict("f0"), verdict("f0"))
    score = score_of(shots(GOOD), [first, Answer(again.verdict, again.arrived_ns, True)])
    assert (score.redelivered, score.duplicates) == (1, 0)
    assert score.is_clean


def test_a_redelivery_that_differs_is_still_a_contradiction() -> None:
    first, again = answers(verdict("f0"), verdict("f0", "reject"))
    score = score_of(shots(GOOD), [first, Answer(again.verdict, again.arrived_ns, True)])
    assert score.contradictions == 1


def test_verdicts_of_others_are_left_out() -> None:
    score = played([GOOD], verdict("f0"), verdict("f7", "reject"))
    assert (score.foreign, score.answered) == (1, 1)
    assert score.is_clean


def test_an_overrun_is_a_finding_and_counts_for_the_line() -> None:
    score = played([GOOD], verdict("f0", "reject", reason="overrun"))
    assert (score.overruns, score.overkill) == (1, Rate(1, 1))
    assert not score.is_clean


def test_boxes_match_by_class_and_overlap_one_to_one() -> None:
    true = [TrueBox("open", (0, 0, 20, 20)), TrueBox("short", (0, 0, 20, 20))]
    near, far = (1.0, 1.0, 21.0, 21.0), (15.0, 15.0, 40.0, 40.0)
    assert count_matches(true, [Defect("open", 0.9, near)]) == 1
    assert count_matches(true, [Defect("open", 0.9, near), Defect("open", 0.8, near)]) == 1
    assert count_matches(true, [Defect("open", 0.9, near), Defect("short", 0.8, near)]) == 2
    assert count_matches(true, [Defect("spur", 0.9, near)]) == 0
    assert count_matches(true, [Defect("open", 0.9, far)]) == 0


def test_box_counts_are_pooled_over_all_frames() -> None:
    found = (
        Defect("open", 0.9, (11.0, 10.0, 30.0, 30.0)),
        Defect("spur", 0.4, (0.0, 0.0, 9.0, 9.0)),
    )
    score = played([BAD, BAD], verdict("f0", "reject", defects=found), verdict("f1"))
    assert score.to_json()["boxes"] == {
        "true": 2, "found": 2, "matched": 1, "precision": 0.5, "recall": 0.5, "iou": 0.33,
    }  # fmt: skip


def test_without_truth_there_are_no_rates() -> None:
    plain = played([None], verdict("f0")).to_json()
    assert (plain["escape"], plain["overkill"], plain["boxes"]) == (None, None, None)
    assert plain["escape_interval"] is None


def test_nothing_played_scores_nothing() -> None:
    plain = played([]).to_json()
    assert (plain["frames"], plain["latency_ms"]["max"], plain["provider"]) == (0, 0.0, "")


def test_the_json_has_the_keys_that_others_rely_on() -> None:
    plain = played([GOOD, BAD], verdict("f0"), verdict("f1", "reject")).to_json()
    assert list(plain)[:9] == [
        "frames", "verdicts", "reasons", "escape", "overkill", "overruns", "latency_ms",
        "budget_ms", "provider",
    ]  # fmt: skip
    assert plain["verdicts"] == {"pass": 1, "reject": 1, "review": 0}
    assert plain["reasons"] == {"ok": 1, "defect": 1}
    assert list(plain["latency_ms"]) == ["p50", "p95", "p99", "max"]
    assert (plain["budget_ms"], plain["provider"]) == (200.0, "cpu")


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(
    count: int, of: int, low: float, high: float
) -> None:
    assert wilson(count, of) == pytest.approx((low, high), abs=5e-5)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 201)]
    assert percentiles(values) == {"p50": 100.0, "p95": 190.0, "p99": 198.0, "max": 200.0}
    assert percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}


def test_one_in_a_thousand_is_told_of_a_thousand() -> None:
    values = [float(n) for n in range(1, 1_001)]
    assert percentiles(values)["p99_9"] == 999.0
    assert list(percentiles(values)) == ["p50", "p95", "p99", "p99_9", "max"]
    assert "p99_9" not in percentiles(values[1:])


def test_overlap_is_intersection_over_union() -> None:
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
