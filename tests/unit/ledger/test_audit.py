"""Whatever is done to a copy of a ledger is found, by verify and what was kept elsewhere."""

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from ledgers import entry

from edge.errors import ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import merkle, note, reading, tree
from edge.ledger.audit import Audit
from edge.ledger.checkpoint import Checkpoint
from edge.ledger.note import Signer, Verifier
from edge.ledger.proving import audited
from edge.ledger.record import GENESIS, linked
from edge.ledger.signing import Keys
from edge.ledger.store import Prepared, Retention, Store
from edge.ledger.tiles import Edge
from edge.ledger.verify import Finding, Report

KEY = note.new_key()
SIGNED = (250, 400, 700)
RECORDS = 710
OLD = 400


class Made(NamedTuple):
    """A ledger, and what of it was kept elsewhere."""

    folder: Path
    pruned: Path
    older: Path
    notes: dict[int, bytes]
    key: Verifier


def add(store: Store, first: int, last: int) -> None:
    for at in range(first, last + 1, 64):
        some = range(at, min(at + 64, last + 1))
        store.append([Prepared(entry(n), b"%032d" % n) for n in some])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("state")
    notes, last = {}, 0
    for size in SIGNED:
        store = Store(folder / "ledger", "box1", Retention(), Keys((KEY,)))
        add(store, last + 1, size)
        kept = store.sign(1)
        assert kept is not None
        notes[size], last = kept.note, size
        store.close()
        if size == OLD:
            shutil.copytree(folder / "ledger", folder / "older")
    store = Store(folder / "ledger", "box1", Retention())
    add(store, last + 1, RECORDS)
    store.receive(RECORDS, store.head.head)
    store.close()
    shutil.copytree(folder / "ledger", folder / "pruned")
    store = Store(folder / "pruned", "box1", Retention(max_records=150))
    while store.prune(time.time_ns()):
        pass
    origin = checkpoints.origin("box1", store.ledger)
    store.close()
    key = Signer(origin, KEY).verifier
    return Made(folder / "ledger", folder / "pruned", folder / "older", notes, key)


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    shutil.copytree(made.folder, tmp_path / "copy")
    return tmp_path / "copy"


