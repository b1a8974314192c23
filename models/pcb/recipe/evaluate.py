"""Judges an ONNX file of the detector: detections, verdicts on parts, time. No torch.

`python -m models.pcb.recipe.evaluate --data ../shared/data --model models/pcb/model.int8.onnx`

The decision threshold comes from training pairs alone, seen through the augmentation (so that they
are as new to the network as they can be), or is given with `--score`, as for another variant of the
same weights. Test pairs are then judged once. `--report` keeps the figures as JSON for `card`;
`--check REPORT` compares with one instead, and fails where a figure differs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.pcb.recipe.augment import augment
from models.pcb.recipe.data import (
    CLASSES,
    SIDE,
    deeppcb_folder,
    load_test,
    load_training,
    model_input,
    planes_shown,
)
from models.pcb.recipe.detections import (
    FLOOR,
    match,
    official_average_precision,
    overlaps,
    suppress,
)
from models.pcb.recipe.parts import bad_parts, good_parts
from models.recipe.figures import rate
from models.recipe.report import add_report_arguments, finish
from models.recipe.session import measure_latency, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet

    Detect = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

IOUS = (0.33, 0.5, 0.75)
DECISION_IOU = 0.33
THRESHOLD_PAIRS = 400
OTHER_SCORES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""What another threshold would have given: for the reader to see, never to choose from."""
QUICK_PAIRS = 40
"""The first test pairs, judged apart: what a test can repeat in seconds."""
PART_SEED = 7
VIEW_SEED = 2026


def detector(session: ort.InferenceSession) -> Detect:
    """A function from a pair, uint8 [2, 640, 640], to its detections, float32 [n, 6].

    A session that does not take pairs is given the frame alone.
    """
    channels = _channels(session)

    def detect(pair: NDArray[np.uint8]) -> NDArray[np.float32]:
        boxes, scores = session.run(["boxes", "scores"], {"input": model_input(pair, channels)})
        return suppress(boxes[0], scores[0])

    return detect


def training_views(
    pairs: PairSet, count: int, planes: int = 2
) -> Sequence[tuple[NDArray[Any], NDArray[Any]]]:
    """Augmented views of `count` training pairs, drawn apart from those of the training run."""
    chosen = np.random.default_rng(VIEW_SEED).permutation(len(pairs))[:count]
    views = []
    for index in chosen:
        rng = np.random.default_rng((VIEW_SEED, int(index)))
        pair = pairs.images[index], pairs.boxes[index]
        views.append(augment(pair, lambda pair=pair: pair, rng, planes=planes))  # type: ignore[misc]
    return views


def choose_threshold(detect: Detect, pairs: PairSet, planes: int) -> dict[str, float]:
    """The score that decides, from training pairs alone, with F and mAP on them for comparison."""
    views = training_views(pairs, THRESHOLD_PAIRS, planes)
    matches = match([detect(images) for images, _ in views], [b for _, b in views], DECISION_IOU)
    score = round(matches.plateau(), 2)
    return {
        "score": score,
        "f": round(matches.f_score(score), 4),
        "map": round(_mean(matches.average_precision()), 4),
    }


def judge_detections(detect: Detect, pairs: PairSet, score: float) -> dict[str, Any]:
    """Mean average precision and F at each IoU, and the official script's single figure."""
    found = [detect(images) for images in pairs.images]
    at_iou = []
    for iou in IOUS:
        matches = match(found, pairs.boxes, iou)
        per_class = matches.average_precision()
        at_iou.append(
            {
                "iou": iou,
                "map": round(_mean(per_class), 4),
                "f": round(matches.f_score(score), 4),
                "per_class": {name: round(value, 4) for name, value in per_class.items()},
            }
        )
    official = official_average_precision(found, pairs.boxes)
    return {"at_iou": at_iou, "official_ap": round(official, 4)}


def judge_verdicts(detect: Detect, pairs: PairSet, score: float) -> dict[str, Any]:
    """How often a bad part passes (escape) and a good part is rejected (overkill)."""
    good = np.array([_best(detect(part)) for part in good_parts(pairs)])
    bad, at_defect, classes = [], [], []
    for part, box in bad_parts(pairs, PART_SEED):
        found = detect(part)
        bad.append(_best(found))
        at_defect.append(_best(found[overlaps(found, box[None])[:, 0] > 0]))
        classes.append(CLASSES[int(box[4])])
    passed = np.array(bad) < score
    return {
        "good": len(good),
        "overkill": rate(good >= score),
        "bad": len(bad),
        "escape": rate(passed),
        "escaped_of_class": dict(Counter(np.array(classes)[passed].tolist())),
        # Stricter than a verdict: a rejection for another reason than the defect does not count.
        "defect_missed": rate(np.array(at_defect) < score),
        "at_other_scores": [
            {
                "score": other,
                "escape": rate(np.array(bad) < other),
                "overkill": rate(good >= other),
            }
            for other in OTHER_SCORES
        ],
    }


def _channels(session: ort.InferenceSession) -> int:
    return int(session.get_inputs()[0].shape[1])


def _latency_frames(channels: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 2, (4, 1, channels, SIDE, SIDE), np.uint8) * np.uint8(255))


def _best(found: NDArray[np.float32]) -> float:
    return float(found[:, 4].max(initial=0.0))


def _mean(per_class: dict[str, float]) -> float:
    return sum(per_class.values()) / len(per_class)


def main() -> None:
    """Prints the figures of one file and keeps them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--score", type=float, help="threshold chosen before, of these weights")
    add_report_arguments(parser)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    folder = deeppcb_folder(arguments.data)
    session = open_session(arguments.model, arguments.threads)
    detect, channels = detector(session), _channels(session)
    report: dict[str, Any] = {"file": arguments.model.name, "floor": FLOOR}
    report["latency"] = measure_latency(arguments.model, _latency_frames(channels))
    if arguments.score is None:
        report["threshold"] = choose_threshold(
            detect, load_training(folder), planes_shown(channels)
        )
    else:
        report["threshold"] = {"score": arguments.score}
    score = report["threshold"]["score"]
    test = load_test(folder)
    report["test_pairs"] = len(test)
    report["detections"] = judge_detections(detect, test, score)
    report["quick"] = judge_detections(detect, test.first(QUICK_PAIRS), score)
    report["verdicts"] = judge_verdicts(detect, test, score)
    finish(report, arguments)


if __name__ == "__main__":
    main()
