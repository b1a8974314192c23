"""Figures that recipes report: rates with intervals, ranking quality, agreement of orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.replay.score import wilson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def rate(events: NDArray[np.bool_]) -> dict[str, Any]:
    """How many of how many, with the 95 % Wilson interval."""
    count, of = int(events.sum()), len(events)
    low, high = wilson(count, of) if of else (0.0, 1.0)
    return {
        "events": count,
        "of": of,
        "rate": round(count / max(of, 1), 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Rank of each value from 1; equal values share the mean of theirs."""
    array = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def auroc(bad: ArrayLike, good: ArrayLike) -> float:
    """Chance that a bad part scores above a good one; ties count half (Mann and Whitney 1947)."""
    bad, good = np.asarray(bad, np.float64), np.asarray(good, np.float64)
    both = ranks(np.concatenate([bad, good]))
    above = both[: len(bad)].sum() - len(bad) * (len(bad) + 1) / 2
    return float(above / (len(bad) * len(good)))


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Rank correlation, -1..1; 1: both rise together."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def confusion(truths: NDArray[np.int64], found: NDArray[np.int64], classes: int) -> NDArray[Any]:
    """int64 [classes, classes]: rows the truth, columns what was said."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truths, found), 1)
    return counts


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Mean over classes of the harmonic mean of precision and recall."""
    hits = np.diag(counts)
    return float((2 * hits / np.maximum(counts.sum(0) + counts.sum(1), 1)).mean())
