"""The latencies of one pipeline, for Prometheus: the whole and each stage, around its budget."""

from typing import Final

from edge.contracts.verdict import Verdict
from edge.observability.exposition import STAGE_FRACTIONS, Buckets

MAX_STAGES: Final = 16
"""Their names come from a worker, and a worker may be hostile."""


class Latencies:
    """Owned by the event loop's thread.

    Attributes:
        whole: From capture, or arrival, to the verdict.
        stages: By name.
    """

    def __init__(self, budget_ms: float) -> None:
        self.whole = Buckets(budget_ms)
        self.stages: dict[str, Buckets] = {}

    def observe(self, verdict: Verdict) -> None:
        """Take what a verdict says of its own time."""
        for name, took_ms in verdict.latency_ms.items():
            if name == "total":
                self.whole.observe(took_ms)
                continue
            buckets = self.stages.get(name)
            if buckets is None:
                if len(self.stages) >= MAX_STAGES:
                    continue
                buckets = self.stages[name] = Buckets(self.whole.budget_ms, STAGE_FRACTIONS)
            buckets.observe(took_ms)
