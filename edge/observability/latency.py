"""Latencies around a budget: quantiles from a fixed set of buckets, in constant memory.

The buckets are geometric, six to an octave, from 1/256 of the budget to 16 times it, and one edge
lies exactly on the budget: how many observations were over it is counted, not estimated. A
quantile is read off by interpolation inside its bucket, so it is off by at most the bucket's
width, 12 %; the greatest value is exact.

Quantiles are those of the last `WINDOW` to twice `WINDOW` observations, so that a slow minute shows
and, a while later, no longer does. Counts are since the start.
"""

from bisect import bisect_left
from typing import Final, TypedDict

WINDOW: Final = 1_000
PER_OCTAVE: Final = 6
BELOW: Final = 8 * PER_OCTAVE
ABOVE: Final = 4 * PER_OCTAVE


class Summary(TypedDict):
    """A histogram in figures; milliseconds, 0.0 where nothing was observed."""

    count: int
    over_budget: int
    p50: float
    p95: float
    p99: float
    max: float


class Histogram:
    """The latencies of one stage or one pipeline. Owned by one thread.

    Args:
        budget_ms: What they are held against; above 0.
        window: Observations after which the older half is let go.
    """

    def __init__(self, budget_ms: float, window: int = WINDOW) -> None:
        if budget_ms <= 0 or window < 1:
            raise ValueError(f"budget_ms={budget_ms} and window={window} must be above 0")
        self.budget_ms = budget_ms
        self.count = 0
        self.over_budget = 0
        self._edges = [budget_ms * 2.0 ** (step / PER_OCTAVE) for step in range(-BELOW, ABOVE + 1)]
        self._window = window
        self._recent = _Counts(len(self._edges) + 1)
        self._earlier = _Counts(len(self._edges) + 1)

    def observe(self, value_ms: float) -> None:
        """Take one latency; a negative one (a clock was set) counts as 0."""
        value_ms = max(0.0, value_ms)
        self.count += 1
        self.over_budget += value_ms > self.budget_ms
        if self._recent.count >= self._window:
            self._earlier, self._recent = self._recent, _Counts(len(self._edges) + 1)
        self._recent.add(bisect_left(self._edges, value_ms), value_ms)

    def quantile(self, q: float) -> float:
        """Estimate a quantile of the recent observations, milliseconds; 0.0 before the first.

        Args:
            q: 0..1; 1 is the greatest value, exactly.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies in 0..1, found {q}")
        total = self._recent.count + self._earlier.count
        greatest = max(self._recent.greatest, self._earlier.greatest)
        if total == 0 or q == 1.0:
            return greatest
        rank = q * total
        passed = 0
        for bucket, (newer, older) in enumerate(
            zip(self._recent.buckets, self._earlier.buckets, strict=True)
        ):
            here = newer + older
            if here and passed + here >= rank:
                lower = self._edges[bucket - 1] if bucket else 0.0
                upper = self._edges[bucket] if bucket < len(self._edges) else greatest
                return min(greatest, lower + (upper - lower) * (rank - passed) / here)
            passed += here
        return greatest

    def summary(self) -> Summary:
        """Return the figures of the status message, rounded to 10 microseconds."""
        return {
            "count": self.count,
            "over_budget": self.over_budget,
            "p50": round(self.quantile(0.50), 2),
            "p95": round(self.quantile(0.95), 2),
            "p99": round(self.quantile(0.99), 2),
            "max": round(self.quantile(1.0), 2),
        }


class _Counts:
    """One window: a count for each bucket, and the greatest value."""

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.count = 0
        self.greatest = 0.0

    def add(self, bucket: int, value_ms: float) -> None:
        self.buckets[bucket] += 1
        self.count += 1
        self.greatest = max(self.greatest, value_ms)
