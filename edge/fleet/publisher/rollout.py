"""A release widened ring by ring, while the devices say how they fare; halted when too many fail.

It needs the keys of group, snapshot and timestamp at hand, because each ring is a signed change. It
may be stopped at any time and started again: what was published stays, and nothing else is state.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import structlog

from edge.config import BrokerSection
from edge.deployment import report as reports
from edge.deployment.release import Release
from edge.deployment.report import Report
from edge.errors import DeploymentError, TransportError
from edge.fleet.publisher.releases import Fleet
from edge.fleet.publisher.rings import Counting, Tally
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session

log = structlog.get_logger("edge.fleet")

CONNECT_S: Final = 15.0
_GOODBYE_S: Final = 1.0
MAX_DEVICES: Final = 100_000


class Reports:
    """What the devices report, as it comes. All methods on the event loop's thread.

    Attributes:
        by_device: The newest report of each device.
        changed: Set when there is a new one; cleared by whoever waits.
    """

    def __init__(self, broker: BrokerSection) -> None:
        self.by_device: dict[str, Report] = {}
        self.changed = asyncio.Event()
        self._fresh: set[str] = set()
        self._connected = asyncio.Event()
        # A client of its own, forgotten by the broker when it goes: what that kept for an earlier
        # one are reports of then, and a pid is the same in every container.
        self._session = Session(
            broker.model_copy(update={"session_expiry_s": 0}),
            f"edge-publisher-{os.urandom(4).hex()}",
            on_connected=self._connected.set,
        )
        self._session.subscribe(reports.TOPIC.format(device="+"), 1, self._take)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen while the block lasts.

        Raises:
            TransportError: The broker cannot be reached.
        """
        running = asyncio.create_task(self._session.run(), name="session")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await self._connected.wait()
            if not self._connected.is_set():
                raise TransportError(
                    f"the fleet's broker gave no answer in {CONNECT_S:g} s: "
                    f"{self._session.last_error} (broker in fleet.toml)"
                )
            if refused := self._session.refused_filters:
                what = ", ".join(f"{name}: {why}" for name, why in refused.items())
                raise TransportError(
                    f"the fleet's broker does not let the publisher hear its devices: {what} "
                    "(grant it in the broker's access list)"
                )
            yield
            await self._session.close(_GOODBYE_S)
        finally:
            running.cancel()
            await asyncio.wait([running])

    def hint(self, group: str) -> int:
        """Tell the devices of a group to look now; return how many."""
        told = [each.device for each in self.by_device.values() if each.group == group]
        for device in told:
            self._session.publish(
                reports.DESIRED.format(device=device),
                str(time.time_ns()).encode(),
                retain=True,
            )
        return len(told)

    def hears(self, group: str) -> bool:
        """Whether any device of a group has reported."""
        return any(each.group == group for each in self.by_device.values())

    async def news(self, within_s: float) -> set[str]:
        """Return which devices have reported since the last call; waits for one, or the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.changed.wait()
        self.changed.clear()
        fresh, self._fresh = self._fresh, set()
        return fresh

    def _take(self, message: Incoming) -> None:
        device = message.topic.split("/")[1]
        try:
            found = reports.decode(message.payload, message.topic)
            if found.device != device:
                raise DeploymentError(f"{message.topic}: speaks of device {found.device!r}")
            if device in self.by_device or len(self.by_device) < MAX_DEVICES:
                self.by_device[device] = found
                self._fresh.add(device)
                self.changed.set()
        except DeploymentError as wrong:
            if message.payload:  # an empty one takes a retained report away
                log.warning("report_refused", detail=str(wrong))
        self._session.acknowledge(message)


class End(StrEnum):
    """How a rollout ended."""

    REACHED = "reached"
    HALTED = "halted"
    TIMED_OUT = "timed out"


class Ring(NamedTuple):
    """Where a rollout stands."""

    release: Release
    tally: Tally


async def widen(
    fleet: Fleet,
    heard: Reports,
    group: str,
    revision: int,
    percents: Sequence[float],
    ring_s: float,
    say: Callable[[Ring], None],
) -> End:
    """Offer a release to more and more of its group.

    Each ring is waited for until every device in it has committed the release or given it up. A
    ring in which no device is goes by at once; but where not one device of the group is heard,
    nothing can be known of the ring, and it is waited for until its time is up. A release is never
    narrowed: what was offered to half of the group goes on from there. One that was halted before
    is resumed; one that somebody halts meanwhile stays halted.

    Args:
        fleet: With the keys at hand.
        heard: What the devices report; listening.
        group: The group.
        revision: Of the release.
        percents: Shares, each above the one before.
        ring_s: How long a ring may take; devices that are away hold it up for no longer.
        say: Takes each change.

    Raises:
        DeploymentError: There is no such release, or a key is not at hand.
    """
    begun = False
    for percent in percents:
        with fleet.alone():  # who halts it in this moment comes before or after
            offered = fleet.find(group, revision)
            if offered.halted and begun:
                return End.HALTED
            if percent < offered.percent and percent != percents[-1]:
                continue  # it was widened so far before
            begun = True
            release = fleet.change(
                group, revision, percent=max(percent, offered.percent), halted=False
            )
        heard.hint(group)
        end = time.monotonic() + ring_s
        counting = Counting(group, release, heard.by_device.values())
        last: Tally | None = None
        while True:
            found = counting.tally
            if found != last:
                last = found
                say(Ring(release, found))
            if found.too_many_failed(fleet.settings.max_failed_percent):
                fleet.change(group, revision, halted=True)
                return End.HALTED
            if found.done or (found.included == 0 and heard.hears(group)):
                break
            if fleet.find(group, revision).halted:  # by an operator, elsewhere
                return End.HALTED
            left_s = end - time.monotonic()
            if left_s <= 0:
                return End.TIMED_OUT
            for device in await heard.news(left_s):
                counting.take(heard.by_device[device])
    return End.REACHED
