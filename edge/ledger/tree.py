"""The Merkle tree over a ledger's records, in its database. Used by the thread that owns that.

Rules:

1. Record `seq` is leaf `seq - 1`. The tree grows in the transaction that commits the records.
2. A full tile (`edge.ledger.tiles`) is one row, written once. The hashes of tiles that are not
   full are rows of their own, at most 255 a level: a commit writes 40 bytes a record, not a tile.
3. Hashes outlive the records. Only where they fill their share of the byte quota do leaf hashes
   go, whole tiles of pruned records, the oldest first, and the checkpoints under them. The levels
   above stay for ever (32 bytes per 256 records): the root, and proofs of what is kept, stay whole.
4. A leaf hash that nobody knows any more (pruned before the ledger had a tree) is 32 zero bytes: no
   record has it, so nothing can be proved of it.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from edge.errors import DamagedError
from edge.ledger.tiles import WIDTH, Edge, Growth

TABLES: Final = {
    "tile": (
        "CREATE TABLE tile("
        "level INTEGER NOT NULL, n INTEGER NOT NULL, hashes BLOB NOT NULL, "
        "PRIMARY KEY(level, n)) STRICT"
    ),
    "edge": (
        "CREATE TABLE edge("
        "level INTEGER NOT NULL, n INTEGER NOT NULL, hash BLOB NOT NULL, "
        "PRIMARY KEY(level, n)) STRICT, WITHOUT ROWID"
    ),
    "checkpoint": (
        "CREATE TABLE checkpoint("
        "size INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, note BLOB NOT NULL) STRICT"
    ),
    "signer": "CREATE TABLE signer(vkey TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT",
}
"""`tile` has the full ones; `edge` the hashes of those that are not, numbered through their level.
`checkpoint` has the signed notes, cosignatures in them; `signer` the public keys of this ledger,
and after which record each began to sign."""

Database = sqlite3.Connection
UNKNOWN: Final = bytes(32)
_LEVELS: Final = 8
"""As many as 2**64 records have."""
_TILE_BYTES: Final = 8_400
"""Of the database, for a row of `tile`."""
_DROPPED_TILES: Final = 16
"""In one transaction."""


class Tree:
    """The tree, open.

    Args:
        database: Its connection.
        size: Records.

    Attributes:
        edge: What it grows from, as committed.

    Raises:
        DamagedError: Its rows are not those of so many records.
    """

    def __init__(self, database: sqlite3.Connection, size: int) -> None:
        self._database = database
        self.edge = read_edge(database, size)

    def write(self, leaves: Sequence[bytes]) -> Edge:
        """Write what more leaves change, inside of the caller's transaction.

        Returns:
            The edge after them; to be set once the transaction is committed.
        """
        edge, growth = self.edge.grown(leaves)
        write(self._database, growth)
        return edge

    def beyond(self, anchor: int, max_bytes: int) -> tuple[int, int]:
        """Return which tiles of leaf hashes should go now (rule 3): from, and up to but not with.

        Args:
            anchor: Up to where records were pruned.
            max_bytes: The share of the quota.
        """
        first, last = self._database.execute(
            "SELECT min(n), max(n) FROM tile WHERE level=0"
        ).fetchone()
        if first is None:
            return 0, 0
        surplus = (last - first + 1) - max(max_bytes // _TILE_BYTES, 1)
        going = min(surplus, anchor // WIDTH - first, _DROPPED_TILES)
        return first, first + max(going, 0)

    def drop(self, floor: int) -> None:
        """Drop the tiles of leaf hashes below one, inside of the caller's transaction."""
        self._database.execute("DELETE FROM tile WHERE level=0 AND n < ?", (floor,))
        # A checkpoint inside of them could not be recomputed any more.
        self._database.execute("DELETE FROM checkpoint WHERE size < ?", (floor * WIDTH,))


def write(database: sqlite3.Connection, growth: Growth) -> None:
    """Write what changed, inside of the caller's transaction."""
    for level in {level for level, _, _ in growth.filled}:
        database.execute("DELETE FROM edge WHERE level=?", (level,))
    database.executemany("INSERT INTO tile VALUES(?, ?, ?)", growth.filled)
    database.executemany("INSERT INTO edge VALUES(?, ?, ?)", growth.hashes)


def read_edge(database: sqlite3.Connection, size: int) -> Edge:
    """Return the edge as it is stored.

    Raises:
        DamagedError: Its rows are not those of so many records.
    """
    rows: list[list[bytes]] = []
    for level, n, one in database.execute("SELECT level, n, hash FROM edge ORDER BY level, n"):
        if (type(level), type(n), type(one)) != (int, int, bytes) or not 0 <= level < _LEVELS:
            raise DamagedError("the Merkle tree has a row that is none of its last tiles'")
        while len(rows) <= level:
            rows.append([])
        expected = (size >> 8 * level) // WIDTH * WIDTH + len(rows[level])
        if n != expected:
            raise DamagedError(
                f"the Merkle tree has hash {n} of level {level} where {expected} belongs"
            )
        rows[level].append(one)
    return Edge(size, rows)


def read_tile(database: sqlite3.Connection, level: int, n: int) -> bytes:
    """Return the hashes of a tile, full or not; empty where there are none."""
    row = database.execute("SELECT hashes FROM tile WHERE level=? AND n=?", (level, n)).fetchone()
    if row is not None:
        return _hash(row[0])
    rows = database.execute(
        "SELECT hash FROM edge WHERE level=? AND n >= ? AND n < ? ORDER BY n",
        (level, n * WIDTH, (n + 1) * WIDTH),
    )
    return b"".join(_hash(one) for (one,) in rows)


def _hash(found: object) -> bytes:
    if not isinstance(found, bytes):
        raise DamagedError("the Merkle tree has something else where hashes belong")
    return found
