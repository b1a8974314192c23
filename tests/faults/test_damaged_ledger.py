"""A damaged, cut or exchanged ledger: the line goes on, the evidence stays, people are told.

What a medium does (a bad page, a file cut short) sets the ledger aside. What a person did (another
device's file, an older copy, one that is gone) is refused, and left to people.
"""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from boxes import Box, box
from brokers import connected, require_mosquitto, section
from fleets import CollectorProcess

from edge.errors import DamagedError, StorageError
from edge.ledger import aside
from edge.mqtt.brokers import LocalBroker

PAGE = 4_096


def _corrupt_page(folder: Path) -> None:
    database = folder / "ledger.db"
    content = bytearray(database.read_bytes())
    content[-PAGE * 8 :] = bytes(b ^ 0xA5 for b in content[-PAGE * 8 :])
    database.write_bytes(content)


def _corrupt_head(folder: Path) -> None:
    database = folder / "ledger.db"
    database.write_bytes(b"\x00" * 100 + database.read_bytes()[100:])


def _cut_short(folder: Path) -> None:
    database = folder / "ledger.db"
    database.write_bytes(database.read_bytes()[: -PAGE * 5])


def _empty(folder: Path) -> None:
    (folder / "ledger.db").write_bytes(b"")


def _forge_the_tail(folder: Path) -> None:
    database = folder / "ledger.db"
    content = database.read_bytes()
    assert b'"frame-200"' in content
    database.write_bytes(content.replace(b'"frame_id":"frame-200"', b'"frame_id":"frame-999"'))


@pytest.mark.parametrize(
    "damage", [_corrupt_page, _corrupt_head, _cut_short, _empty, _forge_the_tail]
)
def test_a_damaged_ledger_is_set_aside_and_the_collector_says_so(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with CollectorProcess(broker, tmp_path) as collector:
                await asyncio.to_thread(collector.ready)
                async with box(tmp_path, section(broker)) as made:
                    await made.record(200)
                    await made.all_receipted()
                damage(tmp_path / "ledger")
                before = (tmp_path / "ledger" / "ledger.db").read_bytes()
                async with connected(broker, "watcher", "fleet/alarms/#") as watcher:
                    async with box(tmp_path, section(broker)) as made:
                        (lies,) = aside.found(tmp_path / "ledger")
                        assert made.recording.status()["set_aside"] == [lies.name]
                        assert (lies / "ledger.db").read_bytes() == before
                        await made.record(20)
                        await made.all_receipted()
                        assert len(made.bodies()) == 20
                    alarm = json.loads((await watcher.next()).payload)
                    assert (alarm["device"], alarm["kind"]) == ("box1", "new-ledger")

    asyncio.run(scenario())


def test_one_flipped_byte_is_enough_and_an_unharmed_ledger_is_not_set_aside(
    tmp_path: Path,
) -> None:
    """The control of the test above: without damage nothing is moved."""
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            async with box(tmp_path, section(broker)) as made:
                await made.record(200)
            async with box(tmp_path, section(broker)) as made:
                assert aside.found(tmp_path / "ledger") == []
                assert len(made.bodies()) == 200

    asyncio.run(scenario())


def test_a_wal_that_lost_its_end_is_found_by_the_collector(tmp_path: Path) -> None:
    """SQLite takes a cut WAL for the end of the story; who has heard the rest knows better."""
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with CollectorProcess(broker, tmp_path) as collector:
                await asyncio.to_thread(collector.ready)
                copy = tmp_path / "copy"
                async with box(tmp_path, section(broker)) as made:
                    for _ in range(10):  # a commit each
                        await made.record(3)
                    await made.all_receipted()
                    # As a power cut finds it, with the WAL; and the end of that is lost.
                    shutil.copytree(tmp_path / "ledger", copy)
                wal = copy / "ledger.db-wal"
                wal.write_bytes(wal.read_bytes()[: wal.stat().st_size * 3 // 4])
                shutil.rmtree(tmp_path / "ledger")
                copy.rename(tmp_path / "ledger")
                async with connected(broker, "watcher", "fleet/alarms/#") as watcher:  # noqa: SIM117
                    async with box(tmp_path, section(broker), first=100) as made:
                        assert 0 < made.recording.status()["committed"] < 30
                        await made.record(5)
                        alarm = json.loads((await watcher.next()).payload)
                        assert alarm["kind"] in {"fork", "broken"}
                        owed = made.recording.status()["owed"]
                        assert owed > 0, "what is not in the collector's chain is not receipted"

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["another ledger", "gone"])
def test_a_ledger_that_people_exchanged_or_took_away_is_refused(tmp_path: Path, how: str) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            for folder in (tmp_path / "one", tmp_path / "two"):
                async with box(folder, section(broker)) as made:
                    await made.record(5)
            database = tmp_path / "one" / "ledger" / "ledger.db"
            database.unlink()
            if how == "another ledger":
                shutil.copy(tmp_path / "two" / "ledger" / "ledger.db", database)
            with pytest.raises(StorageError, match="exchanged" if "other" in how else "is gone"):
                Box(tmp_path / "one", section(broker))
            assert aside.found(tmp_path / "one" / "ledger") == []

    asyncio.run(scenario())


def test_a_disk_that_damages_one_ledger_after_the_other_gets_no_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    damage = DamagedError("ledger.db is damaged")
    for _ in range(aside.MAX_ASIDE):
        folder.mkdir()
        aside.set_aside(folder, damage)
    folder.mkdir()
    with pytest.raises(DamagedError, match="look at the disk"):
        aside.set_aside(folder, damage)
    assert folder.is_dir()
    assert len(aside.found(folder)) == aside.MAX_ASIDE


def test_what_cannot_be_set_aside_is_said(tmp_path: Path) -> None:
    until_now = DamagedError("ledger.db is damaged")
    with pytest.raises(StorageError, match="cannot be set aside"):
        aside.set_aside(tmp_path / "nowhere", until_now)
