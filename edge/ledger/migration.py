"""From schema version 1, a chain alone, to version 2: a Merkle tree, overrides, an index of parts.

All of it is one transaction: a power cut leaves version 1 or version 2. No record is touched.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from edge.errors import DamagedError
from edge.ledger import tree
from edge.ledger.merkle import leaf_hash
from edge.ledger.tiles import WIDTH, Edge

TABLES_1: Final = {
    "origin": (
        "CREATE TABLE origin("
        "ledger TEXT NOT NULL, device TEXT NOT NULL, created_at_ns INTEGER NOT NULL) STRICT"
    ),
    "record": (
        "CREATE TABLE record("
        "seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, pipeline TEXT NOT NULL, "
        "frame_id TEXT NOT NULL, frame BLOB NOT NULL, part_id TEXT NOT NULL, "
        "fingerprint INTEGER NOT NULL, body BLOB NOT NULL, head BLOB NOT NULL) STRICT"
    ),
    "record_frame": "CREATE UNIQUE INDEX record_frame ON record(pipeline, frame_id, frame)",
    "mark": (
        "CREATE TABLE mark(name TEXT PRIMARY KEY, seq INTEGER NOT NULL, head BLOB NOT NULL) STRICT"
    ),
}
_LEAVES: Final = 4_096
"""Read at once."""


def migrate(database: sqlite3.Connection, tables: Mapping[str, str]) -> None:
    """Bring a database of version 1 to version 2; `tables` are those of version 2.

    A record of an altered ledger gets the leaf that its bytes have now: the chain shows it still.

    Raises:
        DamagedError: It does not say where it begins and ends.
    """
    database.execute("BEGIN IMMEDIATE")
    try:
        database.execute("DROP INDEX record_frame")
        for name, statement in tables.items():
            if TABLES_1.get(name) != statement:
                database.execute(statement)
        _plant(database)
        database.execute("PRAGMA user_version=2")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _plant(database: sqlite3.Connection) -> None:
    """Lay the tree over the records that are there."""
    marks = dict(database.execute("SELECT name, seq FROM mark").fetchall())
    if not {"anchor", "head"} <= set(marks):
        raise DamagedError(f"the marks of the ledger are {sorted(marks)}: it is damaged")
    anchor, head = marks["anchor"], marks["head"]
    edge, leaves = Edge(), _leaves(database, anchor, head)
    while some := list(islice(leaves, _LEAVES)):
        edge, growth = edge.grown(some)
        tree.write(database, growth)
    # Nothing can be proved of leaves that nobody knows.
    database.execute("DELETE FROM tile WHERE level=0 AND n < ?", (anchor // WIDTH,))


def _leaves(database: sqlite3.Connection, anchor: int, head: int) -> Iterator[bytes]:
    for _ in range(anchor):
        yield tree.UNKNOWN
    rows: Iterable[tuple[int, bytes]] = database.execute(
        "SELECT seq, body FROM record WHERE seq > ? ORDER BY seq", (anchor,)
    )
    at = anchor
    for seq, body in rows:
        # A damaged ledger may lack some; opening and `verify` say so.
        while at + 1 < seq <= head:
            yield tree.UNKNOWN
            at += 1
        yield leaf_hash(body)
        at += 1
    while at < head:
        yield tree.UNKNOWN
        at += 1
