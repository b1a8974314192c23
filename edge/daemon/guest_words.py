"""What guests have to say beside their results: log lines, within their grant, and lost states."""

import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import structlog

from edge.contracts.messages import GuestLine, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.daemon.rate import Rate
from edge.daemon.throttle import Throttle
from edge.observability.counters import Counters

log = structlog.get_logger("edge.guest")


class GuestWords:
    """The words of one pipeline's guests.

    Args:
        plan: Its grants.
        counters: The daemon's.
        now_ns: The monotonic clock.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        counters: Counters,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._pipeline = plan.name
        self._counters = counters
        self._now_ns = now_ns
        self._throttle = Throttle(now_ns)
        self._refused = ""
        self._guests = {
            stage: (PurePath(guest.path).name, Rate(guest.log_lines_per_minute))
            for stage, guest in plan.guests
        }

    def take(self, lines: tuple[GuestLine, ...], state_refused: str) -> None:
        """Log what is granted; count and name what is not."""
        for line in lines:
            guest, rate = self._guests[line.role]
            if rate.admit(self._now_ns()):
                self._counters.count("guest_lines", pipeline=self._pipeline, role=line.role)
                log.info(
                    "guest_log",
                    pipeline=self._pipeline,
                    role=line.role,
                    guest=guest,
                    text=line.text,
                )
            else:
                self._deny(line.role, guest)
        if state_refused:
            self._refused = state_refused
            self._counters.count("policy_states_refused", pipeline=self._pipeline)
            log.warning(
                "policy_state_refused",
                pipeline=self._pipeline,
                detail=f"{state_refused}: the policy started empty",
            )

    def status(self, policy: PolicyState) -> dict[str, Any]:
        """What the status says of the policy: how far it has come, and what it could not read."""
        return {
            "frames": policy.frame_index,
            "state_bytes": len(policy.blob),
            "state_refused": self._refused,
        }

    def _deny(self, role: str, guest: str) -> None:
        self._counters.count("guest_lines_denied", pipeline=self._pipeline, role=role)
        unsaid = self._throttle.admit(role)
        if unsaid is not None:
            log.warning(
                "guest_line_denied",
                pipeline=self._pipeline,
                role=role,
                guest=guest,
                detail="more than log_lines_per_minute of "
                f"pipelines.{self._pipeline}.{role.replace('_', '.')}",
                not_logged=unsaid,
            )
