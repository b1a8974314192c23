"""Whatever happens between a box and its cloud: each record arrives, once, and in its place."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from boxes import Box, box
from brokers import connected, require_mosquitto, section, until
from fleets import CollectorProcess
from proxies import Proxy

from edge.fleet.database import Database
from edge.fleet.store import Store
from edge.mqtt.brokers import LocalBroker

Scene = Callable[[LocalBroker, Proxy, Box], Awaitable[None]]


def play(folder: Path, scene: Scene, *, overrides: tuple[str, ...] = ()) -> list[str]:
    """Run a scene between a box behind a proxy and a collector; say what is wrong in the end."""
    require_mosquitto()

    async def scenario() -> list[str]:
        async with LocalBroker(kind="mosquitto") as broker, Proxy(broker) as proxy:
            link = section(broker, port=proxy.port, keepalive_s=5)
            with CollectorProcess(broker, folder, overrides=overrides) as collector:
                await asyncio.to_thread(collector.ready)
                async with box(folder, link) as made:
                    await scene(broker, proxy, made)
                    await made.all_receipted()
                    bodies = made.bodies()
                assert await asyncio.to_thread(collector.end) == 0
                return _wrong(collector.url, bodies)

    return asyncio.run(scenario())


def _wrong(url: str, bodies: list[bytes]) -> list[str]:
    """Compare what the box has with what the cloud holds."""
    ledger = json.loads(bodies[0])["ledger"]
    store = Store(Database(url))
    held = [body for _, body in store.bodies("box1", ledger, 0, 1 << 20)]
    wrong = [f"alarm {alarm.kind}: {alarm.detail}" for alarm in store.alarms()]
    store.close()
    if held != bodies:
        wrong.append(f"{len(held)} of {len(bodies)} records are held")
    return wrong


def test_a_broker_that_restarts_and_forgets_every_session_costs_no_record(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, proxy: Proxy, made: Box) -> None:
        for _ in range(3):
            await made.record(150)
            await broker.kill()  # without persistence: sessions, queues, retained messages
            await made.record(20)
            await broker.start()
            await until(lambda: made.session.connected, "the box is back")

    assert play(tmp_path, scene) == []


def test_reset_connections_cost_no_record(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, proxy: Proxy, made: Box) -> None:
        for cycle in range(4):
            await made.record(100)
            proxy.reset()
            await until(lambda cycle=cycle: proxy.connections > cycle + 1, "it comes again")  # type: ignore[misc] # bound now

    assert play(tmp_path, scene) == []


def test_a_partition_that_nobody_announces_costs_no_record(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, proxy: Proxy, made: Box) -> None:
        await made.record(50)
        proxy.part()
        await made.record(200)
        # Seconds later the box knows by itself (keepalive); then the way is free again.
        await until(lambda: not made.session.connected, "the box has noticed", 30.0)
        proxy.reset()
        proxy.heal()
        await made.record(10)

    assert play(tmp_path, scene) == []


def test_receipts_that_come_twice_late_or_in_another_order_change_nothing(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, proxy: Proxy, made: Box) -> None:
        async with connected(broker, "echo", "edge/box1/receipts") as echo:
            await made.record(100)
            await made.all_receipted()
            heard = [echo.messages.get_nowait().payload for _ in range(echo.messages.qsize())]
            assert heard
            for payload in [*reversed(heard), *heard, *heard]:
                await echo.publish("edge/box1/receipts", payload)
            await made.record(30)
            await made.all_receipted()
        assert made.refused() == 0
        assert made.recording.status()["receipted"] == 130

    assert play(tmp_path, scene) == []


def test_a_false_receipt_frees_no_record(tmp_path: Path) -> None:
    async def scene(broker: LocalBroker, proxy: Proxy, made: Box) -> None:
        await made.record(40)
        await made.all_receipted()
        true = json.loads(json.dumps({"seq": 40, "head": "00" * 32}))
        proxy.part()  # so that the next records stay owed
        await made.record(5)
        proxy.heal()
        async with connected(broker, "forger") as forger:
            false = [
                {**true, "seq": 1_000},  # for what was never sent
                {**true, "seq": 1 << 70},
                {**true, "seq": 42},  # with another head
                {**true, "seq": 42, "ledger": "f" * 16},
                {**true, "seq": -1},
                {**true, "seq": 42, "head": "zz"},
            ]
            for receipt in false:
                await forger.publish("edge/box1/receipts", json.dumps(receipt).encode())
            await forger.publish("edge/box1/receipts", b"[" * 1_000)
            await until(lambda: made.refused() >= 7, f"all are refused: {made.refused()}")

    assert play(tmp_path, scene) == []


def test_the_check_finds_an_outbox_that_takes_the_brokers_word_for_the_clouds(
    tmp_path: Path,
) -> None:
    """The negative control: a broker acknowledged, and was killed before anybody had the record."""
    require_mosquitto()

    async def scenario() -> list[str]:
        async with LocalBroker(kind="mosquitto") as broker:  # noqa: SIM117 - one after the other
            async with box(tmp_path, section(broker)) as made:
                trusting = made.recording
                send = trusting._session.publish

                def publish(body: bytes, on_done: Callable[[bool], None]) -> bool:
                    seq = json.loads(body)["seq"]

                    def done(taken: bool) -> None:
                        on_done(taken)
                        if taken:
                            trusting._outbox.receipt_taken(seq)

                    return send("edge/box1/records", body, on_done=done)

                trusting.publish = publish  # type: ignore[method-assign] # the broken variant
                await made.record(100)
                await until(lambda: trusting._outbox.receipted == 100, "it believes the broker")
                await broker.kill()
                await broker.start()
                with CollectorProcess(broker, tmp_path) as collector:
                    await asyncio.to_thread(collector.ready)
                    await made.record(1)
                    await until(lambda: trusting._outbox.receipted == 101, "and again")
                    bodies = made.bodies()
                    assert await asyncio.to_thread(collector.end) == 0
                    return _wrong(collector.url, bodies)

    assert "records are held" in " ".join(asyncio.run(scenario()))
