"""Judges an ONNX file of the classifier: accuracy, verdicts on parts, time. No torch.

`python -m models.steel.recipe.evaluate --data ../shared/data --model models/steel/model.int8.onnx`

The review threshold comes from training crops alone, or is given with `--score`, as for another
variant of the same weights. Test crops are then judged once. `--report` keeps the figures as JSON
for `card`; `--check REPORT` compares with one instead, and fails where a figure differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.recipe.figures import confusion, macro_f1, rate
from models.recipe.report import add_report_arguments, finish
from models.recipe.session import measure_latency, open_session, outputs
from models.steel.recipe.augment import augment
from models.steel.recipe.data import CLASSES, Crops, load

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

OTHER_QUALITIES = (60, 75, 97)
"""Of the re-encoding: figures that should hardly differ, or the network reads the codec."""
VIEW_SEED = 2026
DOUBTED_SHARE = 0.01
"""Of augmented training crops: the share that the review threshold sends to a person."""


def probabilities(session: ort.InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 [N, 7] of crops uint8 [N, 3, 128, 128]."""
    return np.concatenate([outputs(session, image[None])[0] for image in images])


def choose_threshold(session: ort.InferenceSession, crops: Crops) -> dict[str, Any]:
    """The probability below which a person looks, from augmented training crops alone."""
    rng = np.random.default_rng(VIEW_SEED)
    views = np.stack([np.stack([augment(image[0], rng)] * 3) for image in crops.images])
    found = probabilities(session, views)
    best = found.max(axis=1)
    score = round(float(np.quantile(best, DOUBTED_SHARE)), 2)
    correct = found.argmax(axis=1) == crops.labels
    return {"score": score, "accuracy_of_views": round(float(correct.mean()), 4)}


def judge(session: ort.InferenceSession, crops: Crops, score: float) -> dict[str, Any]:
    """Accuracy, and what a deployment would say of each crop."""
    found = probabilities(session, crops.images)
    said, best = found.argmax(axis=1), found.max(axis=1)
    counts = confusion(crops.labels, said, len(CLASSES))
    wrong = said != crops.labels
    return {
        "crops": len(crops),
        "wrong": rate(wrong),
        "accuracy": round(1 - float(wrong.mean()), 4),
        "macro_f1": round(macro_f1(counts), 4),
        "recall": {
            name: round(float(counts[i, i] / max(counts[i].sum(), 1)), 4)
            for i, name in enumerate(CLASSES)
        },
        "confusion": counts.tolist(),
        "verdicts": {
            "sent to review": rate(best < score),
            "wrong and not sent to review": rate(wrong & (best >= score)),
        },
    }


def main() -> None:
    """Prints the figures of one file and keeps, or checks, them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds xsdd/; default EDGE_DATA")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--score", type=float, help="threshold chosen before, of these weights")
    add_report_arguments(parser)
    arguments = parser.parse_args()
    session = open_session(arguments.model)
    test = load("test", arguments.data)
    report: dict[str, Any] = {"file": arguments.model.name}
    report["latency"] = measure_latency(arguments.model, [image[None] for image in test.images[:4]])
    if arguments.score is None:
        report["threshold"] = choose_threshold(session, load("train", arguments.data))
    else:
        report["threshold"] = {"score": arguments.score}
    score = report["threshold"]["score"]
    report["test"] = judge(session, test, score)
    report["accuracy_at_other_jpeg_qualities"] = {
        str(quality): judge(session, load("test", arguments.data, quality), score)["accuracy"]
        for quality in OTHER_QUALITIES
    }
    finish(report, arguments)


if __name__ == "__main__":
    main()
