"""The store's thread: what it does while the store fails, and when it works again."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleets import Chain

from edge.errors import StorageError
from edge.fleet.database import Database
from edge.fleet.keeping import MAX_ASKED, MAX_WAITING, Keeping
from edge.fleet.register import Taken
from edge.fleet.store import Store

DEADLINE_S = 60.0


class Loop:
    """Where the thread delivers; the test's thread runs it."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.taken: list[Taken] = []

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not reached():
            assert time.monotonic() < end, "not in time"
            try:
                self.calls.get(timeout=0.05)()
            except queue.Empty:
                continue


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def keeping(loop: Loop, home: Path) -> Iterator[Keeping]:
    store = Store(Database(f"sqlite://{home / 'fleet.db'}"))
    store.prepare()
    store.close()
    made = Keeping(store, loop.calls.put, loop.taken.append)
    made.start()
    yield made
    made.close()


def test_a_store_that_fails_is_tried_until_it_works_and_then_all_is_told(
    loop: Loop, keeping: Keeping, home: Path
) -> None:
    chain, done = Chain().grow(5), []
    gone = home.with_name("gone")
    home.rename(gone)
    home.write_text("a file where the folder was")
    for arrival in chain.arrivals():
        assert keeping.take(arrival, lambda: done.append(1))
    failed: list[int] = []
    keeping.ask(Store.devices, lambda _: None, lambda: failed.append(1))
    loop.until(lambda: bool(failed) and keeping.trouble != "")
    assert not done
    assert keeping.waiting == 5
    home.unlink()
    gone.rename(home)
    loop.until(lambda: len(done) == 5)
    assert keeping.trouble == ""
    assert loop.taken[-1].held[0].seq == 5


def test_questions_alone_find_out_that_the_store_works_again(loop: Loop, keeping: Keeping) -> None:
    failed: list[int] = []
    answered: list[int] = []

    def fail(_store: Store) -> None:
        raise StorageError("for once")

    keeping.ask(fail, lambda _: None, lambda: failed.append(1))
    loop.until(lambda: bool(failed))
    assert keeping.trouble == "for once"
    keeping.ask(Store.devices, lambda _: answered.append(1))
    loop.until(lambda: bool(answered))
    assert keeping.trouble == ""


def test_what_waits_is_bounded(loop: Loop, home: Path) -> None:
    keeping = Keeping(Store(Database(f"sqlite://{home / 'fleet.db'}")), loop.calls.put, print)
    (arrival,) = Chain().grow(1).arrivals()
    assert all(keeping.take(arrival, lambda: None) for _ in range(MAX_WAITING))
    assert not keeping.take(arrival, lambda: None)
    failed: list[int] = []
    for _ in range(MAX_ASKED + 3):
        keeping.ask(Store.devices, lambda _: None, lambda: failed.append(1))
    assert len(failed) == 3


def test_a_bug_of_the_store_is_raised_on_the_loop(loop: Loop, keeping: Keeping) -> None:
    def broken(_store: Store) -> None:
        raise ZeroDivisionError("a bug")

    keeping.ask(broken, lambda _: None)
    with pytest.raises(ZeroDivisionError):
        loop.until(lambda: False)
    assert "bug" in keeping.trouble
