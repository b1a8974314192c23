"""The statistics of drift: robust spreads, and the population stability index. Plain Python."""

import math
from collections.abc import Sequence
from typing import Final

_NORMAL_DECILES: Final = 2.5631
"""From the 10th to the 90th percentile of a normal distribution, in standard deviations."""
_ALMOST_NEVER: Final = 3.719
"""Standard deviations of a normal distribution that 1 in 10,000 exceeds."""
_PRIOR: Final = 0.5
"""Added to each count, so that an empty bin is rare and not impossible (Jeffreys)."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of values in ascending order, between the two that are next to it."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def typical(values: Sequence[float]) -> tuple[float, float]:
    """Return the median, and the spread: a standard deviation that outliers do not move.

    The spread is taken between the 10th and the 90th percentile. The usual median of distances
    from the median would be 0 where more than half of the pictures are alike, as on a belt that is
    empty between parts, and then any picture of a part would be far from it.
    """
    ordered = sorted(values)
    spread = (quantile(ordered, 0.9) - quantile(ordered, 0.1)) / _NORMAL_DECILES
    return quantile(ordered, 0.5), spread


def typical_of_counts(counts: Sequence[int]) -> tuple[float, float]:
    """Return the same of values of 0..1 of which only the counts of equal bins are known.

    The values of a bin are taken to lie evenly in it.
    """
    total = sum(counts)

    def at(share: float) -> float:
        below = 0
        for index, count in enumerate(counts):
            if count and below + count >= share * total:
                return (index + (share * total - below) / count) / len(counts)
            below += count
        return 0.0

    return at(0.5), (at(0.9) - at(0.1)) / _NORMAL_DECILES


def stability(expected: Sequence[float], learnt: int, found: Sequence[float], window: int) -> float:
    """Return the population stability index of two distributions.

    Args:
        expected: Shares of the bins; empty ones are taken as half a frame.
        learnt: Frames that these come from.
        found: Shares of the same bins.
        window: Frames that those come from.

    Source: Siddiqi, "Credit Risk Scorecards", Wiley 2006: below 0.1 nothing has changed, above 0.25
    much has. It is Jeffreys' divergence of the two.
    """
    pairs = zip(_never_zero(expected, learnt), _never_zero(found, window), strict=True)
    return sum((b - a) * math.log(b / a) for a, b in pairs)


def _never_zero(shares: Sequence[float], frames: int) -> list[float]:
    total = frames + _PRIOR * len(shares)
    return [(share * frames + _PRIOR) / total for share in shares]


def chance(bins: int, learnt: int, window: int) -> float:
    """Return the index that two samples of one distribution exceed once in 10,000 pairs.

    Source: Yurdakul and Naranjo, "Statistical properties of the population stability index",
    Journal of Risk Model Validation 14 (2020): it is distributed as chi-squared with `bins - 1`
    degrees of freedom, times the sum of the samples' reciprocals. The quantile is Wilson's and
    Hilferty's (PNAS 17, 1931).
    """
    free = bins - 1
    part = 2 / (9 * free)
    quantile_of_chi = free * (1 - part + _ALMOST_NEVER * math.sqrt(part)) ** 3
    return quantile_of_chi * (1 / learnt + 1 / window)
