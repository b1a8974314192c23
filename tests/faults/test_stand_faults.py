"""Any process of the whole stand may be killed at any time: no record is lost, none undelivered."""

import asyncio
import random
from pathlib import Path

from brokers import require_mosquitto
from stands import Findings, Victim, break_and_check, standing


def test_any_process_may_be_killed_and_no_record_is_lost_or_left_behind(tmp_path: Path) -> None:
    require_mosquitto()
    victims: list[Victim] = ["supervisor", "collector", "worker"]

    async def scenario() -> tuple[Findings, Findings]:
        async with standing(tmp_path) as stand:
            chance = random.Random(7)
            calm = await break_and_check(stand, chance, victims)
            return calm, await break_and_check(stand, chance, ["broker", "collector"])

    while_the_broker_lived, after = asyncio.run(scenario())
    assert while_the_broker_lived.clean, while_the_broker_lived
    assert after.clean, after
    assert after.records > while_the_broker_lived.records > 0


def test_the_check_finds_a_collector_that_forgets_what_it_receipted(tmp_path: Path) -> None:
    """The negative control: its database is gone after the kill, as if it had never synced."""
    require_mosquitto()

    async def scenario() -> Findings:
        async with standing(tmp_path) as stand:
            assert (await break_and_check(stand, random.Random(1), ["worker"])).clean
            stand.collector.kill()
            (tmp_path / "fleet.db").unlink()
            stand.collector.start()
            await asyncio.to_thread(stand.collector.ready, times=2)
            return await asyncio.to_thread(stand.check)

    found = asyncio.run(scenario())
    assert found.undelivered > 0
    assert not found.clean
