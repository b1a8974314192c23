"""The end of a ledger, looked at when it is opened: nothing is added to what does not fit.

`edge ledger verify` looks at all of it.
"""

import sqlite3
from pathlib import Path
from typing import Final

from edge.errors import DamagedError
from edge.ledger import record as records
from edge.ledger import schema
from edge.ledger.merkle import leaf_hash
from edge.ledger.tree import Tree

TAIL_RECORDS: Final = 256
"""Records whose chain is checked, and whose leaves are, as far as the last tile goes."""
_REMEDY: Final = "see `edge ledger verify`; restore a backup, or move the folder away to begin anew"


Place = tuple[int, bytes]
"""A place in the chain, and the head there."""


def marks(database: sqlite3.Connection, path: Path) -> dict[str, Place]:
    """Return the marks of an open ledger.

    Raises:
        DamagedError: They are not all there.
    """
    rows = database.execute("SELECT name, seq, head FROM mark").fetchall()
    found = {
        name: (seq, head)
        for name, seq, head in (schema.checked(row, (str, int, bytes), path) for row in rows)
    }
    if set(found) != set(schema.MARKS):
        raise DamagedError(f"{path}: its marks are {sorted(found)}: it is damaged")
    return found


def tree(database: sqlite3.Connection, path: Path, anchor: Place, head: Place) -> Tree:
    """Compare the last records with each other, with the marks and with the tree.

    Args:
        database: An open ledger.
        path: Of it, for errors.
        anchor: Up to which records were pruned.
        head: The last record.

    Returns:
        The tree.

    Raises:
        DamagedError: They do not fit.
    """
    try:
        found = Tree(database, head[0])
    except DamagedError as damage:
        raise DamagedError(f"{path}: {damage} ({_REMEDY})") from damage
    first = max(anchor[0], head[0] - TAIL_RECORDS)
    seq, reached = (first, _head_at(database, first)) if first > anchor[0] else anchor
    rows = database.execute(
        "SELECT seq, body, head FROM record WHERE seq > ? ORDER BY seq", (first,)
    )
    leaves = []
    for row in rows:
        place, body, stored = schema.checked(row, (int, bytes, bytes), path)
        leaves.append(leaf_hash(body))
        seq, reached = seq + 1, records.linked(reached, leaves[-1])
        if place != seq or stored != reached:
            break
    else:
        if (seq, reached) == head:
            if found.edge.ends_with(leaves):
                return found
            raise DamagedError(
                f"{path}: the last records are not the last leaves of the Merkle tree; nothing is "
                f"added to it ({_REMEDY})"
            )
    raise DamagedError(
        f"{path}: the chain breaks at record {seq}; nothing is added to it ({_REMEDY})"
    )


def _head_at(database: sqlite3.Connection, seq: int) -> bytes:
    row = database.execute("SELECT head FROM record WHERE seq=?", (seq,)).fetchone()
    return bytes(row[0]) if row else b""  # the chain breaks there
