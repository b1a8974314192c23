"""The pure parts of a cascade: how crops fall into batches, and how two words become one."""

import numpy as np
import pytest

from edge.contracts.plan import CropPlan, GuestPlan, ModelPlan, RefinePlan, ScoreOf, merged_classes
from edge.pipeline.finders import Defects
from edge.pipeline.refine import Answer, Merge, batch_sizes, batches
from edge.wasm.roles import DEFECT

DETECTOR = ("defect", "open")
CLASSIFIER = ("open", "short", "none")
OPEN, SHORT, NONE = 0, 1, 2
"""Labels of the classifier."""
GUEST = GuestPlan("", "", 1, 1)


def merge(
    score: ScoreOf = ScoreOf.CLASSIFIER, *, drop_unnamed: bool = False, min_score: float = 0.0
) -> Merge:
    refine = RefinePlan(
        ModelPlan("", "", CLASSIFIER, (), ()),
        GUEST,
        GUEST,
        CropPlan(0, 1, square=True),
        max_crops=8,
        score=score,
        drop=("none",),
        min_score=min_score,
        drop_unnamed=drop_unnamed,
    )
    return Merge(merged_classes(DETECTOR, CLASSIFIER, refine.drop), refine)


def found(*scores: float) -> Defects:
    """Findings with these scores, all `defect`; x0 tells them apart."""
    rows = [(index, 0, index + 1, 1, score, 0) for index, score in enumerate(scores)]
    return np.array(rows, DEFECT)


def told(defects: Defects) -> list[tuple[int, int, float]]:
    """Which finding it was, its label and its score."""
    return [(int(row["x0"]), int(row["label"]), round(float(row["score"]), 4)) for row in defects]


def test_a_cascade_has_the_detectors_classes_and_then_what_only_the_classifier_says() -> None:
    assert merged_classes(DETECTOR, CLASSIFIER, ("none",)) == ("defect", "open", "short")
    assert merged_classes(DETECTOR, CLASSIFIER, ()) == ("defect", "open", "short", "none")
    assert merged_classes(("none",), CLASSIFIER, ("none",)) == ("none", "open", "short")


@pytest.mark.parametrize(
    ("score", "expected"),
    [(ScoreOf.CLASSIFIER, 0.5), (ScoreOf.DETECTOR, 0.8), (ScoreOf.PRODUCT, 0.4)],
)
def test_a_finding_has_the_classifiers_label_and_the_chosen_score(
    score: ScoreOf, expected: float
) -> None:
    assert told(merge(score)(found(0.8), [(SHORT, 0.5)])) == [(0, 2, expected)]


def test_a_class_that_both_know_has_one_label() -> None:
    assert told(merge()(found(0.8), [(OPEN, 0.9)])) == [(0, 1, 0.9)]


def test_a_dropped_class_removes_the_finding_and_no_other() -> None:
    answers: list[Answer] = [(NONE, 0.99), (SHORT, 0.9)]
    assert told(merge()(found(0.8, 0.7), answers)) == [(1, 2, 0.9)]


def test_a_crop_in_which_nothing_is_named_keeps_the_detectors_word_or_goes_as_declared() -> None:
    assert told(merge()(found(0.8), [None])) == [(0, 0, 0.8)]
    assert told(merge(drop_unnamed=True)(found(0.8), [None])) == []


def test_findings_that_were_not_looked_at_keep_the_detectors_word() -> None:
    assert told(merge()(found(0.8, 0.7, 0.6), [(SHORT, 0.65)])) == [
        (1, 0, 0.7),
        (0, 2, 0.65),
        (2, 0, 0.6),
    ]


def test_the_strongest_come_first_and_equals_stay_in_order() -> None:
    answers: list[Answer] = [(SHORT, 0.3), (OPEN, 0.9), (SHORT, 0.9)]
    assert [row[0] for row in told(merge()(found(0.8, 0.7, 0.6), answers))] == [1, 2, 0]


def test_findings_below_the_least_score_are_left_out_whoever_gave_it() -> None:
    weak = merge(min_score=0.5)
    assert told(weak(found(0.9, 0.8, 0.49), [(SHORT, 0.4), (OPEN, 0.5)])) == [(1, 1, 0.5)]
    assert told(weak(found(0.49), [None])) == []


def test_what_was_found_is_not_written_to() -> None:
    before = found(0.8)
    merge()(before, [(SHORT, 0.1)])
    assert told(before) == [(0, 0, 0.8)]


def test_no_finding_is_no_finding() -> None:
    assert told(merge()(found(), [])) == []


@pytest.mark.parametrize(
    ("most", "any_batch", "expected"),
    [
        (8, True, (8, 4, 2, 1)),
        (6, True, (6, 4, 2, 1)),
        (1, True, (1,)),
        (8, False, (8,)),
        (1, False, (1,)),
    ],
)
def test_the_batch_sizes_that_are_bound(
    most: int, any_batch: bool, expected: tuple[int, ...]
) -> None:
    assert batch_sizes(most, any_batch=any_batch) == expected


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (0, (8, 4, 2, 1), []),
        (13, (8, 4, 2, 1), [(8, 8), (4, 4), (1, 1)]),
        (3, (8,), [(3, 8)]),
        (17, (8,), [(8, 8), (8, 8), (1, 8)]),
    ],
    ids=["nothing", "no row in vain", "padded", "the last one padded"],
)
def test_crops_fall_into_batches(
    count: int, sizes: tuple[int, ...], expected: list[tuple[int, int]]
) -> None:
    assert list(batches(count, sizes)) == expected


def test_every_number_of_crops_is_judged_once() -> None:
    for most in range(1, 20):
        for any_batch in (True, False):
            sizes = batch_sizes(most, any_batch=any_batch)
            for count in range(70):
                given = list(batches(count, sizes))
                assert sum(rows for rows, _ in given) == count
                assert all(rows <= size <= most for rows, size in given)
                assert not any_batch or all(rows == size for rows, size in given)
