"""Judges an ONNX file of the wear score: order in time, drift alarms, time taken. No torch.

`python -m models.wear.recipe.evaluate --data ../shared/data --model models/wear/model.onnx`

The alarm's threshold comes from the sequences that training saw, or is given with `--score`, as for
another variant of the same weights. The held-back sequence is then judged once. `--report` keeps
the figures as JSON for `card`; `--check REPORT` compares with one instead, and fails where a figure
differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.recipe.figures import auroc, rate, spearman
from models.recipe.report import add_report_arguments, finish
from models.recipe.session import measure_latency, open_session, outputs
from models.wear.recipe.data import EARLY, HELD_BACK, Sequence, load

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

SMOOTHED_FRAMES = 5


def scores(session: ort.InferenceSession, sequence: Sequence) -> NDArray[np.float64]:
    """The peak of each frame's map, the first frame being the reference; float64 [57]."""
    pairs = (sequence.pair(index) for index in range(len(sequence)))
    return np.array([float(outputs(session, pair)[0].max()) for pair in pairs])


def choose_threshold(session: ort.InferenceSession, learnt: list[Sequence]) -> dict[str, Any]:
    """Half way between the frames before the first annotated pit and those from it on."""
    before, after = [], []
    for sequence in learnt:
        found = scores(session, sequence)
        if sequence.pitted.any():
            first = int(np.argmax(sequence.pitted))
            before.extend(found[:first])
            after.extend(found[first:])
    low, high = float(np.quantile(before, 0.95)), float(np.quantile(after, 0.05))
    return {
        "score": round((low + high) / 2, 2),
        "before_95": round(low, 3),
        "from_5": round(high, 3),
    }


def judge(session: ort.InferenceSession, sequence: Sequence, threshold: float) -> dict[str, Any]:
    """How well the score follows time, and when it would have alarmed."""
    found = scores(session, sequence)
    later = found[EARLY:]
    mean = np.convolve(found, np.ones(SMOOTHED_FRAMES) / SMOOTHED_FRAMES, mode="valid")
    report: dict[str, Any] = {
        "sequence": sequence.name,
        "frames": len(sequence),
        "spearman": round(spearman(found, sequence.age), 4),
        "spearman_without_early": round(spearman(later, sequence.age[EARLY:]), 4),
        f"spearman_of_mean_of_{SMOOTHED_FRAMES}": round(
            spearman(mean, sequence.age[SMOOTHED_FRAMES - 1 :]), 4
        ),
        "every_eighth_score": [round(float(value), 3) for value in found[::8]],
        "first_alarm_at": _first(found >= threshold),
        "first_pit_at": _first(sequence.pitted),
    }
    if sequence.pitted.any():
        report["pitted_auroc"] = round(auroc(found[sequence.pitted], found[~sequence.pitted]), 4)
        report["verdicts"] = {
            "escape": rate(found[sequence.pitted] < threshold),
            "overkill": rate(found[~sequence.pitted] >= threshold),
        }
    return report


def _first(events: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(events)) if events.any() else None


def main() -> None:
    """Prints the figures of one file and keeps, or checks, them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds bsdata/; default EDGE_DATA")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--score", type=float, help="threshold chosen before, of these weights")
    parser.add_argument("--held-back", default=HELD_BACK, help="the sequence that it never saw")
    add_report_arguments(parser)
    arguments = parser.parse_args()
    session = open_session(arguments.model)
    sequences = load(arguments.data)
    learnt = [s for s in sequences if s.name != arguments.held_back]
    (held,) = (s for s in sequences if s.name == arguments.held_back)
    report: dict[str, Any] = {"file": arguments.model.name}
    report["latency"] = measure_latency(arguments.model, [held.pair(i) for i in range(4)])
    if arguments.score is None:
        report["threshold"] = choose_threshold(session, learnt)
    else:
        report["threshold"] = {"score": arguments.score}
    report["held_back"] = judge(session, held, report["threshold"]["score"])
    finish(report, arguments)


if __name__ == "__main__":
    main()
