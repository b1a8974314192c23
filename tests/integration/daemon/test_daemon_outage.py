"""The broker is gone for long, and comes back with nothing of what it knew."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

from brokers import connected, require_mosquitto, until
from clouds import Cloud
from daemons import Daemon, Line, line_to

from edge.ledger import reading
from edge.ledger.outbox import RETRY_S
from edge.linesim import Board
from edge.mqtt.brokers import LocalBroker

OVERRIDES = ("status.interval_s=0.5",)
ATTEMPTS = 4
"""Of the line's own, to which the outage lasts: some two seconds, since each waits longer."""


async def lost_for_long(broker: LocalBroker, line: Line, attempts: int) -> None:
    """Have the broker away, and all that it had saved."""
    for saved in broker.folder.glob("mosquitto.db*"):
        saved.unlink()
    failed = line.session.counters["connect_failures"]
    await until(
        lambda: line.session.counters["connect_failures"] >= failed + attempts, "an outage", 600
    )
    assert not list(broker.folder.glob("mosquitto.db*"))


def recorded(state: Path) -> int:
    """How many verdicts the ledger holds."""
    path = reading.find(state)
    assert path is not None
    with reading.opened(path) as ledger:
        return sum(1 for _ in ledger.rows())


async def answered(line: Line, frames: dict[str, int]) -> None:
    """Ask again for the frames that have no verdict, as a camera that misses one does.

    What the broker had taken and not handed on is gone with it; but each frame has one verdict, be
    it asked for again or not.
    """
    silent = [name for name in frames if not line.judgements(name)]
    for name in silent:
        line.inspect(frames[name], frame_id=name)
    await line.all_verdicts(list(frames))
    assert {line.judgements(name) for name in frames} == {1}


async def paid(line: Line, cloud: Cloud, count: int) -> None:
    """Wait for all records, and receipt them."""
    await until(lambda: count in cloud.bodies, f"{count} records have come")
    cloud.receipt(count, cloud.head(count))
    await line.status(lambda s: s["ledger"].get("owed") == 0, "nothing is owed")


async def started_anew(daemon: Daemon, line: Line) -> None:
    """The next daemon has references from nobody, until they are published again."""
    assert await asyncio.to_thread(daemon.end) == 0
    line.statuses.clear()
    daemon.start()
    await line.box_ready()
    missing = await line.verdict(line.inspect(1))
    assert (missing["verdict"], missing["reason"]) == ("review", "no-reference")
    line.teach(Board(3))
    await line.status(lambda s: s["references"]["reference.top"]["images"] == 1, "it is there")
    assert (await line.verdict(line.inspect(2)))["reason"] == "ok"


async def through_an_outage(folder: Path, attempts: int) -> None:
    """Kill the broker under a running line, have it away for so long, and bring it back empty."""
    async with LocalBroker(kind="mosquitto", persist=True) as broker:
        with Daemon(broker, folder, overrides=OVERRIDES) as daemon:
            async with line_to(broker, session_expiry_s=600) as line:
                cloud = Cloud(line)
                await line.all_verdicts([line.inspect(part) for part in range(4)])
                await paid(line, cloud, 4)

                frames = {line.inspect(part): part for part in range(6)}
                await until(lambda: line.session.counters["published"] >= 8, "some have left")
                await broker.kill()
                await lost_for_long(broker, line, attempts)
                assert daemon.alive
                assert len(daemon.events("mqtt-unreachable")) <= 3, "not each attempt is told"
                frames |= {line.inspect(part): part for part in (6, 7)}  # the camera goes on

                # Stopped, that cloud and gate are there before it: an empty broker keeps for
                # nobody what it was sent.
                os.kill(daemon.pid, signal.SIGSTOP)
                await broker.start()
                await until(lambda: line.session.connected, "the line is connected")
                line.statuses.clear()
                before, began = len(cloud.order), time.monotonic()
                os.kill(daemon.pid, signal.SIGCONT)
                await line.box_ready()
                async with connected(broker, "late", "edge/box1/status") as late:
                    kept = await late.next()
                    assert (kept.retain, b'"state":"online"' in kept.payload) == (True, True)

                await answered(line, frames)
                # The box holds the reference; the broker has it no more.
                assert (await line.verdict(line.inspect(0)))["reason"] == "ok"
                count = 4 + len(frames) + 1
                await paid(line, cloud, count)
                # Those that were on the way to the broker come first; then all, once, in order.
                after = cloud.order[before:]
                last = sorted(set(after), key=after[::-1].index, reverse=True)
                assert last == sorted(last)
                # Twice, and again by the timer on a machine on which this takes so long.
                again = int((time.monotonic() - began) / RETRY_S)
                assert max(Counter(after).values()) <= 2 + again
                assert recorded(folder / "state") == count
                await started_anew(daemon, line)


def test_after_an_outage_a_broker_that_knows_nothing_gets_it_all_again(tmp_path: Path) -> None:
    require_mosquitto()
    asyncio.run(through_an_outage(tmp_path, ATTEMPTS))
