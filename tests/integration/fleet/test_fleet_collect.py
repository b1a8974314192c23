"""The collector as it runs: a real process, a real broker, devices of the tests' own."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Peer, connected, require_mosquitto, until
from fleets import Chain, CollectorProcess, name_of
from postgres import running_postgres

from edge.mqtt.brokers import LocalBroker

Scene = Callable[[LocalBroker, "Device"], Awaitable[None]]


class Device:
    """A device of the tests': sends what it is told to, and hears its receipts and alarms."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer = peer
        self.name = name
        self.receipts: list[dict[str, Any]] = []
        self.alarms: dict[str, dict[str, Any]] = {}
        peer.session.subscribe(f"edge/{name}/receipts", 1, self._receipt)
        peer.session.subscribe("fleet/alarms/#", 1, self._alarm)

    def _receipt(self, message: Any) -> None:
        self.receipts.append(json.loads(message.payload))
        self.peer.session.acknowledge(message)

    def _alarm(self, message: Any) -> None:
        self.peer.session.acknowledge(message)
        kind = message.topic.rpartition("/")[2]
        if message.payload:
            self.alarms[kind] = json.loads(message.payload)
        else:
            self.alarms.pop(kind, None)

    async def send(self, *bodies: bytes, name: str = "") -> None:
        for body in bodies:
            assert await self.peer.publish(f"edge/{name or self.name}/records", body)

    async def receipted(self, chain: Chain, seq: int) -> None:
        """Wait for the receipt of a chain up to a place, and hold it to the chain."""
        wanted = {"ledger": chain.ledger, "seq": seq, "head": chain.heads[seq].hex()}
        await until(lambda: wanted in self.receipts, f"{wanted}, not {self.receipts[-1:]}")

    async def alarm(self, kind: str) -> dict[str, Any]:
        await until(lambda: kind in self.alarms, f"an alarm {kind}, not {set(self.alarms)}")
        return self.alarms[kind]


def play(scene: Scene) -> None:
    """Run a scene with a broker and a device."""
    require_mosquitto()

    async def scenario() -> None:
        async with (
            LocalBroker(kind="mosquitto") as broker,
            connected(broker, "box1-client") as peer,
        ):
            await scene(broker, Device(peer, "box1"))

    asyncio.run(scenario())


def test_records_are_stored_receipted_exported_and_a_lost_receipt_is_sent_again(
    tmp_path: Path,
) -> None:
    async def scene(broker: LocalBroker, device: Device) -> None:
        chain = Chain().grow(50)
        with CollectorProcess(broker, tmp_path) as collector:
            await asyncio.to_thread(collector.ready)
            await device.send(*chain.bodies)
            await device.receipted(chain, 50)
            device.receipts.clear()
            await device.send(chain.bodies[20])
            await device.receipted(chain, 50)
            status, exported = await asyncio.to_thread(collector.ask, "export", "box1")
            assert status == 0
            assert exported.encode().splitlines() == chain.bodies
            status, table = await asyncio.to_thread(collector.ask, "devices")
            assert (status, "1 to 50" in table) == (0, True)
            assert await asyncio.to_thread(collector.end) == 0

    play(scene)


def test_what_was_receipted_outlives_kill_9_and_the_rest_comes_again(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, device: Device) -> None:
        chain = Chain()
        with CollectorProcess(broker, tmp_path) as collector:
            await asyncio.to_thread(collector.ready)
            receipted = 0
            for cycle in range(4):
                chain.grow(200)
                device.receipts.clear()
                to_send = chain.bodies[receipted:]
                sending = asyncio.create_task(device.send(*to_send))
                await until(lambda: bool(device.receipts), "a receipt")
                collector.kill()
                receipted = device.receipts[-1]["seq"]
                held = await asyncio.to_thread(collector.devices)
                assert held["box1"]["ledgers"][0]["seq"] >= receipted
                await sending
                collector.start()
                await asyncio.to_thread(collector.ready, times=cycle + 2)
            await device.send(*chain.bodies)  # as an outbox does, until it is receipted
            await device.receipted(chain, 800)
            assert device.alarms == {}

    play(scene)


def test_forks_gaps_breaks_and_new_ledgers_are_alarms_until_they_are_accepted(
    tmp_path: Path,
) -> None:
    async def scene(broker: LocalBroker, device: Device) -> None:
        chain = Chain().grow(20)
        with CollectorProcess(broker, tmp_path, overrides=["collect.gap_after_s=0.3"]) as collector:
            await asyncio.to_thread(collector.ready)
            await device.send(*chain.bodies[:10], *chain.bodies[14:])
            await device.receipted(chain, 10)
            gap = await device.alarm("gap")
            assert "records 11 to 14 are not here" in gap["detail"]
            assert (await asyncio.to_thread(collector.ask, "devices"))[0] == 1
            await device.send(*chain.bodies[10:14])
            await device.receipted(chain, 20)
            await until(lambda: not device.alarms, "the gap has ended")

            await device.send(*chain.fork(18, 5).bodies[17:])
            assert (await device.alarm("fork"))["seq"] == 18
            await device.alarm("broken")
            other = Chain(ledger=name_of("second")).grow(4)
            await device.send(*other.bodies)
            await device.receipted(other, 4)
            await device.alarm("new-ledger")
            assert max(r["seq"] for r in device.receipts if r["ledger"] == chain.ledger) == 20

            status, said = await asyncio.to_thread(collector.ask, "accept", "box1")
            assert (status, "fork accepted" in said) == (0, True)
            await until(lambda: not device.alarms, "the broker keeps no alarm that was accepted")
            assert (await asyncio.to_thread(collector.ask, "devices"))[0] == 0

    play(scene)


