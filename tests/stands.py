"""A whole stand of real processes to break: broker, daemon with its worker, collector, and a line.

What holds at the end, whatever was killed between:

1. The device's ledger is sound, and holds every record that anybody has heard of.
2. The collector holds the same records, byte for byte, and nothing is owed any more.
3. Where one place was heard twice, it was the same record.
4. No chain was found broken, forked or with a gap.
5. While the broker lived, every frame that it took has its record.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from brokers import until
from daemons import DEPLOYMENT, Daemon, Line, line_to
from fleets import CollectorProcess

from edge.fleet.database import Database
from edge.fleet.store import Store
from edge.ledger import reading
from edge.ledger.proving import audited
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

Victim = Literal["supervisor", "worker", "collector", "broker"]
VICTIMS: Final[tuple[Victim, ...]] = ("supervisor", "worker", "collector", "broker")
BACK_S: Final = 90.0
"""For what was killed to come back, on a machine that does other things too."""
QUIET_S: Final = 120.0


class Findings(msgspec.Struct):
    """What a check found. All but `records` must be empty or 0.

    Attributes:
        records: In the device's ledger.
        lost: Heard of, and not in the ledger.
        undelivered: In the ledger, and not with the collector.
        differing: Places for which two different records were heard or are held.
        broken: Why the ledger's chain, or the collector's alarms, say that something is wrong.
        unrecorded: Frames that a living broker took, and that have no record.
    """

    records: int = 0
    lost: int = 0
    undelivered: int = 0
    differing: int = 0
    broken: str = ""
    unrecorded: int = 0

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        bad = self.lost + self.undelivered + self.differing + self.unrecorded
        return not bad and not self.broken


class Stand:
    """See `standing`."""

    def __init__(
        self, broker: LocalBroker, daemon: Daemon, collector: CollectorProcess, line: Line
    ) -> None:
        self.broker = broker
        self.daemon = daemon
        self.collector = collector
        self.line = line
        self.kills: dict[str, int] = dict.fromkeys(VICTIMS, 0)
        self._heard: dict[int, set[bytes]] = {}
        self._sent: list[str] = []
        self._broker_was_killed = False
        self._ready = 1
        self._collector_ready = 1
        line.session.subscribe("edge/box1/records", 1, self._record)

    def _record(self, message: Incoming) -> None:
        seq = msgspec.json.decode(message.payload, type=_Place).seq
        self._heard.setdefault(seq, set()).add(message.payload)
        self.line.session.acknowledge(message)

    async def feed(self, interval_s: float = 0.1) -> None:
        """Send parts until cancelled."""
        while True:
            if self.line.session.connected:
                self._sent.append(self.line.inspect(len(self._sent) % 8))
            await asyncio.sleep(interval_s)  # the line's own pace

    async def kill(self, victim: Victim) -> None:
        """Kill -9, start it again where nobody else does, and wait until it works."""
        self.kills[victim] += 1
        match victim:
            case "supervisor":
                self.daemon.kill()
                self.daemon.start()
                self._ready += 1
                await asyncio.to_thread(
                    self.daemon.logged, "ready", times=self._ready, deadline_s=BACK_S
                )
            case "worker":
                lost = self.daemon.children()
                for pid in lost:
                    os.kill(pid, signal.SIGKILL)
                await until(
                    lambda: bool(set(self.daemon.children()) - set(lost)), "a worker", BACK_S
                )
            case "collector":
                self.collector.kill()
                self.collector.start()
                self._collector_ready += 1
                await asyncio.to_thread(
                    self.collector.logged,
                    "ready",
                    times=self._collector_ready,
                    deadline_s=BACK_S,
                )
            case "broker":
                self._broker_was_killed = True
                await self.broker.kill()
                await self.broker.start()
                await until(lambda: self.line.session.connected, "the line is back", BACK_S)

    async def quiet(self) -> None:
        """Wait until the cloud holds all that is committed."""
        await until(lambda: self.line.session.unanswered == 0, "all frames are out", QUIET_S)
        # Frames that are still with the broker, or came again, are answered and recorded first.
        ledgers: list[dict[str, Any]] = []

        def settled() -> bool:
            if not self.line.statuses:
                return False
            status = {"ledger": None, **self.line.statuses[-1]}
            if status["ledger"]:  # a last will, which may be the latest for a moment, has none
                ledgers[:] = [status["ledger"]]
            last = ledgers[0] if ledgers else {"owed": 1, "waiting": 1}
            return not last["owed"] and not last["waiting"] and self._all_recorded(last)

        await until(settled, "nothing is owed", QUIET_S)

    def _all_recorded(self, ledger: dict[str, Any]) -> bool:
        return self._broker_was_killed or ledger["committed"] >= len(self._sent)

    def check(self) -> Findings:
        """Compare what was heard, what the device has, and what the collector holds."""
        found = Findings()
        path = reading.find(self.daemon.log_file.parent / "state")
        assert path is not None
        with reading.opened(path) as ledger:
            report, _ = audited(ledger)
            if report.finding is not None:
                found.broken = report.finding.detail
            rows = {row.seq: (row.body, row.frame_id) for row in ledger.rows()}
            name = ledger.origin.ledger
        found.records = len(rows)
        recorded = {frame_id for _, frame_id in rows.values()}
        if not self._broker_was_killed:
            found.unrecorded = len(set(self._sent) - recorded)
        for seq, bodies in self._heard.items():
            found.differing += len(bodies) > 1
            found.lost += seq not in rows
            found.differing += seq in rows and rows[seq][0] not in bodies
        store = Store(Database(self.collector.url))
        held = dict(store.bodies("box1", name, 0, 1 << 30))
        kinds = {alarm.kind.value for alarm in store.alarms()} - {"offline", "silent"}
        store.close()
        found.undelivered = len(rows.keys() - held.keys())
        found.differing += sum(held[seq] != rows[seq][0] for seq in held.keys() & rows.keys())
        if kinds:
            found.broken = f"{found.broken} alarms: {sorted(kinds)}".strip()
        return found


class _Place(msgspec.Struct):
    seq: int


@asynccontextmanager
async def standing(
    folder: Path, *, overrides: tuple[str, ...] = (), deployment: Path = DEPLOYMENT
) -> AsyncIterator[Stand]:
    """A stand whose processes are all ready."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(LocalBroker(kind="mosquitto", persist=True))
        collector = stack.enter_context(CollectorProcess(broker, folder))
        daemon = stack.enter_context(
            Daemon(
                broker,
                folder,
                deployment=deployment,
                overrides=("status.interval_s=0.5", *overrides),
            )
        )
        await asyncio.to_thread(daemon.logged, "ready", deadline_s=BACK_S)
        await asyncio.to_thread(collector.logged, "ready", deadline_s=BACK_S)
        line = await stack.enter_async_context(
            line_to(broker, session_expiry_s=3_600, max_outgoing=10_000)
        )
        yield Stand(broker, daemon, collector, line)


async def break_and_check(
    stand: Stand, chance: random.Random, victims: list[Victim], calm_s: float = 1.0
) -> Findings:
    """Feed the line, kill one after the other at random times, and check when all is quiet."""
    feeding = asyncio.create_task(stand.feed(), name="line")
    try:
        for victim in victims:
            await asyncio.sleep(chance.uniform(0.0, calm_s))  # a random instant is the point
            await stand.kill(victim)
    finally:
        feeding.cancel()
        await asyncio.wait((feeding,))
    if not feeding.cancelled() and (failed := feeding.exception()):
        raise failed
    await stand.quiet()
    return await asyncio.to_thread(stand.check)