@contextlib.contextmanager
def database_of(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as opened:
        yield opened


def checked(
    folder: Path, known: tuple[Verifier, ...] = (), elsewhere: tuple[bytes, ...] = ()
) -> tuple[Report, Audit]:
    with reading.opened(folder / "ledger.db") as ledger:
        return audited(ledger, known, None, elsewhere)


def found(
    folder: Path, known: tuple[Verifier, ...] = (), elsewhere: tuple[bytes, ...] = ()
) -> Finding:
    finding = checked(folder, known, elsewhere)[0].finding
    assert finding is not None, "nothing was found"
    return finding


def rewrite(folder: Path, seq: int, last: int = RECORDS) -> None:
    """What whoever can write the file, but has no key, can do best: alter a record, and lay chain,
    marks and tree anew, so that all of them fit."""
    with database_of(folder) as database:
        rows = database.execute("SELECT seq, body FROM record ORDER BY seq").fetchall()
        head, leaves = GENESIS, []
        for at, body in rows:
            document = json.loads(body)
            document["prev"] = head.hex()
            if at == seq:
                assert document["verdict"] == "reject"
                document["verdict"] = "pass"
            body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()  # noqa: PLW2901
            leaves.append(merkle.leaf_hash(body))
            head = linked(head, leaves[-1])
            database.execute("UPDATE record SET body=?, head=? WHERE seq=?", (body, head, at))
        database.execute("UPDATE mark SET head=? WHERE name IN ('head', 'receipt')", (head,))
        replant(database, leaves)
    assert len(leaves) == last


def replant(database: sqlite3.Connection, leaves: list[bytes]) -> bytes:
    database.execute("DELETE FROM tile")
    database.execute("DELETE FROM edge")
    edge, growth = Edge().grown(leaves)
    tree.write(database, growth)
    return edge.root()


def test_a_ledger_left_alone_is_sound_whole_pruned_and_unsigned_at_its_end(made: Made) -> None:
    for folder, first in ((made.folder, 1), (made.pruned, RECORDS - 149)):
        report, beside = checked(folder, (made.key,), tuple(made.notes.values()))
        assert report.finding is None
        assert (report.first, report.last) == (first, RECORDS)
        assert (beside.checkpoints, beside.signed) == (6, 700)


FLIPPED = {
    "body": ("record", "body", "seq", 333, "altered", 333),
    "head": ("record", "head", "seq", 333, "altered", 333),
    "frame": ("record", "frame", "seq", 333, "altered", 333),
    "leaf": ("tile", "hashes", "level=0 AND n", 1, "tree", None),
    "last leaf": ("edge", "hash", "level=0 AND n", 705, "tree", 706),
    "inner hash": ("edge", "hash", "level=1 AND n", 1, "tree", RECORDS),
    "checkpoint": ("checkpoint", "note", "size", 400, "checkpoint", 400),
    "receipt": ("mark", "head", "name", "receipt", "rewritten", RECORDS),
}


@pytest.mark.parametrize("what", FLIPPED)
def test_a_byte_altered_anywhere_is_found_and_located(made: Made, copy: Path, what: str) -> None:
    table, column, by, which, kind, seq = FLIPPED[what]
    with database_of(copy) as database:
        query = f"SELECT {column} FROM {table} WHERE {by}=?"
        (value,) = database.execute(query, (which,)).fetchone()
        places = [*range(0, len(value), max(1, len(value) // 8)), len(value) - 1]
    for at in places:
        altered = bytearray(value)
        altered[at] ^= 0x11
        with database_of(copy) as database:
            database.execute(f"UPDATE {table} SET {column}=? WHERE {by}=?", (bytes(altered), which))
        finding = found(copy, (made.key,))
        assert finding.kind == kind
        if seq is None:
            seq_there = 256 * 1 + at // 32 + 1
            assert finding.seq == seq_there
        else:
            assert finding.seq == seq
    with database_of(copy) as database:
        database.execute(f"UPDATE {table} SET {column}=? WHERE {by}=?", (value, which))
    assert checked(copy)[0].finding is None


SPOILED = {
    "a record removed": ("DELETE FROM record WHERE seq=333", "removed", 333),
    "the last records removed": ("DELETE FROM record WHERE seq>700", "removed", 701),
    "two records swapped": (
        "UPDATE record SET body=(SELECT body FROM record AS o WHERE o.seq=667-record.seq) "
        "WHERE seq IN (333, 334)",
        "displaced",
        333,
    ),
    "a tile removed": ("DELETE FROM tile WHERE level=0 AND n=1", "tree", 257),
    "all tiles removed": ("DELETE FROM tile", "tree", 1),
    "a tile shortened": ("UPDATE tile SET hashes=substr(hashes, 1, 8000) WHERE n=1", "tree", 257),
    "a hash at the edge removed": ("DELETE FROM edge WHERE n=600", "tree", 513),
    "an upper hash removed": ("DELETE FROM edge WHERE level=1 AND n=0", "tree", RECORDS),
    "hashes put in": ("INSERT INTO edge VALUES(0, 710, zeroblob(32))", "tree", RECORDS),
    "a tile put in": ("INSERT INTO tile VALUES(0, 9, zeroblob(8192))", "tree", RECORDS),
    "a checkpoint moved": ("UPDATE checkpoint SET size=401 WHERE size=400", "checkpoint", 401),
    "checkpoints exchanged": (
        "UPDATE checkpoint SET note=(SELECT note FROM checkpoint WHERE size=250) WHERE size=400",
        "checkpoint",
        400,
    ),
    "a key altered": ("UPDATE signer SET vkey=vkey || 'A'", "ProofError", 0),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_removed_moved_or_put_in_is_found(made: Made, copy: Path, what: str) -> None:
    statement, kind, seq = SPOILED[what]
    with database_of(copy) as database:
        assert database.execute(statement).rowcount > 0
    if kind == "ProofError":
        with pytest.raises(ProofError, match=r"not a|is not an Ed25519 key"):
            found(copy)
        return
    finding = found(copy, (made.key,))
    assert (finding.kind, finding.seq) == (kind, seq)


def test_a_record_rewritten_with_chain_and_tree_is_found_by_the_checkpoints(
    made: Made, copy: Path
) -> None:
    rewrite(copy, 334)
    finding = found(copy)
    assert (finding.kind, finding.seq) == ("rewritten", 251)
    assert "of records 251 to 400, one was altered, removed or put in" in finding.detail


def test_without_its_checkpoints_it_is_found_by_one_kept_elsewhere(made: Made, copy: Path) -> None:
    rewrite(copy, 334)
    with database_of(copy) as database:
        database.execute("DELETE FROM checkpoint")
    assert checked(copy)[0].finding is None, "a control: by itself it looks sound"
    finding = found(copy, (made.key,), (made.notes[700],))
    assert (finding.kind, finding.seq) == ("rewritten", 1)
    assert "the checkpoint kept elsewhere of 700 records" in finding.detail


def test_a_rewritten_end_that_no_checkpoint_covers_is_found_by_the_cloud_only(copy: Path) -> None:
    """What the docs say: until it is signed or receipted, the last minute may be rewritten."""
    rewrite(copy, 706)
    assert checked(copy)[0].finding is None


def test_checkpoints_signed_by_another_key_are_found_by_who_knows_the_key(
    made: Made, copy: Path
) -> None:
    rewrite(copy, 334)
    forger = Signer(made.key.name, note.new_key())
    with database_of(copy) as database:
        leaves = [
            merkle.leaf_hash(body)
            for (body,) in database.execute("SELECT body FROM record ORDER BY seq")
        ]
        for size in SIGNED:
            tree_there = Checkpoint(made.key.name, size, merkle.root_of(leaves[:size]))
            forged = checkpoints.signed(tree_there, [forger])
            database.execute("UPDATE checkpoint SET note=? WHERE size=?", (forged, size))
        database.execute("UPDATE signer SET vkey=?", (forger.verifier.vkey,))
    assert checked(copy)[0].finding is None, "a control: by itself it looks sound"
    finding = found(copy, (made.key,))
    assert (finding.kind, finding.seq) == ("checkpoint", 250)
    assert "no known key of the log signed" in finding.detail


def test_an_older_database_put_in_its_place_is_found_by_a_checkpoint(made: Made) -> None:
    assert checked(made.older)[0].finding is None, "a control: by itself it looks sound"
    finding = found(made.older, (made.key,), (made.notes[700],))
    assert (finding.kind, finding.seq) == ("removed", 401)
    assert "records 401 to 700 are missing" in finding.detail


def test_a_ledger_that_went_on_from_an_older_database_is_found_as_forked(
    made: Made, tmp_path: Path
) -> None:
    shutil.copytree(made.older, tmp_path / "fork")
    store = Store(tmp_path / "fork", "box1", Retention(), Keys((KEY,)))
    add(store, 5_001, 5_500)
    store.sign(1)
    store.close()
    assert checked(tmp_path / "fork")[0].finding is None, "a control: by itself it looks sound"
    finding = found(tmp_path / "fork", (made.key,), (made.notes[700],))
    assert (finding.kind, finding.seq) == ("rewritten", 401)


def test_a_checkpoint_of_another_ledger_is_no_witness(made: Made) -> None:
    other = Signer("edge/box1/ffffffffffffffff", KEY)
    theirs = checkpoints.signed(Checkpoint(other.verifier.name, 1, bytes(32)), [other])
    finding = found(made.folder, (made.key, other.verifier), (theirs,))
    assert finding.kind == "checkpoint"
    assert "it is of 'edge/box1/ffffffffffffffff'" in finding.detail
    finding = found(made.folder, (made.key,), (b"hello",))
    assert "the checkpoint kept elsewhere: not a signed note" in finding.detail


@pytest.mark.parametrize("leaf", [3, 300])
def test_a_leaf_of_a_pruned_record_cannot_be_altered(made: Made, tmp_path: Path, leaf: int) -> None:
    shutil.copytree(made.pruned, tmp_path / "copy")
    with database_of(tmp_path / "copy") as database:
        query = "SELECT hashes FROM tile WHERE level=0 AND n=?"
        (tile,) = database.execute(query, (leaf // 256,)).fetchone()
        spoiled = bytearray(tile)
        spoiled[leaf % 256 * 32] ^= 1
        database.execute(
            "UPDATE tile SET hashes=? WHERE level=0 AND n=?", (bytes(spoiled), leaf // 256)
        )
    finding = found(tmp_path / "copy", (made.key,))
    # 1 to 256: no checkpoint lies in the first tile but that of 250 records, which is seen first.
    assert (finding.kind, finding.seq) == ("rewritten", 1 if leaf < 250 else 251)


def test_leaf_hashes_of_pruned_records_may_be_dropped_and_of_kept_ones_not(
    made: Made, tmp_path: Path
) -> None:
    shutil.copytree(made.pruned, tmp_path / "copy")
    with database_of(tmp_path / "copy") as database:
        database.execute("DELETE FROM tile WHERE level=0 AND n=0")
        database.execute("DELETE FROM checkpoint WHERE size < 256")
    report, beside = checked(tmp_path / "copy", (made.key,), (made.notes[250],))
    assert report.finding is None
    assert (beside.checkpoints, beside.signed, beside.incomparable) == (2, 700, 1)
    with database_of(tmp_path / "copy") as database:
        database.execute("UPDATE edge SET hash=zeroblob(32) WHERE level=1 AND n=0")
    finding = found(tmp_path / "copy", (made.key,))
    assert finding.kind == "rewritten", "an upper hash stands for what was dropped"


def test_records_that_go_without_a_receipt_were_not_pruned(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.older, tmp_path / "copy")  # nothing of it is receipted
    with database_of(tmp_path / "copy") as database:
        (head,) = database.execute("SELECT head FROM record WHERE seq=9").fetchone()
        database.execute("DELETE FROM record WHERE seq <= 9")
        database.execute("UPDATE mark SET seq=9, head=? WHERE name='anchor'", (head,))
    finding = found(tmp_path / "copy", (made.key,))
    assert (finding.kind, finding.seq) == ("removed", 1)
    assert "records 1 to 9 were removed, and the cloud has not receipted them" in finding.detail
