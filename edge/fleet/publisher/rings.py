"""How a release fares: what the devices of its group report, counted, and what follows from it.

Rules without I/O or clock. A device counts once it is inside the release's share of the group; it
is *on* the release when it has committed it, *failed* when it gave it up, *under way* in between,
and *waiting* while it has not begun.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from edge.deployment.release import Release, position
from edge.deployment.report import Report
from edge.deployment.rollout import Event, State


class Fate(StrEnum):
    """What became of a release on one device."""

    ON = "on"
    UNDER_WAY = "under way"
    FAILED = "failed"
    WAITING = "waiting"
    OUTSIDE = "outside"
    """Beyond its share, or pinned to what it runs: it will not come there."""


class Tally(NamedTuple):
    """Devices of a group by what became of a release on them."""

    on: int
    under_way: int
    failed: int
    waiting: int
    outside: int

    @property
    def included(self) -> int:
        """Devices that the release is for."""
        return self.on + self.under_way + self.failed + self.waiting

    @property
    def done(self) -> bool:
        """Whether each device that the release is for has it or has given it up."""
        return self.included > 0 and self.under_way == self.waiting == 0

    def too_many_failed(self, max_percent: float) -> bool:
        """Whether more devices gave it up than may, of those it is for."""
        return self.failed > 0 and self.failed * 100 > max_percent * self.included


def fate(report: Report, release: Release) -> Fate:
    """What became of a release on the device that reports."""
    candidate, active, outcome = report.candidate, report.active, report.outcome
    if candidate is not None and candidate.digest == release.manifest:
        return Fate.UNDER_WAY
    if active is not None and active.digest == release.manifest and report.state == State.IDLE:
        return Fate.ON
    if (
        outcome is not None
        and outcome.event == Event.FAILED
        and outcome.deployment.digest == release.manifest
    ) or release.revision in report.barred:
        return Fate.FAILED
    if report.pinned or (active is not None and active.revision > release.revision):
        return Fate.OUTSIDE
    return Fate.WAITING if position(report.group, report.device) < release.percent else Fate.OUTSIDE


class Counting:
    """The devices of a group counted while they report: a report costs the same in a large fleet.

    Args:
        group: The group.
        release: Whose fate is counted.
        reports: The newest of each device so far, of any group.
    """

    def __init__(self, group: str, release: Release, reports: Iterable[Report]) -> None:
        self._group = group
        self._release = release
        self._fates: dict[str, Fate] = {}
        self._counts = dict.fromkeys(Fate, 0)
        for each in reports:
            self.take(each)

    def take(self, report: Report) -> None:
        """Take a device's newest report in the place of the one before."""
        before = self._fates.pop(report.device, None)
        if before is not None:
            self._counts[before] -= 1
        if report.group == self._group:
            now = self._fates[report.device] = fate(report, self._release)
            self._counts[now] += 1

    @property
    def tally(self) -> Tally:
        """How many there are of each fate."""
        return Tally(*self._counts.values())


def tally(reports: Iterable[Report], group: str, release: Release) -> Tally:
    """Count the devices of a group, by the newest report of each."""
    return Counting(group, release, reports).tally