def test_a_hostile_device_harms_nobody_but_itself(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, device: Device) -> None:
        chain = Chain().grow(30)
        foreign = json.loads(Chain("box1").grow(1).bodies[0])
        rubbish = [
            b"", b"\x00" * 100, b"[" * 200_000, b'{"a":' * 50_000, b"x" * 1_000_000,
            json.dumps({**foreign, "seq": 1}).encode(),  # box1's record under box6's topic
        ]  # fmt: skip
        with CollectorProcess(
            broker, tmp_path, overrides=["broker.max_packet_bytes=524288"]
        ) as collector:
            await asyncio.to_thread(collector.ready)
            await device.send(*chain.bodies[:10])
            async with connected(broker, "hostile") as hostile:
                for body in rubbish:
                    await hostile.publish("edge/box6/records", body)
                    await hostile.publish("edge/bad name/records", body)
                    await hostile.publish("edge/box6/status", body)
            await device.send(*chain.bodies[10:])
            await device.receipted(chain, 30)
            await device.alarm("garbage")
            found = await asyncio.to_thread(collector.devices)
            assert {alarm["kind"] for alarm in found["box6"]["alarms"]} == {"garbage"}
            assert found["box1"]["alarms"] == []
            assert set(found) == {"box1", "box6"}
            assert collector.alive

    play(scene)


def test_a_device_that_goes_or_falls_silent_is_told_and_taken_back(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, device: Device) -> None:
        with CollectorProcess(
            broker, tmp_path, overrides=["collect.silent_after_s=1"]
        ) as collector:
            await asyncio.to_thread(collector.ready)
            online = json.dumps({"state": "online", "ready": True}).encode()
            await device.peer.publish("edge/box1/status", online, retain=True)
            assert (await device.alarm("silent"))["device"] == "box1"
            await device.peer.publish("edge/box1/status", b'{"state":"offline"}', retain=True)
            await device.alarm("offline")
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(_speak(device, online))
                await until(lambda: not device.alarms, "it is back")
                speaking.cancel()

    play(scene)


async def _speak(device: Device, online: bytes) -> None:
    while True:
        await device.peer.publish("edge/box1/status", online, retain=True)
        await asyncio.sleep(0.1)  # as a device does, on its timer


@pytest.fixture
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_collectors_that_share_one_database_are_right_together_and_one_may_die(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres") if kind == "postgres" else ""
    shared = ["collect.share=group", "broker.session_expiry_s=0"]

    async def scene(broker: LocalBroker, device: Device) -> None:
        chain = Chain().grow(400)
        with (
            CollectorProcess(broker, tmp_path, url=url, name="one", overrides=shared) as one,
            CollectorProcess(broker, tmp_path, url=url, name="two", overrides=shared) as two,
        ):
            await asyncio.to_thread(one.ready)
            await asyncio.to_thread(two.ready)
            await device.send(*chain.bodies[:200])
            await device.receipted(chain, 200)
            os.kill(two.pid, signal.SIGKILL)
            await device.send(*chain.bodies[200:])
            await until(lambda: not two.alive, "one of them is dead")
            await device.send(*chain.bodies)  # what it took with it comes again, as ever
            await device.receipted(chain, 400)
            for receipt in device.receipts:
                assert receipt["head"] == chain.heads[receipt["seq"]].hex()
            status, _ = await asyncio.to_thread(one.ask, "devices")
            assert status == 0, "no alarm"

    play(scene)


def test_two_collectors_of_one_name_say_so(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()

    async def scene(broker: LocalBroker, _device: Device) -> None:
        def told(collector: CollectorProcess) -> bool:
            reasons = [each["reason"] for each in collector.events("mqtt-disconnected")]
            return any("the same client id, 'edge-fleet-collect'" in each for each in reasons)

        one, other = (CollectorProcess(broker, folder) for folder in folders)
        with one, other:
            await until(lambda: told(one) and told(other), "both say so")

    play(scene)


def test_a_store_that_fails_is_told_and_nothing_is_receipted_meanwhile(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, device: Device) -> None:
        chain = Chain().grow(20)
        with running_postgres() as url, CollectorProcess(broker, tmp_path, url=url) as collector:
            await asyncio.to_thread(collector.ready)
            await device.send(*chain.bodies[:5])
            await device.receipted(chain, 5)
            server = Path(url.partition("host=")[2])
            pid = int((server / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGSTOP)  # it hangs, with the connection open
            await device.send(*chain.bodies[5:])
            os.kill(pid, signal.SIGKILL)
            collector_says = await asyncio.to_thread(collector.logged, "collector_trouble")
            assert "postgresql" in collector_says["detail"]
            assert max(receipt["seq"] for receipt in device.receipts) <= 20

    play(scene)
