"""Leases: the journal before the message, the revert after its time, whatever comes between."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from brokers import until

from edge.daemon.leases import FILE, Lease, Leases
from edge.observability.counters import Counters

TOPIC = "line/gate"


def lease(name: str = "action.gate", ttl_ms: int = 50, until_ns: int = 0) -> Lease:
    return Lease(
        name, TOPIC, "pcb", "f-1", "p-1", 0.0, ttl_ms, until_ns or time.time_ns() + ttl_ms * 10**6
    )


class Gate:
    """Where messages go: what was sent, and what the journal said of it at that moment.

    Attributes:
        open: Whether the outgoing queue takes a message.
        broker: Whether the broker acknowledges it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.sent: list[tuple[str, list[str]]] = []
        self.open = self.broker = True
        self.unacknowledged: list[Callable[[bool], None]] = []

    def journal(self) -> list[str]:
        if not self.file.exists():
            return []
        return [each["action"] for each in json.loads(self.file.read_text())]

    def wish(self) -> None:
        self.sent.append(("wish", self.journal()))

    def revert(self, _lease: Lease, cause: str, done: Callable[[bool], None]) -> bool:
        if not self.open:
            return False
        self.sent.append((cause, self.journal()))
        if self.broker:
            done(True)
        else:
            self.unacknowledged.append(done)
        return True

    def has_sent(self, count: int) -> bool:
        return len(self.sent) == count

    def what(self) -> list[str]:
        return [what for what, _ in self.sent]


Scenario = Callable[[Leases, Gate], Coroutine[Any, Any, None]]


def run(folder: Path, scenario: Scenario, counters: Counters | None = None) -> Gate:
    async def body() -> Gate:
        gate = Gate(folder)
        leases = Leases(folder, gate.revert, counters or Counters())
        leases.recover()
        writing = asyncio.create_task(leases.keep_journal())
        try:
            await scenario(leases, gate)
        finally:
            writing.cancel()
            await asyncio.wait((writing,))
        return gate

    return asyncio.run(body())


def test_the_journal_knows_an_action_before_it_is_turned_on(tmp_path: Path) -> None:
    async def scenario(leases: Leases, gate: Gate) -> None:
        leases.hold(lease(), gate.wish)
        assert gate.sent == []
        await until(lambda: "ttl" in gate.what(), "it is reverted")
        await until(lambda: gate.journal() == [], "it has left the journal")
        assert leases.held == ()

    gate = run(tmp_path, scenario)
    assert gate.sent == [("wish", ["action.gate"]), ("ttl", ["action.gate"])]


def test_a_second_wish_does_not_wait_for_the_disk_and_holds_longer(tmp_path: Path) -> None:
    async def scenario(leases: Leases, gate: Gate) -> None:
        leases.hold(lease(ttl_ms=60_000), gate.wish)
        await until(lambda: gate.what() == ["wish"], "it is on")
        leases.hold(lease(ttl_ms=50), gate.wish)
        assert gate.what() == ["wish", "wish"]
        await until(lambda: gate.what() == ["wish", "wish", "ttl"], "it is reverted once")

    run(tmp_path, scenario)


def test_an_action_of_no_time_is_turned_on_and_off_in_this_order(tmp_path: Path) -> None:
    async def scenario(leases: Leases, gate: Gate) -> None:
        for count in range(1, 21):
            leases.hold(lease(ttl_ms=0), gate.wish)
            await until(partial(gate.has_sent, 2 * count), "it is reverted")
        assert gate.what() == ["wish", "ttl"] * 20

    run(tmp_path, scenario)


def test_a_wish_while_its_revert_is_on_the_way_holds_on(tmp_path: Path) -> None:
    async def scenario(leases: Leases, gate: Gate) -> None:
        gate.broker = False
        leases.hold(lease(), gate.wish)
        await until(lambda: gate.what() == ["wish", "ttl"], "it is reverted")
        leases.hold(lease(ttl_ms=60_000), gate.wish)
        gate.unacknowledged.pop()(True)
        assert leases.held == ("action.gate",)
        await until(lambda: gate.what() == ["wish", "ttl", "wish"], "it is on again")
        assert gate.journal() == ["action.gate"]

    run(tmp_path, scenario)


