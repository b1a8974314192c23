"""Judges the cascade beside its detector alone: detections, verdicts, kinds, time. No torch.

`python -m models.pcb_kinds.recipe.evaluate --data ../shared/data \
    --model models/pcb_kinds/model.int8.onnx`

Whose score counts, when a crop is surely none, and the score that rejects come from training pairs
alone; or they are taken from a report with `--as REPORT`, as for another variant of the same
weights. Test pairs are then judged once. `--report` keeps the figures as JSON for `card`;
`--check REPORT` compares with one instead.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.contracts.plan import ScoreOf
from models.pcb.recipe.data import CLASSES as KINDS
from models.pcb.recipe.data import deeppcb_folder, load_test, load_training
from models.pcb.recipe.detections import match, overlaps
from models.pcb.recipe.evaluate import (
    DECISION_IOU,
    QUICK_PAIRS,
    THRESHOLD_PAIRS,
    judge_detections,
    judge_verdicts,
    training_views,
)
from models.pcb_kinds.recipe.cascade import Cascade, Setting
from models.pcb_kinds.recipe.data import (
    APART_IOU,
    BATCH,
    CLASSES,
    CONTRACT,
    DETECTOR,
    FOUND_IOU,
    NONE,
    findings,
)
from models.recipe.figures import confusion, rate
from models.recipe.frames import FramePath
from models.recipe.report import add_report_arguments, finish
from models.recipe.session import measure_latency, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet
    from models.pcb_kinds.recipe.cascade import Seen

SURE = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Probabilities of `none` from which a finding may be dropped."""
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(20, 91))
"""Scores that may reject a part; the first is that from which findings are looked at."""
DETECTOR_SCORE = 0.62
"""That of the detector's card, for where it stands alone."""


def choose_setting(cascade: Cascade, pairs: PairSet) -> dict[str, Any]:
    """Whose score counts, when `none` is sure, and the score that rejects, from training views.

    The threshold is the lowest one at which the cascade gives no more false alarms than the
    detector alone gives at its own; then the best F decides, and of equals who drops the least.
    """
    views = training_views(pairs, THRESHOLD_PAIRS)
    seen, truths = [cascade(images) for images, _ in views], [boxes for _, boxes in views]
    found = [each.found for each in seen]
    allowed = int((_alarms(found, truths) >= DETECTOR_SCORE).sum())
    rows = []
    for score, sure in product(ScoreOf, SURE):
        setting = Setting(THRESHOLDS[0], score, sure)
        merged = [each.merged(setting) for each in seen]
        alarms = _alarms(merged, truths)
        threshold = next((t for t in THRESHOLDS if (alarms >= t).sum() <= allowed), 1.0)
        f = match(merged, truths, DECISION_IOU).f_score(threshold)
        rows.append(
            {"score_of": score.value, "sure": sure, "threshold": threshold, "f": round(f, 4)}
        )
    best = max(rows, key=lambda row: (row["f"], row["sure"]))
    alone = match(found, truths, DECISION_IOU).f_score(DETECTOR_SCORE)
    return {
        **best,
        "false_alarms_allowed": allowed,
        "detector_alone_f": round(alone, 4),
        "looked_at": rows,
    }


def _alarms(
    found: Sequence[NDArray[np.float32]], truths: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Scores of the findings that lie on no defect."""
    return np.concatenate(
        [
            rows[overlaps(rows, truth).max(axis=1, initial=0) < FOUND_IOU, 4]
            for rows, truth in zip(found, truths, strict=True)
        ]
    )


def judge_kinds(seen: Sequence[Seen], truths: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """What each model says of the findings that are defects, and of those that are none."""
    kinds, first, second, alarms = [], [], [], []
    for each, truth in zip(seen, truths, strict=True):
        looked = each.found[: len(each.probabilities)]
        looked = looked[looked[:, 4] >= THRESHOLDS[0]]
        said = each.probabilities[: len(looked)].argmax(axis=1)
        near = overlaps(looked, truth)
        best, at = near.max(axis=1), near.argmax(axis=1)
        true = best >= FOUND_IOU
        kinds.append(truth[at[true], 4].astype(np.int64))
        first.append(looked[true, 5].astype(np.int64))
        second.append(said[true])
        alarms.append(said[best <= APART_IOU])
    of, one, other, false = (np.concatenate(rows) for rows in (kinds, first, second, alarms))
    none = CLASSES.index(NONE)
    return {
        "findings_from": THRESHOLDS[0],
        "defects": len(of),
        "detector_wrong": rate(one != of),
        "classifier_wrong": rate(other != of),
        "classifier_says_none": rate(other == none),
        "detector_confusion": confusion(of, one, len(KINDS)).tolist(),
        "classifier_confusion": confusion(of, other, len(CLASSES)).tolist()[: len(KINDS)],
        "false_alarms": len(false),
        "false_alarms_dropped": rate(false == none),
    }


def main() -> None:
    """Prints the figures of one file and keeps, or checks, them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--as", type=Path, metavar="REPORT", dest="like", help="take the setting of a report"
    )
    add_report_arguments(parser)
    arguments = parser.parse_args()
    folder = deeppcb_folder(arguments.data)
    test = load_test(folder)
    detector, classifier = open_session(DETECTOR), open_session(arguments.model)
    with FramePath(CONTRACT) as path:
        cascade = Cascade(detector, classifier, path)
        report: dict[str, Any] = {"file": arguments.model.name, "test_pairs": len(test)}
        report["latency"] = measure_latency(arguments.model, _batches())
        report["setting"] = (
            json.loads(arguments.like.read_text())["setting"]
            if arguments.like
            else choose_setting(cascade, load_training(folder))
        )
        chosen = report["setting"]
        setting = Setting(THRESHOLDS[0], ScoreOf(chosen["score_of"]), chosen["sure"])
        seen = [cascade(images) for images in test.images]
        report["kinds"] = judge_kinds(seen, test.boxes)
        report["quick"] = judge_kinds(seen[:QUICK_PAIRS], test.boxes[:QUICK_PAIRS])
        for name, detect, score in (
            ("detector_alone", lambda pair: findings(detector, pair), DETECTOR_SCORE),
            ("cascade", lambda pair: cascade(pair).merged(setting), chosen["threshold"]),
        ):
            report[name] = {
                "threshold": score,
                "detections": judge_detections(detect, test, score),
                "verdicts": judge_verdicts(detect, test, score),
            }
    finish(report, arguments)


def _batches() -> list[NDArray[np.uint8]]:
    """Full batches of noise, which take as long as crops."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, CONTRACT.input.rows(BATCH).shape, np.uint8) for _ in range(4)]


if __name__ == "__main__":
    main()
