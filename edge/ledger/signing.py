"""Checkpoints in the database: signed when due, cosigned by receipts. Used by one thread.

Rules:

1. A checkpoint is due when 1,000 records, or any for 60 s, are not under one. It is signed after
   the records were committed, so that none is ever signed that a power cut could take back.
2. All keys given sign each checkpoint: while one key follows another, both are given, and whoever
   knows either can check. Keys that signed are listed, with the size after which each began.
3. A cosignature is kept if it is by a known cosigner, and true; else it says nothing.
"""

import sqlite3
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.errors import ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger.checkpoint import MAX_SIZE, Checkpoint
from edge.ledger.note import Signer, Verifier
from edge.ledger.tiles import Edge

DUE_RECORDS: Final = 1_000
DUE_S: Final = 60.0
MAX_CHECKPOINTS: Final = 100_000
"""Kept, 30 MB or so; the oldest go first."""


class Keys(msgspec.Struct, frozen=True):
    """Who signs.

    Attributes:
        private: The device's; none: no checkpoint is made.
        cosigners: Whose cosignatures count.
    """

    private: tuple[Ed25519PrivateKey, ...] = ()
    cosigners: tuple[Verifier, ...] = ()


NO_KEYS: Final = Keys()


class Kept(msgspec.Struct, frozen=True):
    """A checkpoint that the ledger holds."""

    size: int
    note: bytes


class Signing:
    """The checkpoints of an open ledger.

    Args:
        database: Its connection.
        origin: Of its checkpoints.
        keys: Who signs.

    Attributes:
        latest: The last checkpoint; None: there is none.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        origin: str,
        keys: Keys,
    ) -> None:
        self._database = database
        self._origin = origin
        self._signers = [Signer(origin, key) for key in keys.private]
        self._cosigners = keys.cosigners
        self._unsigned_since_s: float | None = None
        rows = database.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1")
        self.latest = next((Kept(size, note) for size, note in rows), None)
        self._count = self._counted()

    def due(self, size: int, now_s: float) -> bool:
        """Whether a ledger of so many records should be signed now (monotonic seconds)."""
        unsigned = self.unsigned(size)
        if not unsigned:
            self._unsigned_since_s = None
            return False
        if self._unsigned_since_s is None:
            self._unsigned_since_s = now_s
        return unsigned >= DUE_RECORDS or now_s - self._unsigned_since_s >= DUE_S

    def unsigned(self, size: int) -> int:
        """Return how many of so many records are to be signed yet; 0 where there is no key."""
        return size - (self.latest.size if self.latest else 0) if self._signers else 0

    def sign(self, tree: Edge, at_ns: int) -> Kept:
        """Sign the tree, and write that down inside of the caller's transaction.

        Returns:
            The checkpoint; to be accepted once the transaction is committed.
        """
        note = checkpoints.signed(Checkpoint(self._origin, tree.size, tree.root()), self._signers)
        since = self.latest.size if self.latest else 0
        self._database.executemany(
            "INSERT INTO signer VALUES(?, ?) ON CONFLICT DO NOTHING",
            [(signer.verifier.vkey, since) for signer in self._signers],
        )
        self._database.execute("INSERT INTO checkpoint VALUES(?, ?, ?)", (tree.size, at_ns, note))
        self._count += 1
        if self._count > MAX_CHECKPOINTS:
            # Some at once: to count them is to read them all.
            self._database.execute(
                "DELETE FROM checkpoint WHERE size <= "
                "(SELECT size FROM checkpoint ORDER BY size LIMIT 1 OFFSET ?)",
                (MAX_CHECKPOINTS // 100,),
            )
            self._count = self._counted()
        return Kept(tree.size, note)

    def accept(self, made: Kept) -> None:
        """Take note that a checkpoint is committed."""
        self.latest = made
        self._unsigned_since_s = None

    def cosigned(self, size: int, line: str) -> tuple[str, bytes]:
        """Return why a cosignature is refused, or ""; and the checkpoint of `size` with it."""
        row = None
        if 0 < size <= MAX_SIZE:  # SQLite has no number for what lies far beyond
            row = self._database.execute(
                "SELECT note FROM checkpoint WHERE size=?", (size,)
            ).fetchone()
        if row is None:
            return f"there is no checkpoint of {size} records", b""
        try:
            signature = notes.parse_signature(line)
            text = notes.parse(row[0]).text
            by_known = any(one.time_signed(text, signature) is not None for one in self._cosigners)
            note = checkpoints.with_line(row[0], line)
        except ProofError as wrong:
            return str(wrong), b""
        if not by_known:
            return f"{signature.name[:80]!r} is not in ledger.cosigners, by name and key", b""
        return "", note

    def replace(self, size: int, note: bytes) -> None:
        """Write a checkpoint with its cosignatures, inside of the caller's transaction."""
        self._database.execute("UPDATE checkpoint SET note=? WHERE size=?", (note, size))
        if self.latest is not None and self.latest.size == size:
            self.latest = Kept(size, note)

    def _counted(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM checkpoint").fetchone()[0])
