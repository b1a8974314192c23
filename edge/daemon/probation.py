"""Probation: the verdicts of a deployment that judges parts, watched until it may stay or goes.

Each pipeline is watched by itself, against its own past: a good one hides no bad one.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from edge.contracts.verdict import Verdict
from edge.daemon.intake import Frame
from edge.daemon.outlets import Seen
from edge.deployment.rules import ProbationRule
from edge.deployment.watch import Finding, Probation, Rates


class Watching:
    """The probation of one deployment, or its time as canary, which is held to the same limits.

    Args:
        rule: What it must keep to.
        pipelines: Their names.
        before: What `recent_figures` said of its predecessor; None where there was none, or where
            it is no measure.
        stage: How the evidence names it.
    """

    def __init__(
        self,
        rule: ProbationRule,
        pipelines: Iterable[str],
        before: Mapping[str, Any] | None,
        stage: str = "probation",
    ) -> None:
        self._rule = rule
        self._stage = stage
        self._before = {
            name: Rates.of_figures((before or {}).get(name)) or Rates() for name in pipelines
        }
        self._probations = {name: Probation(rule, rates) for name, rates in self._before.items()}
        self._open = set(self._probations)
        self._bad: Finding | None = None
        self._ended = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether there is a finding."""
        return self._ended.is_set()

    def compare_with(self, verdict: Verdict) -> None:
        """Count a verdict that somebody else gives at the same time to what is compared with."""
        if (rates := self._before.get(verdict.pipeline)) is not None:
            rates.add(verdict.verdict, verdict.reason, verdict.score)

    def observe(self, _frame: Frame, verdict: Verdict, _seen: Seen) -> None:
        """Take note of a verdict of an active pipeline."""
        name = verdict.pipeline
        if name not in self._probations or self._ended.is_set():
            return
        finding = self._probations[name].add(verdict.verdict, verdict.reason, verdict.score)
        if finding is None:
            return
        if finding.reason:
            self._end(name, finding)
            return
        self._open.discard(name)
        if not self._open:
            self._ended.set()

    def lose(self, name: str, reason: str) -> None:
        """Take note that a pipeline's worker ended unasked, whether a frame was with it or not."""
        if name not in self._probations or self._ended.is_set():
            return
        if (finding := self._probations[name].lose(reason)) is not None:
            self._end(name, finding)

    async def run(self, withdrawn: asyncio.Event) -> Finding | None:
        """Watch until there is a finding; None where it was withdrawn meanwhile."""
        if not self._rule.frames or not self._open:
            self._ended.set()
        waiting = [asyncio.create_task(each.wait()) for each in (self._ended, withdrawn)]
        try:
            await asyncio.wait(
                waiting, timeout=self._rule.max_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in waiting:
                each.cancel()
        if self._bad is None and withdrawn.is_set():
            return None
        if not self._ended.is_set():  # time is up
            for name, probation in self._probations.items():
                finding = probation.over()
                if finding.reason:
                    self._end(name, finding)
                    break
        if self._bad is not None:
            return self._bad
        frames = sum(each.now.frames for each in self._probations.values())
        return Finding("", f"{frames} verdicts kept to the rules", self.evidence())

    def _end(self, name: str, finding: Finding) -> None:
        self._bad = Finding(finding.reason, f"{name}: {finding.detail}", self.evidence())
        self._ended.set()

    def evidence(self) -> dict[str, Any]:
        """Return the figures so far."""
        return {self._stage: {name: each.evidence() for name, each in self._probations.items()}}


def recent_figures(recent: Mapping[str, tuple[Rates, Rates]]) -> dict[str, Any]:
    """Return the newest verdicts of each pipeline as plain figures, for the journal.

    Args:
        recent: The window before and the newest one, by pipeline; the fuller one counts.
    """
    return {
        name: max(older, newer, key=lambda rates: rates.judged).as_figures()
        for name, (older, newer) in recent.items()
    }
