"""What the collectors hold, on SQLite and on a real PostgreSQL."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleets import Chain, name_of
from postgres import running_postgres

from edge.errors import StorageError
from edge.fleet.alarms import Kind
from edge.fleet.arrivals import Arrival
from edge.fleet.database import Database
from edge.fleet.register import Limits, Taken
from edge.fleet.store import MAX_AHEAD, MAX_CONFLICTS, MAX_LEDGERS, Store

Open = Callable[..., Store]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store again and again, as several collectors do; empty at first."""
    if request.param == "sqlite":
        url = f"sqlite://{tmp_path / 'fleet.db'}"
    else:
        url = request.getfixturevalue("postgres")
        _empty(url)
    opened: list[Store] = []

    def open_one(**limits: int) -> Store:
        store = Store(Database(url), Limits(**limits))
        store.prepare()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def _empty(url: str) -> None:
    database = Database(url)
    with database.transaction():
        for (name,) in database.rows("SELECT tablename FROM pg_tables WHERE schemaname='public'"):
            database.run(f"DROP TABLE {name}")
    database.close()


def _bodies(store: Store, chain: Chain) -> list[bytes]:
    return [body for _, body in store.bodies(chain.device, chain.ledger, 0, 10_000)]


def _kinds(store: Store) -> set[Kind]:
    return {alarm.kind for alarm in store.alarms()}


def _held(store: Store) -> int:
    (row,) = store.ledgers()
    return row.seq


