"""One simulated device: session, reports, looks, store and journal of a real one; no workers."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from edge.config import BrokerSection, UpdateSection
from edge.deployment import asking, report
from edge.deployment.fetch_messages import Fetched, Outcome, Refused, Request
from edge.deployment.installed import Installed
from edge.deployment.rollout import Deployed, Event, State
from edge.fleet.simulation.scenario import Scenario
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session

_GOODBYE_S: Final = 5.0


class Look(NamedTuple):
    """One look for an update: when it began, in monotonic seconds, and what it found."""

    at_s: float
    found: Outcome


class SimulatedDevice:
    """One device.

    Args:
        name: Its id.
        folder: Of its deployments: a copy of those of a device that took the first release.
        updates: Where it looks.
        broker: Where it reports.
        scenario: The terms.
        look: Runs a request, as the fetch process does.
        is_bad: Says of a revision whether it may fail on probation.

    Attributes:
        looks: In their order.
        installed: Its store and journal.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        updates: UpdateSection,
        broker: BrokerSection,
        scenario: Scenario,
        look: Callable[[Request], Awaitable[Outcome]],
        is_bad: Callable[[int], bool],
    ) -> None:
        self.name = name
        self.looks: list[Look] = []
        self.installed = Installed(folder, updates.store_bytes, time.time_ns)
        self._updates = updates
        self._scenario = scenario
        self._look = look
        self._is_bad = is_bad
        self._chance = random.Random(f"{scenario.seed}/{name}")  # noqa: S311 - no secret
        self._wanted = asyncio.Event()
        self._looked_at_ns = 0
        self._trouble = ""
        self.session = Session(broker, f"edge-{name}", on_connected=self._say)
        self.session.subscribe(report.DESIRED.format(device=name), 1, self._hinted)

    async def run(self) -> None:
        """Connect, report, look for updates and take them; until cancelled."""
        connection = asyncio.create_task(self.session.run(), name=f"{self.name}-session")
        try:
            # It was switched on at some time: its polls fall anywhere.
            pause_s = self._chance.uniform(0, self._scenario.poll_s)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wanted.wait()
                self._wanted.clear()
                began = time.monotonic()
                await self._look_once()
                await asyncio.sleep(max(0.0, began + asking.LEAST_PAUSE_S - time.monotonic()))
                pause_s = asking.pause_s(self._scenario.poll_s, self._chance)
        finally:
            await self.session.close(_GOODBYE_S)
            connection.cancel()
            await asyncio.wait((connection,))

    @property
    def state(self) -> State:
        """Where its journal stands."""
        return self.installed.journal.state

    def has(self, revision: int) -> bool:
        """Whether it runs this revision."""
        active = self.installed.journal.active
        return active is not None and active.revision == revision

    def ran(self, revision: int) -> bool:
        """Whether this revision was ever active on it."""
        return any(
            step.event is Event.AGREED and step.deployment.revision == revision
            for step in self.installed.journal.history
        )

    def took_up(self, revision: int) -> bool:
        """Whether it ever fetched this revision."""
        return any(step.deployment.revision == revision for step in self.installed.journal.history)

    async def _look_once(self) -> None:
        installed = self.installed
        request = asking.request_of(self._updates, self.name, installed.folder, installed.journal)
        began = time.monotonic()
        found = await self._look(request)
        self.looks.append(Look(began, found))
        self._looked_at_ns = time.time_ns()
        self._trouble = f"{found.error}: {found.detail}" if isinstance(found, Refused) else ""
        if isinstance(found, Fetched):
            await self._take(Deployed(found.name, found.revision, found.manifest))
        self._say()

    async def _take(self, offered: Deployed) -> None:
        """Go through a rollout; its files are read as a trial reads them, its frames are not."""
        await self._advance(Event.OFFERED, offered=offered)
        await self._advance(Event.BEGAN)
        await asyncio.to_thread(self.installed.load, offered)
        for event in (Event.PROVED, Event.AGREED):
            await self._stage()
            await self._advance(event)
        await self._stage()
        if self._is_bad(offered.revision) and self._chance.random() < self._scenario.bad_share:
            await self._advance(Event.FAILED, reason="reject-rate")
        else:
            await self._advance(Event.HELD)

    async def _stage(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self._scenario.stage_s)

    async def _advance(
        self, event: Event, *, offered: Deployed | None = None, reason: str = ""
    ) -> None:
        detail = "simulated" if event not in (Event.OFFERED, Event.BEGAN) else ""
        await asyncio.to_thread(
            self.installed.advance, event, offered=offered, reason=reason, detail=detail
        )
        self._say()

    def _say(self) -> None:
        said = report.report_of(
            self.installed.journal,
            self.name,
            self._updates.group,
            time.time_ns(),
            self._looked_at_ns,
            self._trouble,
        )
        topic = report.TOPIC.format(device=self.name)
        self.session.publish(topic, report.encode(said), retain=True)

    def _hinted(self, message: Incoming) -> None:
        self.session.acknowledge(message)
        self._wanted.set()
