"""Actions: what a policy asks for, held to what the deployment grants.

A wish beyond its grant is refused, counted and logged; it never delays a verdict.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from edge.config import BindingsSection
from edge.contracts.messages import ActionWish
from edge.contracts.plan import ActionGrant, PipelinePlan
from edge.daemon.intake import Frame
from edge.daemon.leases import Lease, Leases, Publish
from edge.daemon.rate import Rate
from edge.mqtt.session import Session
from edge.observability.counters import Counters

_NS_PER_MS: Final = 1_000_000


class Action(msgspec.Struct, frozen=True):
    """An action as it is published.

    Attributes:
        action: Logical name.
        ttl_ms: How long it holds. Where the grant names a value to revert to, the daemon publishes
            that then; otherwise the receiver reverts it by itself. 0: an instant, or a revert.
        cause: `wish` of the policy; a revert because of `ttl`, `stop` of the daemon, or `restart`.
    """

    device: str
    pipeline: str
    frame_id: str
    part_id: str
    action: str
    value: float
    ttl_ms: int
    v: int = 1
    cause: str = "wish"


class Grant:
    """One granted action with its rate so far: at most N in any 60 seconds.

    Args:
        grant: The grant.
        other: Another deployment's grant of the same action, which counts it, too.
    """

    def __init__(self, grant: ActionGrant, other: "Grant | None" = None) -> None:
        self.name = grant.name
        self.revert = grant.revert
        self._other = other
        self._rate = Rate(grant.max_per_minute)
        self._max_ttl_ms = grant.max_ttl_ms

    def admit(self, wish: ActionWish, now_ns: int) -> int | None:
        """Return the wish's time to live, ms, cut to the grant; None: the rate is used up."""
        if not self._rate.admit(now_ns):
            return None
        if self._other is not None and self._other.admit(wish, now_ns) is None:
            return None
        return min(wish.ttl_ms, self._max_ttl_ms)


class Actions:
    """What one pipeline may cause.

    Args:
        plan: Its grants.
        device: The device's id.
        bindings: Where actions go.
        session: The broker's session.
        leases: Turns off what is turned on; shared by all pipelines.
        counters: The daemon's.
        complain: Logs, throttled: event, frame, sentence.
        beside: Of who judges other frames of this pipeline; what they both may cause, they may
            cause together no more often than that one alone.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        device: str,
        bindings: BindingsSection,
        session: Session,
        leases: Leases,
        counters: Counters,
        complain: Callable[[str, Frame, str], None],
        beside: "Actions | None" = None,
    ) -> None:
        self._pipeline = plan.name
        self._device = device
        self._bindings = bindings
        self._session = session
        self._leases = leases
        self._counters = counters
        self._complain = complain
        others = {grant.name: grant for grant in beside.grants} if beside else {}
        self.grants: tuple[Grant, ...] = tuple(
            Grant(grant, others.get(grant.name)) for grant in plan.actions
        )

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        """Publish the wishes that are within their grants."""
        for wish in wishes:
            grant = self.grants[wish.index]
            ttl_ms = grant.admit(wish, time.monotonic_ns())
            binding = self._bindings.find(grant.name)
            if ttl_ms is None or binding is None:
                self._counters.count("actions_denied", action=grant.name)
                detail = f"{grant.name}: more often than max_per_minute of its grant"
                self._complain("action_denied", frame, detail)
                continue
            self._counters.count("actions_sent", action=grant.name)
            action = Action(
                self._device,
                self._pipeline,
                frame.frame_id,
                frame.part_id,
                grant.name,
                wish.value,
                ttl_ms,
            )
            self._send(action, binding.topic, binding.qos, grant.revert)

    def _send(self, action: Action, topic: str, qos: int, revert: float | None) -> None:
        def send() -> None:
            self._session.publish(topic, msgspec.json.encode(action), qos=qos)

        if revert is None:
            send()
            return
        lease = Lease(
            action=action.action,
            topic=topic,
            pipeline=action.pipeline,
            frame_id=action.frame_id,
            part_id=action.part_id,
            revert=revert,
            ttl_ms=action.ttl_ms,
            until_ns=time.time_ns() + action.ttl_ms * _NS_PER_MS,
        )
        self._leases.hold(lease, send)


def reverting(session: Session, device: str) -> Publish:
    """Return how leases publish their reverts: at QoS 1, whatever the binding says."""

    def publish(lease: Lease, cause: str, done: Callable[[bool], None]) -> bool:
        action = Action(
            device,
            lease.pipeline,
            lease.frame_id,
            lease.part_id,
            lease.action,
            lease.revert,
            0,
            cause=cause,
        )
        return session.publish(lease.topic, msgspec.json.encode(action), on_done=done)

    return publish
