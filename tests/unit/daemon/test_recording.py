"""Between ledger and session: what a slow disk, or a receipt of nonsense, must not do."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from brokers import until
from ledgers import entry, frame

from edge.config import BrokerSection, LedgerSection
from edge.contracts.verdict import Kind
from edge.daemon.recording import Recording
from edge.errors import StorageError
from edge.ledger import ledger
from edge.ledger.entry import Correction
from edge.ledger.ledger import MAX_ASKED
from edge.mqtt.session import Session
from edge.observability.counters import Counters

SAID = Correction(Kind.PASS, by="line lead", reason="a reflex", seq=1)


class _Slow(Recording):
    """A recording whose disk can be held up."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.moving = threading.Event()

    def hold_up(self) -> None:
        """Have the ledger's thread hang, as in an fsync that takes long, until `moving` is set."""
        self._ledger._ask(lambda _store: self.moving.wait(60), lambda _: None, False)

    def ask_all(self) -> None:
        """Ask as much as the ledger takes, as receipts that repeat themselves do."""
        for _ in range(MAX_ASKED + 1):
            try:
                self._ledger.receive(1, bytes(32), lambda *_: None)
            except StorageError:
                return


@asynccontextmanager
async def _recording(folder: Path) -> AsyncIterator[tuple[_Slow, Session, list[object]]]:
    """Yield a recording of one record, its session, and what failed on the loop."""
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    session = Session(BrokerSection(), "edge-box1")
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    recording = _Slow(LedgerSection(), folder, "box1", session, Counters(), nothing)
    try:
        committed = asyncio.Event()
        recording.record(entry(1), frame(1), committed.set)
        await committed.wait()
        yield recording, session, failed
    finally:
        recording.moving.set()
        await recording.close(5)


def test_a_word_whose_speaker_has_gone_is_recorded_and_sent_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _recording(tmp_path) as (recording, session, failed):
            recording.connected()
            await until(lambda: session.unanswered == 1, "the record goes out")
            recording.hold_up()
            speaking = asyncio.create_task(recording.override(SAID))
            await asyncio.sleep(0)  # asked
            speaking.cancel()
            await asyncio.wait((speaking,))
            recording.moving.set()
            await until(lambda: session.unanswered == 2, "the word goes out")
            assert not failed

    asyncio.run(scenario())


def test_records_go_out_though_the_ledger_took_no_question_for_a_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _recording(tmp_path) as (recording, session, failed):
            recording.hold_up()
            recording.ask_all()
            recording.connected()  # wants to read what is owed
            sending = asyncio.create_task(recording.keep_sending())
            recording.moving.set()
            await until(lambda: session.unanswered == 1, "the record goes out")
            sending.cancel()
            await asyncio.wait((sending,))
            assert sending.cancelled()
            assert not failed

    asyncio.run(scenario())


def test_what_was_kept_back_for_want_of_room_is_recorded_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_WAITING", 1)

    async def scenario() -> None:
        async with _recording(tmp_path) as (recording, _, failed):
            committed: list[int] = []
            recording.hold_up()
            for number in (2, 3):
                recording.record(entry(number), frame(number), partial(committed.append, number))
            assert recording.stuck
            recording.moving.set()
            await until(lambda: committed == [2], "the disk works again")
            assert await recording.close(30) == 0
            await until(lambda: committed == [2, 3], "the one that was kept back")
            assert not failed

    asyncio.run(scenario())


def test_what_cannot_be_recorded_before_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with _recording(tmp_path) as (recording, _, failed):
            monkeypatch.setattr(ledger, "MAX_WAITING", 0)
            recording.record(entry(2), frame(2), lambda: None)
            assert await recording.close(30) == 1
            assert not failed

    asyncio.run(scenario())


def test_a_pipeline_begins_though_the_ledger_takes_no_question(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _recording(tmp_path) as (recording, _, failed):
            recording.hold_up()
            recording.ask_all()
            assert await recording.recent("pcb", 10) == []
            assert not failed

    asyncio.run(scenario())


def test_who_asks_for_verdicts_and_is_ended_meanwhile_costs_the_daemon_nothing(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with _recording(tmp_path) as (recording, _, failed):
            recording.hold_up()
            asking = asyncio.create_task(recording.recent("pcb", 10))
            await asyncio.sleep(0)  # asked
            asking.cancel()
            await asyncio.wait((asking,))
            recording.moving.set()
            assert [given.frame_id for given in await recording.recent("pcb", 10)] == ["frame-1"]
            assert not failed

    asyncio.run(scenario())
