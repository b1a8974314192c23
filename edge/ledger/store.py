"""Transactions on the one connection: append, receive receipts, prune, find. Used by one thread.

Rules:

1. Records, the chain's head and what the outbox owes change in one transaction. The outbox is no
   table of its own: it is the records above the mark `receipt`, so the two cannot disagree.
2. A frame's record is written once: the same pipeline, frame id and frame digest again give the
   place that it has. Other pixels under an old frame id are another frame (a camera that counts
   anew), and are recorded.
3. Only what was receipted is pruned, oldest first; the mark `anchor` keeps the head before the
   oldest record, so that what remains can be verified.
4. The Merkle tree grows in the transaction of the records, and outlives them (`edge.ledger.tree`).
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import DamagedError
from edge.ledger import lookup, schema, tail
from edge.ledger import record as records
from edge.ledger.checkpoint import origin
from edge.ledger.entry import Correction, Entry
from edge.ledger.lookup import Given
from edge.ledger.merkle import leaf_hash
from edge.ledger.record import Pending
from edge.ledger.reserve import RESERVE_BYTES
from edge.ledger.schema import FullError, Lock
from edge.ledger.signing import NO_KEYS, Kept, Keys, Signing

PRUNE_RECORDS: Final = 500
"""Records pruned in one transaction: 5 to 10 ms, which new records may have to wait."""
_HIGH_WATER: Final = 0.9
"""Share of the byte quota above which receipted records go, so that new ones find room."""
_TREE_SHARE: Final = 0.5
"""Share of the byte quota that leaf hashes may take: at 1 GiB 16 million of them."""


@dataclass(frozen=True)
class Retention:
    """How much is kept. Nothing that the cloud has not receipted is ever pruned.

    Attributes:
        max_records: Receipted records beyond so many go.
        max_age_s: Receipted records older than this go.
        max_bytes: Size that the database may reach, at least 1 MiB. Full of records that are not
            receipted, it takes no more: backpressure. The WAL takes up to 8 MiB besides.
    """

    max_records: int = 5_000_000
    max_age_s: int = 90 * 86_400
    max_bytes: int = 1 << 30


class Mark(msgspec.Struct, frozen=True):
    """A place in the chain: the head after record `seq`; 0 is before the first."""

    seq: int
    head: bytes


class Prepared(msgspec.Struct, frozen=True):
    """An entry whose frame was digested."""

    entry: Entry
    frame: bytes


class Store:
    """The ledger's database.

    Args:
        folder: Its folder; made if absent. Locked until `close`.
        device: The device's id.
        retention: What is kept.
        keys: That sign checkpoints, and those whose cosignatures count.

    Attributes:
        ledger: Name of the ledger.
        head: The last record.
        receipt: Up to where the cloud holds all.
        anchor: Up to where records were pruned.

    Raises:
        StorageError: It cannot be opened, or its last records do not fit each other.
    """

    def __init__(
        self, folder: Path, device: str, retention: Retention, keys: Keys = NO_KEYS
    ) -> None:
        self.path = folder / schema.DATABASE
        self._retention = retention
        self._lock = Lock(folder)
        try:
            self._database, self.ledger = schema.connect(folder, device, self._lock)
        except BaseException:
            self._lock.release()
            raise
        try:
            with self._errors():
                self._limit()
                marks = tail.marks(self._database, self.path)
                self.anchor, self.receipt, self.head = (Mark(*marks[n]) for n in schema.MARKS)
                self._tree = tail.tree(self._database, self.path, marks["anchor"], marks["head"])
                self._signing = Signing(self._database, origin(device, self.ledger), keys)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Carry the WAL into the database, and let go of the folder."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        self._lock.release()

    def append(self, batch: Sequence[Prepared]) -> list[int]:
        """Commit a batch; when this returns, it is on the medium.

        Returns:
            The place of each entry (rule 2: an old one for a repeated frame).

        Raises:
            StorageError: Nothing of the batch was written.
        """
        places, leaves = [], []
        seq, head = self.head.seq, self.head.head
        with self._quota(), self._transaction():
            for prepared in batch:
                body = records.encode(
                    prepared.entry, prepared.frame.hex(), self.ledger, seq + 1, head
                )
                leaf = leaf_hash(body)
                after = records.linked(head, leaf)
                if self._insert(_row(seq + 1, prepared, body, after)):
                    seq, head = seq + 1, after
                    places.append(seq)
                    leaves.append(leaf)
                else:
                    places.append(self._place(prepared))
            edge = self._tree.write(leaves)
            self._move_mark("head", Mark(seq, head))
        self.head, self._tree.edge = Mark(seq, head), edge
        return places

    def override(self, correction: Correction, at_ns: int) -> tuple[str, int]:
        """Commit what a person says of a verdict.

        Args:
            correction: Names the verdict by its place, or by its part.
            at_ns: UTC.

        Returns:
            Why it was refused, or ""; and its place, or 0.

        Raises:
            StorageError: Nothing was written.
        """
        with self._errors():
            refusal, body = lookup.meant(self._database, correction, self.head.seq)
        if refusal:
            return refusal, 0
        of, seq = records.decode_verdict(body), self.head.seq + 1
        said = records.encode_override(correction, of, leaf_hash(body), at_ns, seq, self.head.head)
        leaf = leaf_hash(said)
        after = records.linked(self.head.head, leaf)
        with self._quota(), self._transaction():
            row = (seq, at_ns, of.pipeline, of.frame_id, b"", of.part_id, 0, said, after)
            self._insert(row)
            edge = self._tree.write([leaf])
            self._move_mark("head", Mark(seq, after))
        self.head, self._tree.edge = Mark(seq, after), edge
        return "", seq

    @property
    def checkpoint(self) -> Kept | None:
        """The last checkpoint."""
        return self._signing.latest

    def checkpoint_due(self, now_s: float) -> bool:
        """Whether the records should be signed now (monotonic seconds)."""
        return self._signing.due(self.head.seq, now_s)

    def sign(self, at_ns: int) -> Kept | None:
        """Sign what is committed, where that is not signed yet; return the checkpoint.

        Args:
            at_ns: UTC, for people; it is not signed.

        Raises:
            StorageError: It could not be written down; nobody has seen it.
        """
        if not self._signing.unsigned(self.head.seq):
            return None
        with self._quota(), self._transaction():
            made = self._signing.sign(self._tree.edge, at_ns)
        self._signing.accept(made)
        return made

    def cosign(self, size: int, line: str) -> str:
        """Add the cloud's cosignature to the checkpoint of `size` records.

        Returns:
            Why it was refused; empty when it was taken.

        Raises:
            StorageError: It could not be written down.
        """
        with self._errors():
            refusal, note = self._signing.cosigned(size, line)
        if not refusal:
            with self._quota(), self._transaction():
                self._signing.replace(size, note)
        return refusal

    def pending(self, after: int, limit: int) -> list[Pending]:
        """Return up to `limit` records above `after` that are not receipted, in order."""
        with self._errors():
            rows = self._database.execute(
                "SELECT seq, body FROM record WHERE seq > ? ORDER BY seq LIMIT ?",
                (max(after, self.receipt.seq), limit),
            )
            return [Pending(seq, body) for seq, body in rows]

    def receive(self, seq: int, head: bytes) -> str:
        """Take the cloud's word that it holds all up to `seq`; repetitions change nothing.

        Returns:
            Why the receipt was refused; empty when it was taken.

        Raises:
            StorageError: It could not be written down.
        """
        if not 0 < seq <= self.head.seq:
            return f"record {seq} does not exist: the last one is {self.head.seq}"
        if seq < self.anchor.seq:
            return ""  # pruned: it was receipted before
        with self._errors():
            ours = self._head_at(seq)
            if ours != head:
                return f"the head at record {seq} is {ours.hex()}, not {head.hex()}"
            if seq > self.receipt.seq:
                with self._transaction():
                    self._move_mark("receipt", Mark(seq, head))
                self.receipt = Mark(seq, head)
        return ""

    def prune(self, now_ns: int, *, full: bool = False) -> int:
        """Remove some of the receipted records that are beyond the quotas; return how many.

        Args:
            now_ns: UTC. A clock that jumps ahead prunes too early only what the cloud holds.
            full: No record finds room: some go even if the quotas would keep them.
        """
        with self._errors():
            rows = self._database.execute(
                "SELECT seq, at_ns, head FROM record WHERE seq <= ? ORDER BY seq LIMIT ?",
                (self.receipt.seq, PRUNE_RECORDS),
            ).fetchall()
            newest_to_go = self.head.seq - self._retention.max_records
            oldest_kept_ns = now_ns - self._retention.max_age_s * 1_000_000_000
            cramped = full or self.used_bytes() > _HIGH_WATER * self._retention.max_bytes
            last: Mark | None = None
            for seq, at_ns, head in rows:
                if not (cramped or seq <= newest_to_go or at_ns < oldest_kept_ns):
                    break
                last = Mark(seq, head)
            if last is None:
                return 0
            with self._transaction():
                removed = self._database.execute("DELETE FROM record WHERE seq <= ?", (last.seq,))
                self._move_mark("anchor", last)
            self.anchor = last
            return removed.rowcount

    def trim(self) -> int:
        """Drop leaf hashes of pruned records beyond their share; return how many tiles went."""
        share = int(_TREE_SHARE * self._retention.max_bytes)
        with self._errors():
            first, floor = self._tree.beyond(self.anchor.seq, share)
        if floor > first:
            with self._transaction():
                self._tree.drop(floor)
        return floor - first

    def recent(self, pipeline: str, limit: int) -> list[Given]:
        """Return a pipeline's last `limit` verdicts, oldest first (`lookup.recent`)."""
        with self._errors():
            return lookup.recent(self._database, pipeline, limit, self.head.seq)

    def find(self, pipeline: str, frame_id: str) -> Given | None:
        """Return the last verdict that a frame id was given, or None."""
        with self._errors():
            return lookup.of_frame(self._database, pipeline, frame_id)

    def owed_since_ns(self) -> int:
        """Return when the oldest record was decided that is not receipted, UTC; 0: none is owed."""
        with self._errors():
            row = self._database.execute(
                "SELECT at_ns FROM record WHERE seq=?", (self.receipt.seq + 1,)
            ).fetchone()
        return int(row[0]) if row else 0

    def used_bytes(self) -> int:
        """Return what the database takes of its quota."""
        with self._errors():
            size, count, free = (
                self._database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count")
            )
        return int(size * (count - free))

    def _insert(self, row: tuple[object, ...]) -> bool:
        done = self._database.execute(
            "INSERT INTO record VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(pipeline, frame_id, frame) WHERE frame <> x'' DO NOTHING",
            row,
        )
        return done.rowcount == 1

    def _move_mark(self, name: str, mark: Mark) -> None:
        self._database.execute(
            "UPDATE mark SET seq=?, head=? WHERE name=?", (mark.seq, mark.head, name)
        )

    def _place(self, prepared: Prepared) -> int:
        verdict = prepared.entry.verdict
        row = self._database.execute(
            "SELECT seq FROM record WHERE pipeline=? AND frame_id=? AND frame=?",
            (verdict.pipeline, verdict.frame_id, prepared.frame),
        ).fetchone()
        return int(row[0])

    def _head_at(self, seq: int) -> bytes:
        if seq == self.anchor.seq:
            return self.anchor.head
        row = self._database.execute("SELECT head FROM record WHERE seq=?", (seq,)).fetchone()
        if row is None:
            raise DamagedError(f"{self.path}: record {seq} is missing (run `edge ledger verify`)")
        return bytes(row[0])

    def _limit(self) -> None:
        size = self._database.execute("PRAGMA page_size").fetchone()[0]
        pages = max(self._retention.max_bytes, 1 << 20) // size
        self._database.execute(f"PRAGMA max_page_count={pages}").fetchone()

    @contextlib.contextmanager
    def _quota(self) -> Iterator[None]:
        """Tell a full quota from a full disk."""
        try:
            yield
        except FullError as full:
            room = os.statvfs(self.path.parent)
            if room.f_bavail * room.f_frsize < RESERVE_BYTES:
                raise
            raise FullError(
                f"{self.path}: full to its quota of {self._retention.max_bytes} bytes with records "
                "that the cloud has not receipted (look at the connection, or raise the quota)",
                disk=False,
            ) from full

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself; a rollback that fails is done at recovery.
                if self._database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except schema.UNREADABLE as failed:
            raise schema.translated(failed, self.path) from failed


def _row(seq: int, prepared: Prepared, body: bytes, head: bytes) -> tuple[object, ...]:
    entry = prepared.entry
    verdict = entry.verdict
    return (
        seq,
        entry.decided_at_ns,
        verdict.pipeline,
        verdict.frame_id,
        prepared.frame,
        verdict.part_id,
        entry.fingerprint,
        body,
        head,
    )
