"""What a device says of its deployments: the retained message `edge/{device}/deployment/reported`.

Written by the device's agent, read by the publisher. Readers ignore keys that they do not know.
"""

from typing import Any, Final

import msgspec

from edge.deployment.rollout import Deployed, Event, Journal
from edge.errors import DeploymentError

TOPIC: Final = "edge/{device}/deployment/reported"
DESIRED: Final = "edge/{device}/deployment/desired"
"""A retained hint to look for an update; what it says is not read."""
MAX_BYTES: Final = 16 << 10


class Outcome(msgspec.Struct, frozen=True):
    """How the newest rollout on the device ended.

    Attributes:
        event: `held`, `failed` or `withdrawn` (`rollout.Event`); a newer device may say another.
        reason: A stable code where it failed.
    """

    event: str
    deployment: Deployed
    at_ns: int
    reason: str = ""
    detail: str = ""
    evidence: dict[str, Any] = {}


class Report(msgspec.Struct, frozen=True):
    """The message.

    Attributes:
        group: Of the repository; empty where the device takes no updates.
        state: One of `rollout.State`; a newer device may say another, which counts as under way.
        looked_at_ns: When the repository was last read whole; 0: not yet.
        trouble: Why the last look failed; empty where it did not.
        barred: Revisions that this device does not try again.
        time_ns: UTC, when it was said.
    """

    device: str
    group: str
    state: str
    time_ns: int
    active: Deployed | None = None
    previous: Deployed | None = None
    candidate: Deployed | None = None
    outcome: Outcome | None = None
    pinned: bool = False
    barred: tuple[int, ...] = ()
    looked_at_ns: int = 0
    trouble: str = ""
    v: int = 1


_ENDINGS: Final = frozenset({Event.HELD, Event.FAILED, Event.WITHDRAWN})


def report_of(
    journal: Journal, device: str, group: str, time_ns: int, looked_at_ns: int, trouble: str
) -> Report:
    """Say what a journal comes to."""
    ended = next((step for step in reversed(journal.history) if step.event in _ENDINGS), None)
    barred = {
        step.deployment.revision
        for step in journal.history
        if step.deployment.digest in journal.barred
    }
    return Report(
        device=device,
        group=group,
        state=journal.state,
        time_ns=time_ns,
        active=journal.active,
        previous=journal.previous,
        candidate=journal.candidate,
        outcome=Outcome(
            ended.event, ended.deployment, ended.at_ns, ended.reason, ended.detail, ended.evidence
        )
        if ended
        else None,
        pinned=journal.pinned,
        barred=tuple(sorted(barred)),
        looked_at_ns=looked_at_ns,
        trouble=trouble,
    )


def encode(report: Report) -> bytes:
    """Write a report, no larger than its readers take.

    Figures that are too many stay on the device, where `edge deploy why` shows them.
    """
    payload = msgspec.json.encode(report)
    if len(payload) > MAX_BYTES and report.outcome is not None:
        bare = msgspec.structs.replace(report.outcome, evidence={})
        payload = msgspec.json.encode(msgspec.structs.replace(report, outcome=bare))
    return payload


def decode(payload: bytes, where: str) -> Report:
    """Read a report.

    Raises:
        DeploymentError: It is not one; `where` names it.
    """
    if len(payload) > MAX_BYTES:
        raise DeploymentError(f"{where}: a report of {len(payload)} bytes; at most {MAX_BYTES}")
    try:
        return msgspec.json.decode(payload, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise DeploymentError(f"{where}: is no report: {broken}") from broken
