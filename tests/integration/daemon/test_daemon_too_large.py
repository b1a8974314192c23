"""Messages larger than broker or box take: refused, told, and no line stands for it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from brokers import require_mosquitto, until
from clouds import Cloud
from daemons import Daemon, Line, line_to

from edge.mqtt.brokers import LocalBroker

TOPIC = "line/frame/{reference_id}/{part_id}/{frame_id}"
VERDICT_BYTES = 700
"""A verdict without defects fits, a record and a status do not."""


async def judged(line: Line, count: int, size: int = 300) -> list[str]:
    """Send small frames, which are no pictures, and wait for their verdicts."""
    names = []
    for _ in range(count):
        name = line.new_id()
        line.send(bytes(size), frame_id=name, topic=f"line/frame/none/p/{name}")
        await line.verdict(name)
        names.append(name)
    return names


def refusals(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """The first refusal of each topic that the daemon has told of."""
    found: dict[str, dict[str, Any]] = {}
    for event in daemon.events("mqtt-publish-refused"):
        found.setdefault(event["topic"], event)
    return found


def test_what_a_broker_announces_as_too_large_waits_until_it_takes_it(tmp_path: Path) -> None:
    require_mosquitto()
    overrides = ("status.interval_s=0.5", f"bindings.camera.top={TOPIC}")

    async def scenario() -> None:
        limit = f"max_packet_size {VERDICT_BYTES}"
        async with LocalBroker(kind="mosquitto", settings=[limit]) as small:
            with Daemon(small, tmp_path, overrides=overrides) as daemon:
                daemon.ready()
                async with line_to(small, taught=False, wait=False) as line:
                    await judged(line, 5)
                    told = ("edge/box1/status", "edge/box1/records")
                    await until(lambda: set(told) <= refusals(daemon).keys(), "both are told")
                    for topic in told:
                        said = refusals(daemon)[topic]
                        assert said["packet_bytes"] > VERDICT_BYTES
                        assert f"{VERDICT_BYTES} bytes at most" in said["reason"]
                        assert "max_packet_size" in said["remedy"]
                    assert not daemon.events("mqtt-disconnected")
                os.kill(daemon.pid, signal.SIGSTOP)  # that the cloud hears it from the beginning
                await small.stop()
                async with (
                    LocalBroker(kind="mosquitto", port=small.port) as large,
                    line_to(large, taught=False, wait=False) as line,
                ):
                    cloud = Cloud(line)
                    line.session.publish("behind/the/subscription", b"")
                    await until(lambda: line.session.unanswered == 0, "it is subscribed")
                    os.kill(daemon.pid, signal.SIGCONT)
                    await line.box_ready()
                    (last,) = await judged(line, 1)
                    await until(lambda: 6 in cloud.bodies, "all that was owed has come")
                    assert list(dict.fromkeys(cloud.order)) == [1, 2, 3, 4, 5, 6]
                    assert last in cloud.bodies[6].decode()
                    cloud.receipt(6, cloud.head(6))
                    status = await line.status(lambda s: s["ledger"].get("owed") == 0, "paid")
                    assert status["counters"]["records_refused"] >= 1
                    assert daemon.end() == 0

    asyncio.run(scenario())


def test_a_broker_that_hangs_up_on_what_is_too_large_ends_the_line_for_seconds_only(
    tmp_path: Path,
) -> None:
    require_mosquitto()
    overrides = (
        'broker.protocol="3.1.1"',
        "status.interval_s=0.2",
        "ledger.enabled=false",
        f"bindings.camera.top={TOPIC}",
    )

    async def scenario() -> None:
        limit = f"max_packet_size {VERDICT_BYTES}"
        async with LocalBroker(kind="mosquitto", settings=[limit]) as broker:
            with Daemon(broker, tmp_path, overrides=overrides) as daemon:
                await asyncio.to_thread(daemon.logged, "mqtt-publish-refused", deadline_s=60)
                said = refusals(daemon)["edge/box1/status"]
                assert "hung up each time" in said["reason"]
                assert "max_packet_size" in said["remedy"]
                await asyncio.to_thread(daemon.ready)
                async with line_to(broker, taught=False, wait=False) as line:
                    await judged(line, 1)  # until now it may have waited for the connection
                    before = len(daemon.events("mqtt-connected"))
                    assert await line.kept(await judged(line, 40))
                # And eight statuses, on one connection: it is over.
                await until(
                    lambda: daemon.events("mqtt-publish-refused")[-1]["count"] >= 8,
                    "further ones are refused by us",
                )
                assert len(daemon.events("mqtt-connected")) == before

    asyncio.run(scenario())


def test_a_frame_larger_than_the_box_takes_ends_no_connection_and_its_neighbours_are_judged(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    overrides = (
        "status.interval_s=0.3",
        "broker.max_packet_bytes=20000",
        'broker.protocol="3.1.1"',  # in 5 the broker is told, and keeps it back
        f"bindings.camera.top={TOPIC}",
    )

    async def scenario() -> None:
        with Daemon(mosquitto, tmp_path, overrides=overrides) as daemon:
            async with line_to(mosquitto, taught=False) as line:
                large = line.new_id()
                line.send(bytes(50_000), frame_id=large, topic=f"line/frame/none/p/{large}")
                await judged(line, 3, 15_000)
                assert not line.judgements(large), "nobody has read it"
                await line.status(lambda s: s["mqtt"]["too_large"] == 1, "it is counted")
                (dropped,) = daemon.events("mqtt-dropped")
                assert dropped["topic"] == f"line/frame/none/p/{large}"
                assert not daemon.events("mqtt-disconnected")

    asyncio.run(scenario())
