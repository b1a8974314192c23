"""The broker goes, stays away, comes back, speaks an older MQTT: the frames keep their verdicts."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from brokers import require_mosquitto, until
from daemons import Daemon, Line, line_to, part_jpeg

from edge.mqtt.brokers import LocalBroker

QUICK = ("status.interval_s=0.5",)


def test_a_box_that_starts_before_its_broker_is_ready_when_that_comes(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            await broker.stop()
            with Daemon(broker, tmp_path, overrides=QUICK) as daemon:
                await asyncio.to_thread(daemon.logged, "pipeline_ready")
                await asyncio.to_thread(daemon.logged, "mqtt-unreachable")
                assert not daemon.events("ready")
                await broker.start()
                async with line_to(broker) as line:
                    assert await line.kept([line.inspect(0)]) == {"ok": 1}

    asyncio.run(scenario())


def test_no_frame_loses_its_verdict_or_gets_two_when_the_broker_restarts(tmp_path: Path) -> None:
    require_mosquitto()

    async def restart(broker: LocalBroker) -> None:
        await broker.stop()
        await broker.start()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto", persist=True) as broker:
            with Daemon(broker, tmp_path, overrides=QUICK) as daemon:
                # The line's session is kept as well: verdicts for it wait in the broker.
                async with line_to(broker, session_expiry_s=600) as line:
                    restarts: list[asyncio.Task[None]] = []

                    def during(number: int) -> None:
                        if number in (15, 45):
                            restarts.append(asyncio.create_task(restart(broker)))

                    names = await line.play(80, interval_s=0.03, during=during)
                    await asyncio.gather(*restarts)
                    await line.all_verdicts(names)
                    assert all(line.judgements(name) == 1 for name in names)
                    # Those that waited for the broker are old, and nothing else is wrong.
                    assert set(line.reasons(names)) <= {"ok", "stale", "overload", "overrun"}
                    assert await line.kept([line.inspect(0)]) == {"ok": 1}
                    assert len(daemon.events("mqtt-connected")) >= 3

    asyncio.run(scenario())


def test_a_broker_that_is_killed_costs_no_frame_a_second_verdict(tmp_path: Path) -> None:
    require_mosquitto()

    async def kill(broker: LocalBroker) -> None:
        await broker.kill()
        await broker.start()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto", persist=True) as broker:
            with Daemon(broker, tmp_path, overrides=QUICK) as daemon:
                async with line_to(broker, session_expiry_s=600) as line:
                    killing: list[asyncio.Task[None]] = []

                    def during(number: int) -> None:
                        if number == 20:
                            killing.append(asyncio.create_task(kill(broker)))

                    names = await line.play(50, interval_s=0.03, during=during)
                    await asyncio.gather(*killing)
                    await until(lambda: line.session.connected, "the line is connected again")
                    await asyncio.to_thread(daemon.logged, "mqtt-connected", times=2)
                    await asked_again(line, names)
                    assert all(line.judgements(name) == 1 for name in names)

    asyncio.run(scenario())


async def asked_again(line: Line, names: list[str]) -> None:
    """Send again, as a camera that waits for its answers does, what has none after a kill.

    A killed broker may lose verdicts that it has taken: those come from the box's memory.
    """
    last = line.inspect(0)
    await line.verdict(last)  # whatever else was on its way has overtaken it
    silent = [name for name in names if not line.judgements(name)]
    for number, name in enumerate(names):
        if name in silent:
            line.inspect(number % 8, frame_id=name)
    await line.all_verdicts(names)


def test_the_embedded_broker_of_mqtt_3_1_1_serves_with_ids_in_the_topic(
    embedded_broker: LocalBroker, tmp_path: Path
) -> None:
    overrides = (
        *QUICK,
        'broker.protocol="3.1.1"',
        "bindings.camera.top=line/frame/{reference_id}/{part_id}/{frame_id}",
    )

    async def scenario(daemon: Daemon) -> None:
        async with line_to(embedded_broker) as line:
            status = await line.box_ready()
            assert status["mqtt"]["protocol"] == "3.1.1"
            names = []
            for number in range(3):
                name = f"f-{number}"
                line.send(
                    part_jpeg(3, number), frame_id=name, topic=f"line/frame/board-0003/p7/{name}"
                )
                names.append(name)
            assert await line.kept(names) == {"ok": 3}
            assert (await line.verdict("f-0"))["part_id"] == "p7"

    with Daemon(embedded_broker, tmp_path, overrides=overrides) as daemon:
        asyncio.run(scenario(daemon.ready()))


class Relay:
    """A stretch of network between box and broker that can fall silent, and be cut.

    Attributes:
        port: Where the box connects.
        mute_at: From the moment that the box sends these bytes, nothing reaches it any more.
    """

    def __init__(self, broker: LocalBroker) -> None:
        self._broker = broker
        self._links: set[asyncio.StreamWriter] = set()
        self.mute_at = b"\x00never"
        self.muted = False
        self.port = 0
        self.host = broker.host

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End every connection; the next ones are sound."""
        self.mute_at, self.muted = b"\x00never", False
        for link in self._links:
            link.transport.abort()
        self._links.clear()

    async def _link(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far, far_out = await asyncio.open_connection(self._broker.host, self._broker.port)
        self._links |= {near_out, far_out}

        async def up() -> None:
            while chunk := await near.read(1 << 16):
                self.muted = self.muted or self.mute_at in chunk
                far_out.write(chunk)

        async def down() -> None:
            while chunk := await far.read(1 << 16):
                if not self.muted:
                    near_out.write(chunk)

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(up(), down())
        near_out.transport.abort()
        far_out.transport.abort()


def test_a_verdict_whose_acknowledgement_is_lost_is_sent_again_and_stays_the_same(
    tmp_path: Path,
) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker, Relay(broker) as relay:
            overrides = (*QUICK, f"broker.port={relay.port}")
            with Daemon(broker, tmp_path, overrides=overrides) as daemon:
                async with line_to(broker) as line:
                    name = line.new_id()
                    # The verdict carries the frame's id: behind it, the box hears nothing more.
                    relay.mute_at = name.encode()
                    line.inspect(0, frame_id=name)
                    first = await line.verdict(name)
                    assert relay.muted
                    relay.cut()
                    await until(lambda: len(line.verdicts["pcb", name]) == 2, "it is sent again")
                    assert line.judgements(name) == 1
                    assert first["reason"] == "ok"
                    # The frame came again as well, and is settled by the same publication.
                    await line.status(
                        lambda s: s["counters"].get("frames_repeated{pipeline=pcb}") == 1,
                        "the broker has brought the frame again",
                    )
                    assert await line.kept([line.inspect(1)]) == {"ok": 1}
                    assert len(line.verdicts["pcb", name]) == 2
                    assert daemon.alive

    asyncio.run(scenario())


def test_a_frame_without_an_id_that_the_broker_brings_again_has_one_verdict(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker, Relay(broker) as relay:
            overrides = (*QUICK, f"broker.port={relay.port}")
            with Daemon(broker, tmp_path, overrides=overrides):
                async with line_to(broker) as line:
                    relay.mute_at = b"p-alone"  # the verdict's part
                    nameless: Any = {"frame-id": ""}
                    line.inspect(0, part_id="p-alone", **nameless)
                    await until(lambda: bool(line.verdicts), "it has its verdict")
                    relay.cut()
                    await line.status(
                        lambda s: s["counters"].get("frames_repeated{pipeline=pcb}") == 1,
                        "the broker has brought the frame again, and it is known",
                    )
                    assert len(line.verdicts) == 1
                    await line.status(lambda s: s["ledger"].get("committed") == 1, "recorded once")

    asyncio.run(scenario())
