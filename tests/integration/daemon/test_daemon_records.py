"""Every verdict becomes a record: durable, chained, sent until receipted, known after a restart."""

import asyncio
import json
from pathlib import Path

from brokers import require_mosquitto, until
from clouds import Cloud
from daemons import Daemon, line_to

from edge.cli.main import main
from edge.mqtt.brokers import LocalBroker

QUICK = ("status.interval_s=0.5",)


def test_each_verdict_is_sent_as_a_record_until_the_cloud_has_receipted_it(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK):
                async with line_to(broker) as line:
                    cloud = Cloud(line)
                    names = [line.inspect(number) for number in range(4)]
                    bad = line.inspect(1, defects=("open",), part_id="p-7")
                    given = await line.all_verdicts([*names, bad])
                    await until(lambda: len(cloud.bodies) == 5, "five records have come")
                    told = {json.loads(body)["frame_id"]: body for body in cloud.bodies.values()}
                    for verdict in given:
                        record = json.loads(told[verdict["frame_id"]])
                        assert record["verdict"] == verdict["verdict"]
                        assert record["part_id"] == verdict["part_id"]
                    await line.status(lambda s: s["ledger"].get("owed") == 5, "five are owed")
                    cloud.receipt(5, b"\xff" * 32)
                    await line.status(
                        lambda s: s["counters"].get("receipts_refused") == 1,
                        "a receipt of another chain is refused",
                    )
                    cloud.receipt(5, cloud.head(5))
                    await line.status(lambda s: s["ledger"].get("owed") == 0, "nothing is owed")

    asyncio.run(scenario())


def test_after_a_kill_a_frame_that_comes_again_gets_the_verdict_that_it_had(
    tmp_path: Path,
) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK) as daemon:
                async with line_to(broker) as line:
                    names = [line.inspect(number) for number in range(3)]
                    before = await line.all_verdicts(names)
                    await line.status(
                        lambda s: s["ledger"].get("committed") == 3, "all is recorded"
                    )
                    daemon.kill()
                    daemon.start()
                    await asyncio.to_thread(daemon.logged, "ready", times=2)
                    for number, name in enumerate(names):
                        line.inspect(number, frame_id=name)
                    await until(
                        lambda: all(len(line.verdicts["pcb", name]) >= 2 for name in names),
                        "each frame is answered again",
                    )
                    after = [json.loads(line.verdicts["pcb", name][-1][0]) for name in names]
                    assert after == before
                    await line.status(lambda s: s["ledger"].get("committed") == 3, "none is new")

    asyncio.run(scenario())


def test_without_a_ledger_a_kill_costs_a_second_judgement(tmp_path: Path) -> None:
    """The negative control of the test above: it is the ledger that remembers."""
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=(*QUICK, "ledger.enabled=false")) as daemon:
                async with line_to(broker) as line:
                    name = line.inspect(0)
                    before = await line.verdict(name)
                    daemon.kill()
                    daemon.start()
                    await asyncio.to_thread(daemon.logged, "ready", times=2)
                    line.inspect(0, frame_id=name)
                    await until(lambda: len(line.verdicts["pcb", name]) == 2, "it is answered")
                    assert json.loads(line.verdicts["pcb", name][-1][0]) != before

    asyncio.run(scenario())


def test_the_ledger_of_a_stopped_box_verifies_and_an_altered_byte_does_not(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK) as daemon:
                async with line_to(broker) as line:
                    await line.all_verdicts([line.inspect(number) for number in range(3)])
                    assert await asyncio.to_thread(daemon.end) == 0

    asyncio.run(scenario())
    state = tmp_path / "state"
    assert main(["ledger", "verify", str(state)]) == 0
    database = state / "ledger" / "ledger.db"
    content = database.read_bytes()
    database.write_bytes(content.replace(b'"verdict":"pass"', b'"verdict":"PASS"', 1))
    assert main(["ledger", "verify", str(state)]) == 1
