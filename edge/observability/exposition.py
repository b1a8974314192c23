"""Figures as Prometheus reads them: the text exposition format, version 0.0.4.

Written here and not by a client library: the counters are a closed table already, and the format
is a page long. No registry, no global state: whoever has figures makes families of them, and this
makes text of families. promtool holds the result to the format in a test.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "edge_"

FRACTIONS: Final = (
    *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.1, 1.25, 1.5, 2.0, 5.0),
)
"""Edges of the whole latency's buckets, in budgets: one lies exactly on it."""
STAGE_FRACTIONS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0)
"""Of a stage's, which is shorter, and of which there are ten a pipeline."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str]


class Buckets:
    """Counts of latencies since the start, by edges around a budget. Owned by one thread.

    Args:
        budget_ms: Above 0.
        fractions: The edges, in budgets, rising.
    """

    def __init__(self, budget_ms: float, fractions: Sequence[float] = FRACTIONS) -> None:
        self.budget_ms = budget_ms
        self.edges_ms = [fraction * budget_ms for fraction in fractions]
        self.counts = [0] * (len(self.edges_ms) + 1)
        self.sum_ms = 0.0

    def observe(self, value_ms: float) -> None:
        """Take one latency; a negative one (a clock was set) counts as 0."""
        value_ms = max(0.0, value_ms)
        self.counts[bisect_left(self.edges_ms, value_ms)] += 1
        self.sum_ms += value_ms


class Family(NamedTuple):
    """All series of one name.

    Attributes:
        name: With its unit, and `_total` where it is a counter.
        values: A figure, or the buckets of a histogram, for each set of labels.
    """

    name: str
    kind: Kind
    text: str
    values: Sequence[tuple[Labels, float | Buckets]]


def gauge(name: str, text: str, *values: tuple[Labels, float]) -> Family:
    """A figure that rises and falls."""
    return Family(PREFIX + name, "gauge", text, values)


def render(families: Iterable[Family]) -> bytes:
    """Return the exposition; a family without values is left out."""
    lines: list[str] = []
    for family in families:
        if not family.values:
            continue
        lines.append(f"# HELP {family.name} {_escape_help(family.text)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.values:
            if isinstance(value, Buckets):
                lines += _histogram(family.name, labels, value)
            else:
                lines.append(f"{family.name}{_labels(labels)} {_number(value)}")
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, labels: Labels, buckets: Buckets) -> Iterable[str]:
    total = 0
    edges = [f"{edge_ms / 1e3:.6g}" for edge_ms in buckets.edges_ms]
    for edge, count in zip((*edges, "+Inf"), buckets.counts, strict=True):
        total += count
        yield f"{name}_bucket{_labels({**labels, 'le': edge})} {total}"
    yield f"{name}_sum{_labels(labels)} {_number(buckets.sum_ms / 1e3)}"
    yield f"{name}_count{_labels(labels)} {total}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    if isinstance(value, int):  # bool among them
        return str(int(value))
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
