"""Actions: what a policy asks for, held to what the deployment grants.

A wish beyond its grant is refused, counted and logged; it never delays a verdict.
"""

from collections import deque
from typing import Final

import msgspec

from edge.contracts.messages import ActionWish
from edge.contracts.plan import ActionGrant

_MINUTE_NS: Final = 60_000_000_000


class Action(msgspec.Struct, frozen=True):
    """An action as it is published.

    Attributes:
        action: Logical name.
        ttl_ms: How long it holds; the receiver reverts it then by itself. 0: an instant.
    """

    device: str
    pipeline: str
    frame_id: str
    part_id: str
    action: str
    value: float
    ttl_ms: int
    v: int = 1


class Grant:
    """One granted action with its rate so far: at most N in any 60 seconds."""

    def __init__(self, grant: ActionGrant) -> None:
        self.name = grant.name
        self._max_per_minute = grant.max_per_minute
        self._max_ttl_ms = grant.max_ttl_ms
        self._done_ns: deque[int] = deque()

    def admit(self, wish: ActionWish, now_ns: int) -> int | None:
        """Return the wish's time to live, ms, cut to the grant; None: the rate is used up."""
        while self._done_ns and now_ns - self._done_ns[0] >= _MINUTE_NS:
            self._done_ns.popleft()
        if len(self._done_ns) >= self._max_per_minute:
            return None
        self._done_ns.append(now_ns)
        return min(wish.ttl_ms, self._max_ttl_ms)
