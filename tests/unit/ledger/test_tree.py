"""The tree in the database: it grows with the records, outlives them, and comes to old ledgers."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import entry

from edge.errors import ProofError, StorageError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import merkle, migration, note, proving, publishing, reading, schema, signing, tree
from edge.ledger.note import COSIGNER, Signer
from edge.ledger.proving import audited
from edge.ledger.signing import Keys
from edge.ledger.store import Prepared, Retention, Store
from edge.ledger.tiles import Edge, TileReader

Open = Callable[..., Store]
KEY = note.new_key()
CLOUD = Signer("cloud.example", note.new_key(), COSIGNER)
KEYS = Keys((KEY,), (CLOUD.verifier,))


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens the ledger; each test closes what it opens."""

    def open_one(keys: Keys = KEYS, retention: Retention | None = None) -> Store:
        return Store(tmp_path / "ledger", "box1", retention or Retention(), keys)

    return open_one


@contextlib.contextmanager
def database_of(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        yield database


def add(store: Store, first: int, last: int) -> None:
    for at in range(first, last + 1, 64):
        store.append([Prepared(entry(n), b"%032d" % n) for n in range(at, min(at + 64, last + 1))])


def bodies(path: Path) -> list[bytes]:
    with database_of(path) as database:
        rows = database.execute("SELECT body FROM record ORDER BY seq").fetchall()
    return [body for (body,) in rows]


def tree_in(path: Path, size: int) -> TileReader:
    with database_of(path) as database:
        tree.read_edge(database, size)

    def read(level: int, n: int) -> bytes:
        with database_of(path) as database:
            return tree.read_tile(database, level, n)

    return TileReader(read)


def version_1(path: Path) -> None:
    """Turn a database back into one of version 1, as the software before wrote it."""
    with database_of(path) as database:
        database.execute("BEGIN")
        for table in tree.TABLES:
            database.execute(f"DROP TABLE {table}")
        database.execute("DROP INDEX record_frame")
        database.execute("DROP INDEX record_part")
        database.execute(migration.TABLES_1["record_frame"])
        database.execute("PRAGMA user_version=1")
        database.execute("COMMIT")


def test_the_tree_is_that_of_the_records_after_every_commit_and_restart(
    opened: Open, tmp_path: Path
) -> None:
    last = 0
    for upto in (1, 3, 200, 300, 1_000):
        store = opened()
        add(store, last + 1, upto)
        store.close()
        last = upto
        found = bodies(tmp_path / "ledger" / "ledger.db")
        root = merkle.root_of([merkle.leaf_hash(body) for body in found])
        assert merkle.root(upto, tree_in(tmp_path / "ledger" / "ledger.db", upto)) == root


def test_a_batch_that_is_not_committed_leaves_no_leaf(opened: Open, tmp_path: Path) -> None:
    store = opened()
    add(store, 1, 250)
    with pytest.raises(AttributeError):  # a bug in the middle of a batch that would fill a tile
        store.append([*(Prepared(entry(n), b"%032d" % n) for n in range(251, 300)), None])  # type: ignore[list-item]
    add(store, 251, 260)
    store.close()
    found = bodies(tmp_path / "ledger" / "ledger.db")
    assert len(found) == 260
    root = merkle.root_of([merkle.leaf_hash(body) for body in found])
    assert merkle.root(260, tree_in(tmp_path / "ledger" / "ledger.db", 260)) == root


def test_a_leaf_that_is_not_its_records_stops_the_ledger(opened: Open, tmp_path: Path) -> None:
    store = opened()
    add(store, 1, 100)
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    with database_of(path) as database:
        database.execute("UPDATE edge SET hash=zeroblob(32) WHERE level=0 AND n=60")
    with pytest.raises(StorageError, match="not the last leaves of the Merkle tree"):
        opened()
    with database_of(path) as database:
        database.execute("DELETE FROM edge WHERE n=60")
    with pytest.raises(StorageError, match="has hash 61 of level 0 where 60 belongs"):
        opened()


def test_checkpoints_are_due_by_number_and_by_time_and_not_without_a_key(opened: Open) -> None:
    store = opened()
    assert not store.checkpoint_due(0.0)
    assert store.sign(1) is None
    add(store, 1, 10)
    assert not store.checkpoint_due(100.0)
    assert not store.checkpoint_due(159.9)
    assert store.checkpoint_due(160.0)
    made = store.sign(7)
    assert made is not None
    assert made.size == 10
    assert store.sign(8) is None
    add(store, 11, 1_009)
    assert not store.checkpoint_due(200.0)
    add(store, 1_010, 1_010)
    assert store.checkpoint_due(200.0)
    store.close()
    again = opened(Keys())
    assert again.checkpoint == made
    assert not again.checkpoint_due(1e9)
    assert again.sign(9) is None
    again.close()


def test_a_checkpoint_is_signed_and_a_receipt_cosigns_it(opened: Open) -> None:
    store = opened()
    add(store, 1, 300)
    made = store.sign(1)
    assert made is not None
    origin = checkpoints.origin("box1", store.ledger)
    known = [Signer(origin, KEY).verifier, CLOUD.verifier]
    assert checkpoints.opened(made.note, known).checkpoint.size == 300

    line = checkpoints.cosignature(made.note, CLOUD, 1_700_000_000)
    for size in (299, 1 << 64, -1):
        assert f"no checkpoint of {size}" in store.cosign(size, line)
    stranger = Signer("cloud.example", note.new_key(), COSIGNER)
    refusal = store.cosign(300, checkpoints.cosignature(made.note, stranger, 1))
    assert refusal == "'cloud.example' is not in ledger.cosigners, by name and key"
    other = checkpoints.signed(
        checkpoints.Checkpoint(origin, 300, bytes(32)), [Signer(origin, KEY)]
    )
    assert "is false" in store.cosign(300, checkpoints.cosignature(other, CLOUD, 1))
    assert "not a signature line" in store.cosign(300, "hello")
    assert store.checkpoint == made

    assert store.cosign(300, line) == ""
    assert store.cosign(300, line) == ""
    store.close()
    store = opened()
    found = store.checkpoint
    store.close()
    assert found is not None
    assert checkpoints.opened(found.note, known).cosigners == {CLOUD.verifier: 1_700_000_000}


def test_one_key_follows_another_and_both_are_listed(opened: Open, tmp_path: Path) -> None:
    new = note.new_key()
    for last, private in ((10, (KEY,)), (20, (new, KEY)), (30, (new,))):
        store = opened(Keys(private))
        add(store, last - 9, last)
        made = store.sign(1)
        assert made is not None
        origin = checkpoints.origin("box1", store.ledger)
        for key in private:
            assert checkpoints.opened(made.note, [Signer(origin, key).verifier])
        store.close()
    with database_of(tmp_path / "ledger" / "ledger.db") as database:
        listed = database.execute("SELECT vkey, since FROM signer ORDER BY since").fetchall()
    assert listed == [
        (Signer(origin, KEY).verifier.vkey, 0),
        (Signer(origin, new).verifier.vkey, 10),
    ]


def test_checkpoints_are_bounded_in_number(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "MAX_CHECKPOINTS", 200)
    store = opened()
    for n in range(1, 231):
        add(store, n, n)
        store.sign(n)
    store.close()
    with database_of(tmp_path / "ledger" / "ledger.db") as database:
        sizes = [size for (size,) in database.execute("SELECT size FROM checkpoint ORDER BY size")]
    assert sizes[-1] == 230
    assert sizes == list(range(sizes[0], 231))
    assert 190 <= len(sizes) <= 200


def test_pruned_records_keep_their_leaves(opened: Open, tmp_path: Path) -> None:
    store = opened(retention=Retention(max_records=100))
    add(store, 1, 700)
    path = tmp_path / "ledger" / "ledger.db"
    store.receive(700, store.head.head)
    assert store.prune(time.time_ns()) == 500
    assert store.trim() == 0
    store.close()
    subtrees = tree_in(path, 700)
    path_of_7 = merkle.inclusion_proof(6, 700, subtrees)
    leaf = subtrees(0, 6)
    root = merkle.root(700, subtrees)
    assert merkle.root_by_inclusion(leaf, 6, 700, path_of_7) == root


def test_leaves_go_only_beyond_their_share_and_never_those_of_kept_records(
    opened: Open, tmp_path: Path
) -> None:
    # Half of the quota is room for 62 tiles: 15,872 leaves.
    store = opened(retention=Retention(max_records=100, max_bytes=1 << 20))
    size = 0
    pruned = 0
    while size < 80 * 256:
        add(store, size + 1, size + 64)
        size += 64
        store.receive(size, store.head.head)
        pruned += store.prune(time.time_ns())
        if size % 1_024 == 0:
            store.sign(size)
        while store.trim():
            assert store.anchor.seq > 0
    root = store.sign(size)
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    with database_of(path) as database:
        kept = database.execute("SELECT count(*), min(n) FROM tile WHERE level=0").fetchone()
        assert kept == (62, 18)
        assert database.execute("SELECT min(size) FROM checkpoint").fetchone()[0] >= 18 * 256
    # The tree above them is whole: the root, and a proof of what is kept.
    subtrees = tree_in(path, size)
    assert root is None or checkpoints.read(note.parse(root.note)).root == merkle.root(
        size, subtrees
    )
    assert merkle.inclusion_proof(size - 1, size, subtrees)
    with pytest.raises(StorageError, match="tile 0 of level 0 of the tree is missing"):
        merkle.inclusion_proof(5, size, tree_in(path, size))
    with reading.opened(path) as ledger:
        assert audited(ledger)[0].finding is None
        assert proving.prove(ledger, 18 * 256 + 1).record is None
        with pytest.raises(ProofError, match="leaf hashes before record 4609 were dropped"):
            proving.prove(ledger, 18 * 256)
        published = publishing.publish(ledger, tmp_path / "tiles")
    assert published.size == size
    assert not (tmp_path / "tiles" / "tile" / "0" / "017").exists()
    assert (tmp_path / "tiles" / "tile" / "0" / "018").exists()
    assert (tmp_path / "tiles" / "tile" / "1" / "000.p" / "80").exists()


def test_a_proof_reads_a_tile_or_two_a_level_and_has_a_hash_a_height(
    opened: Open, tmp_path: Path
) -> None:
    """200,000 leaves; `edge bench --only ledger` measures the same with ten million."""
    opened().close()
    path = tmp_path / "ledger" / "ledger.db"
    size = 200_000
    edge = Edge()
    with database_of(path) as database:
        database.execute("BEGIN")
        for first in range(0, size, 50_000):
            leaves = [merkle.leaf_hash(b"%d" % n) for n in range(first, first + 50_000)]
            edge, growth = edge.grown(leaves)
            tree.write(database, growth)
        database.execute("COMMIT")
        for index in (0, 99_999, 131_071, 131_072, size - 1):
            subtrees = TileReader(lambda level, n: tree.read_tile(database, level, n))
            found = merkle.inclusion_proof(index, size, subtrees)
            assert len(found) <= (size - 1).bit_length()
            assert subtrees.reads <= 2 * 3, "three levels, and the right edge of each"
            leaf = merkle.leaf_hash(b"%d" % index)
            assert merkle.root_by_inclusion(leaf, index, size, found) == edge.root()
        subtrees = TileReader(lambda level, n: tree.read_tile(database, level, n))
        merkle.consistency_proof(123_456, size, subtrees)
        assert subtrees.reads <= 2 * 3


def test_a_ledger_of_version_1_gets_its_tree_when_it_is_opened(
    opened: Open, tmp_path: Path
) -> None:
    store = opened()
    add(store, 1, 600)
    head = store.head
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    version_1(path)
    store = opened()
    assert store.head == head
    add(store, 601, 610)
    store.close()
    root = merkle.root_of([merkle.leaf_hash(body) for body in bodies(path)])
    assert merkle.root(610, tree_in(path, 610)) == root
    with database_of(path) as database:
        schema.check_schema(database, path)
        assert schema.version(database) == 2


def test_a_pruned_ledger_of_version_1_has_unknown_leaves_where_records_were(
    opened: Open, tmp_path: Path
) -> None:
    store = opened(retention=Retention(max_records=100))
    add(store, 1, 700)
    store.receive(700, store.head.head)
    assert store.prune(time.time_ns()) == 500
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    version_1(path)
    store = opened()
    add(store, 701, 710)
    made = store.sign(1)
    store.close()
    leaves = [bytes(32)] * 500 + [merkle.leaf_hash(body) for body in bodies(path)]
    assert made is not None
    assert checkpoints.read(note.parse(made.note)).root == merkle.root_of(leaves)
    assert merkle.inclusion_proof(600, 710, tree_in(path, 710))


def test_a_copy_of_version_1_is_read_and_left_as_it_is(opened: Open, tmp_path: Path) -> None:
    store = opened()
    add(store, 1, 300)
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    version_1(path)
    before = path.read_bytes()
    with reading.opened(path) as ledger:
        report, _ = audited(ledger)
    assert (report.finding, report.records) == (None, 300)
    assert path.read_bytes() == before


def test_a_kill_while_it_migrates_leaves_one_version_or_the_other(
    opened: Open, tmp_path: Path
) -> None:
    store = opened()
    add(store, 1, 3_000)
    head = store.head
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    version_1(path)
    program = (
        "import sys; from pathlib import Path; from edge.ledger.store import Retention, Store\n"
        "print('opening', flush=True); Store(Path(sys.argv[1]), 'box1', Retention())\n"
    )
    for delay_s in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path.parent)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"opening\n"
            time.sleep(delay_s)  # where in the migration the kill falls, not a wait for anything
            os.kill(child.pid, signal.SIGKILL)
        with database_of(path) as database:
            reached = schema.version(database)
            schema.check_schema(database, path)
        if reached == schema.SCHEMA_VERSION:
            version_1(path)
    store = opened()
    assert store.head == head
    store.close()
    root = merkle.root_of([merkle.leaf_hash(body) for body in bodies(path)])
    assert merkle.root(3_000, tree_in(path, 3_000)) == root


def test_other_versions_and_other_tables_are_refused(opened: Open, tmp_path: Path) -> None:
    store = opened()
    add(store, 1, 3)
    store.close()
    path = tmp_path / "ledger" / "ledger.db"
    version_1(path)
    with database_of(path) as database:
        database.execute("CREATE TABLE extra(x)")
    with pytest.raises(StorageError, match="its tables are not those of schema version 1"):
        opened()
    with database_of(path) as database:
        database.execute("PRAGMA user_version=3")
    with pytest.raises(StorageError, match="schema version 3; this software knows 2 only"):
        opened()
