"""More verdicts than a stuck ledger has room for: they wait in order, and are recorded when it can.

The broker is not needed: what is held here is what `edge.daemon.recording` does between a ledger
that takes nothing and frames that go on.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import until
from disks import fill, small_disk
from ledgers import entry, frame

from edge.config import BrokerSection, KeptFramesSection, LedgerSection
from edge.daemon.recording import MAX_KEPT_BACK, Recording
from edge.ledger import reading
from edge.ledger.ledger import MAX_WAITING
from edge.mqtt.session import Session
from edge.observability.counters import Counters

BEYOND = 50


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB: with the reserve laid there is little beside it."""
    with small_disk(tmp_path, 12) as mounted:
        yield mounted


def _recording(disk: Path, counters: Counters) -> Recording:
    section = LedgerSection(frames=KeptFramesSection(enabled=False))
    session = Session(BrokerSection(), "none")
    return Recording(section, disk / "ledger", "box1", session, counters, lambda: None)


async def _until_stuck(
    disk: Path, recording: Recording, record: Callable[[], None], last: Callable[[], int]
) -> None:
    for _ in range(20):
        fill(disk)
        record()
        await until(
            lambda: recording.stuck or recording.status()["committed"] == last(),
            "it goes on or not",
        )
        if recording.stuck:
            return
    pytest.fail("the ledger took records on a full disk")


def test_what_the_ledger_has_no_room_for_is_recorded_in_order_when_it_has(disk: Path) -> None:
    async def scenario() -> list[int]:
        counters = Counters()
        recording = _recording(disk, counters)
        sending = asyncio.create_task(recording.keep_sending())
        committed: list[int] = []
        count = 0

        def record() -> None:
            nonlocal count
            count += 1
            number = count
            recording.record(entry(number), frame(number), lambda: committed.append(number))

        await _until_stuck(disk, recording, record, lambda: count)
        assert "the disk is full" in recording.trouble
        before = len(committed)
        while recording.status()["waiting"] < MAX_WAITING + BEYOND:
            record()
        assert counters.value("records_kept_back") >= BEYOND
        # A frame of these comes again: it is settled with its first coming, not before.
        again: list[int] = []
        recording.ensure("pcb", f"frame-{count}", lambda: again.append(count))
        assert len(committed) == before

        (disk / "ballast").unlink()
        await until(lambda: len(committed) == count, "all are recorded")
        await until(lambda: again == [count], "and the one that came again is settled")
        assert committed == list(range(1, count + 1))
        assert not recording.stuck
        assert counters.value("records_dropped") == 0
        sending.cancel()
        assert await recording.close(5.0) == 0
        return committed

    committed = asyncio.run(scenario())
    path = reading.find(disk)
    assert path is not None
    with reading.opened(path) as ledger:
        assert [row.frame_id for row in ledger.rows()] == [f"frame-{n}" for n in committed]


def test_what_even_memory_has_no_room_for_is_counted(disk: Path) -> None:
    async def scenario() -> None:
        counters = Counters()
        recording = _recording(disk, counters)
        committed: list[int] = []
        count = 0

        def record() -> None:
            nonlocal count
            count += 1
            recording.record(entry(count), frame(count), lambda: committed.append(1))

        await _until_stuck(disk, recording, record, lambda: count)
        while counters.value("records_dropped") < 5:
            record()
        assert counters.value("records_kept_back") == MAX_KEPT_BACK
        await recording.close(0)

    asyncio.run(scenario())