def test_a_revert_that_finds_no_room_is_tried_again(tmp_path: Path) -> None:
    async def scenario(leases: Leases, gate: Gate) -> None:
        gate.open = False
        leases.hold(lease(ttl_ms=1), gate.wish)
        await until(lambda: gate.what() == ["wish"], "it is on")
        assert leases.held == ("action.gate",)
        gate.open = True
        await until(lambda: gate.what() == ["wish", "ttl"], "it is reverted")

    run(tmp_path, scenario)


def test_a_revert_that_the_broker_refused_is_sent_again_and_stays_in_the_journal(
    tmp_path: Path,
) -> None:
    async def scenario(leases: Leases, gate: Gate) -> None:
        gate.broker = False
        leases.hold(lease(ttl_ms=1), gate.wish)
        await until(lambda: gate.what() == ["wish", "ttl"], "it is reverted")
        gate.unacknowledged.pop()(False)
        assert leases.held == ("action.gate",)
        assert gate.journal() == ["action.gate"]
        gate.broker = True
        await until(lambda: gate.what() == ["wish", "ttl", "ttl"], "it is reverted again")
        await until(lambda: gate.journal() == [], "it has left the journal")
        # One that is refused while the daemon stops is the next daemon's.
        gate.broker = False
        leases.hold(lease(ttl_ms=60_000), gate.wish)
        await until(lambda: gate.what()[3:] == ["wish"], "it is on")
        leases.release()
        gate.unacknowledged.pop()(False)
        await leases.close()
        assert gate.journal() == ["action.gate"]

    run(tmp_path, scenario)


def test_what_is_not_acknowledged_stays_in_the_journal_for_the_next_daemon(tmp_path: Path) -> None:
    async def first(leases: Leases, gate: Gate) -> None:
        gate.broker = False
        leases.hold(lease(ttl_ms=60_000), gate.wish)
        await until(lambda: gate.what() == ["wish"], "it is on")
        leases.release()
        assert gate.what() == ["wish", "stop"]
        await leases.close()
        assert gate.journal() == ["action.gate"]

    run(tmp_path, first)

    async def second(leases: Leases, gate: Gate) -> None:
        assert leases.held == ("action.gate",)
        leases.release()
        await leases.close()
        assert gate.journal() == []

    run(tmp_path, second)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_what_waits_for_the_journal_when_the_daemon_stops_is_not_turned_on(
    tmp_path: Path, turns: int
) -> None:
    """Behind its revert nobody would turn it off, and the next daemon would know nothing of it."""

    async def scenario(leases: Leases, gate: Gate) -> None:
        leases.hold(lease(ttl_ms=60_000), gate.wish)
        for _ in range(turns):  # so far the writing of the journal has come
            await asyncio.sleep(0)
        leases.release()
        leases.hold(lease("action.late", ttl_ms=60_000), gate.wish)
        await until(gate.file.exists, "the journal was written")
        await leases.close()
        assert gate.what() == ["stop"]
        assert (leases.held, gate.journal()) == ((), [])

    run(tmp_path, scenario)


@pytest.mark.parametrize("until_ns", [1, 2**62])
def test_a_wrong_clock_holds_nothing_on_for_ever(tmp_path: Path, until_ns: int) -> None:
    """Long ago or in a hundred years: at the latest after its whole time it is reverted."""
    left = json.dumps([json.loads(_encoded(lease(ttl_ms=100, until_ns=until_ns)))])
    (tmp_path / FILE).write_text(left)

    async def scenario(leases: Leases, gate: Gate) -> None:
        await until(lambda: gate.what() == ["restart"], "it is reverted")

    run(tmp_path, scenario)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'[{"action": 1}]'])
def test_a_journal_that_cannot_be_read_stops_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    async def scenario(leases: Leases, gate: Gate) -> None:
        assert leases.held == ()
        leases.hold(lease(), gate.wish)
        await until(lambda: gate.what() == ["wish", "ttl"], "the next action works")

    run(tmp_path, scenario)


def test_without_a_disk_the_gate_is_asked_all_the_same(tmp_path: Path) -> None:
    counters = Counters()

    async def scenario(leases: Leases, gate: Gate) -> None:
        (tmp_path / "gone").rmdir()
        leases.hold(lease(), gate.wish)
        await until(lambda: gate.what() == ["wish", "ttl"], "it works without the journal")

    (tmp_path / "gone").mkdir()
    run(tmp_path / "gone", scenario, counters)
    assert counters.total("action_leases_unwritten") >= 1


def _encoded(each: Lease) -> bytes:
    return msgspec.json.encode(each)