def test_records_in_order_are_held_whole_and_receipted_with_their_head(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(20)
    taken = store.take(chain.arrivals())
    (held,) = taken.held
    assert (held.device, held.ledger) == ("box1", chain.ledger)
    assert (held.seq, held.head) == (20, chain.heads[20])
    assert (taken.stored, taken.repeated, taken.raised) == (20, 0, [])
    assert _bodies(store, chain) == chain.bodies


def test_the_same_again_changes_nothing_and_is_receipted_again(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(5)
    store.take(chain.arrivals())
    taken = store.take(chain.arrivals(2, 3, 3))
    assert (taken.stored, taken.repeated) == (0, 3)
    assert taken.held[0].seq == 5
    assert store.alarms() == []


def test_any_order_in_any_batches_ends_in_the_same_chain(open_store: Open) -> None:
    chance = random.Random(5)
    chain = Chain().grow(60)
    store = open_store()
    order = chain.arrivals() + chain.arrivals(*range(1, 61, 7))
    chance.shuffle(order)
    while order:
        count = chance.randint(1, 9)
        taken = store.take(order[:count])
        del order[:count]
        seq = taken.held[0].seq
        assert taken.held[0].head == chain.heads[seq]
    assert _held(store) == 60
    assert _bodies(store, chain) == chain.bodies
    assert store.alarms() == []
    (row,) = store.ledgers()
    assert row.ahead == 0


def test_nothing_above_a_missing_record_is_receipted(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(9)
    store.take(chain.arrivals(1, 2, 4, 5, 9))
    assert _held(store) == 2
    (gap,) = store.gaps()
    assert (gap.seq, gap.resumes) == (2, 4)
    store.take(chain.arrivals(3))
    assert _held(store) == 5
    store.take(chain.arrivals(6, 7, 8))
    assert _held(store) == 9
    assert store.gaps() == []


def test_two_records_for_one_place_are_a_fork_and_both_are_kept(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(6)
    store.take(chain.arrivals())
    taken = store.take(chain.fork(4, 1).arrivals(4))
    (alarm,) = taken.raised
    assert (alarm.kind, alarm.seq) == (Kind.FORK, 4)
    assert taken.held[0].head == chain.heads[6]
    assert _bodies(store, chain) == chain.bodies
    (row,) = store.ledgers()
    assert row.conflicts == 1
    again = store.take(chain.fork(4, 1).arrivals(4))
    assert again.raised == []
    assert store.alarms()[0].count == 2


def test_a_device_set_back_gets_no_receipt_for_its_second_life(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(10)
    store.take(chain.arrivals())
    second = chain.fork(8, 6)  # other records 8 to 10, and 11 to 13 upon them
    taken = store.take(second.arrivals(8, 9, 10, 11, 12, 13))
    assert {alarm.kind for alarm in taken.raised} == {Kind.FORK, Kind.BROKEN}
    assert taken.held[0].seq == 10
    assert taken.held[0].head == chain.heads[10]


def test_a_forged_record_cannot_block_the_true_one(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(6)
    store.take(chain.arrivals(1, 2))
    forged = Chain().grow(2, forged=True).grow(1)  # a record 3 upon another head
    taken = store.take(forged.arrivals(3))
    assert [alarm.kind for alarm in taken.raised] == [Kind.BROKEN]
    taken = store.take(chain.arrivals(3, 4, 5, 6))
    assert taken.held[0].seq == 6
    assert taken.held[0].head == chain.heads[6]
    assert _bodies(store, chain) == chain.bodies
    assert _kinds(store) == {Kind.FORK}
    assert Kind.BROKEN in {alarm.kind for alarm in taken.ended}


def test_a_new_ledger_of_a_known_device_is_told(open_store: Open) -> None:
    store = open_store()
    assert store.take(Chain().grow(3).arrivals()).raised == []
    second = Chain(ledger=name_of("second")).grow(2)
    taken = store.take(second.arrivals())
    assert [alarm.kind for alarm in taken.raised] == [Kind.NEW_LEDGER]
    assert taken.held[0].seq == 2


def test_devices_do_not_touch_each_other(open_store: Open) -> None:
    store = open_store()
    first, second = Chain("box1").grow(3), Chain("box2").grow(5)
    mixed = [a for pair in itertools.zip_longest(first.arrivals(), second.arrivals()) for a in pair]
    taken = store.take([arrival for arrival in mixed if arrival is not None])
    assert {(held.device, held.seq) for held in taken.held} == {("box1", 3), ("box2", 5)}
    assert store.alarms() == []


def test_accepting_a_gap_goes_on_from_what_is_there(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(30)
    assert store.take(chain.arrivals(*range(11, 21))).held[0].seq == 0
    taken = store.accept("box1")
    assert (taken.held[0].seq, taken.held[0].head) == (20, chain.heads[20])
    (row,) = store.ledgers()
    assert (row.anchor_seq, row.ahead) == (10, 0)
    taken = store.take(chain.arrivals(*range(5, 31)))
    assert (taken.held[0].seq, taken.held[0].head) == (30, chain.heads[30])
    assert _bodies(store, chain) == chain.bodies[10:]


def test_what_is_beyond_a_bound_is_left_with_the_device(open_store: Open) -> None:
    chain = Chain().grow(40, pixels="x" * 500)
    store = open_store(max_device_bytes=10_000)
    taken = store.take(chain.arrivals())
    assert 0 < taken.stored < 20
    assert taken.left == 40 - taken.stored
    assert taken.held[0].seq == taken.stored
    assert _kinds(store) == {Kind.QUOTA}


def test_a_device_has_no_more_room_for_having_more_ledgers(open_store: Open) -> None:
    store = open_store(max_device_bytes=10_000)
    for number in range(5):
        store.take(Chain(ledger=name_of(str(number))).grow(40, pixels="x" * 500).arrivals())
    assert sum(row.kept_bytes for row in store.ledgers()) <= 10_000
    store.take(Chain("box2").grow(5, pixels="x" * 500).arrivals())
    assert [row.seq for row in store.ledgers() if row.device == "box2"] == [5]


def test_a_flood_of_places_ahead_does_not_keep_the_next_one_out(open_store: Open) -> None:
    store, chain = open_store(), Chain().grow(1)
    (first,) = chain.arrivals()
    flood = [
        Arrival("box1", chain.ledger, 10_000 + n, bytes(32), n.to_bytes(32, "big"), b"{}")
        for n in range(MAX_AHEAD + 50)
    ]
    taken = store.take(flood)
    assert taken.left == 50
    assert store.take([first]).held[0].seq == 1


def test_ledgers_devices_and_conflicts_are_bounded(open_store: Open) -> None:
    store = open_store(max_devices=2)
    for number in range(MAX_LEDGERS + 3):
        store.take(Chain(ledger=name_of(str(number))).grow(1).arrivals())
    assert len(store.ledgers()) == MAX_LEDGERS
    store.take(Chain("box2").grow(1).arrivals())
    assert store.take(Chain("box3").grow(1).arrivals()).left == 1
    assert [row.device for row in store.devices()] == ["box1", "box2"]
    whole = Chain("box2").grow(1)
    forks = [whole.fork(1, 1, n=number).arrivals(1)[0] for number in range(MAX_CONFLICTS + 9)]
    store.take(forks)
    assert next(row for row in store.ledgers() if row.device == "box2").conflicts == MAX_CONFLICTS


def test_two_collectors_at_once_hold_one_chain_together(open_store: Open) -> None:
    chain = Chain().grow(200)
    stores = [open_store(), open_store()]
    for store in stores:
        store.close()  # each thread opens its own
    halves = [chain.arrivals(*range(1, 201, 2)), chain.arrivals(*range(2, 201, 2))]
    held: list[Taken] = []
    failures: list[BaseException] = []

    def collect(store: Store, part: list[Arrival]) -> None:
        try:
            held.extend(store.take(part[first : first + 5]) for first in range(0, len(part), 5))
        except BaseException as failed:  # noqa: BLE001 - told by the assertion below
            failures.append(failed)
        finally:
            store.close()

    threads = [
        threading.Thread(target=collect, args=pair) for pair in zip(stores, halves, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for taken in held:
        assert taken.held[0].head == chain.heads[taken.held[0].seq]
    store = open_store()
    assert _held(store) == 200
    assert _bodies(store, chain) == chain.bodies


def test_another_schema_version_is_refused(open_store: Open) -> None:
    store = open_store()
    database = store._database
    with database.transaction():
        database.run("UPDATE fleet_schema SET version=99")
    with pytest.raises(StorageError, match="schema version 99"):
        store.prepare()


def test_a_store_that_cannot_be_opened_says_where(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no database, and long enough to be read as one" * 40)
    for url, said in (
        (f"sqlite://{file}", "not a database"),
        (f"sqlite://{file}/below", "Not a directory|File exists"),
        ("postgresql://edge@/postgres?host=/nowhere", "nowhere"),
    ):
        with pytest.raises(StorageError, match=said):
            Store(Database(url)).prepare()


def test_who_only_looks_makes_no_database(tmp_path: Path) -> None:
    file = tmp_path / "mistyped" / "fleet.db"
    with pytest.raises(StorageError, match=r"mistyped/fleet\.db: there is no such file"):
        Store(Database(f"sqlite://{file}", create=False)).prepare()
    assert not file.parent.exists()
    Store(Database(f"sqlite://{file}")).prepare()
    Store(Database(f"sqlite://{file}", create=False)).prepare()
