"""What the collectors hold of all devices, and how far each chain is whole. Used by one thread.

Rules:

1. A batch is one transaction. Whoever hears of it afterwards may trust the medium.
2. A record has one place: device, ledger, seq. The same bytes again change nothing. Other bytes for
   a place that is taken are kept beside it, as evidence of a fork.
3. `seq` and `head` of a ledger say up to where all records are held and each follows from the one
   before. Only that is ever receipted. Records may come in any order, through several collectors
   at once: the ledger's row is locked, and the way goes on as far as what is stored allows.
4. Where the next record does not fit, and one among the conflicts does, they change places: whoever
   came first must not be able to block what is right.
5. Everything is bounded: devices, ledgers of one, bytes of one, records above the whole part, and
   conflicts. What is beyond a bound is left with the device, which keeps it until it is receipted.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from edge.fleet import schema
from edge.fleet.alarms import Alarm, Kind
from edge.fleet.arrivals import Arrival
from edge.fleet.database import Database
from edge.fleet.register import Held, Limits, Register, Taken
from edge.fleet.witness import Claim, Compared
from edge.ledger import record as records
from edge.ledger.merkle import Range

MAX_AHEAD: Final = 4_096
"""Records stored above the whole part; a device sends 1,024 beyond its receipt."""
MAX_LEDGERS: Final = 64
"""Of one device: each was a disk."""
MAX_CONFLICTS: Final = 256
"""Kept of one ledger; a fork of two copies of a disk shows in the first."""
_COMPARED: Final = 20_000
"""Leaves that one comparison reads: 0.1 s or so."""
_STEP: Final = 512
"""Records looked at in one query on the way along a chain."""


class LedgerRow(msgspec.Struct):
    """A ledger, as its row says; written back when the batch is through."""

    id: int
    device: str
    ledger: str
    first_seen_ns: int
    anchor_seq: int
    anchor_head: bytes
    seq: int
    head: bytes
    highest: int
    ahead: int
    kept_bytes: int
    conflicts: int
    tree_size: int
    tree_roots: bytes


class Gap(msgspec.Struct, frozen=True):
    """Records are missing after `seq`; the next that is here is `resumes`."""

    device: str
    ledger: str
    seq: int
    resumes: int


_LEDGER: Final = ", ".join(LedgerRow.__struct_fields__)


class Store(Register):
    """The store.

    Args:
        database: Where it lies.
        limits: Rule 5.
        now_ns: UTC.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(database, limits or Limits(), now_ns)
        # A row lock, where there are row locks; SQLite's transaction locks the whole file.
        self._for_update = " FOR UPDATE" if database.postgres else ""

    def prepare(self) -> None:
        """Make the tables where there are none.

        Raises:
            StorageError: It cannot be reached, or is of another version.
        """
        with self._database.transaction():
            schema.prepare(self._database)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    # Records -------------------------------------------------------------------------------------

    def take(self, arrivals: Sequence[Arrival]) -> Taken:
        """Store a batch and go on along each chain; on return it is on the medium.

        Raises:
            StorageError: Nothing of it may be trusted; the same batch may be taken again.
        """
        taken = Taken()
        # In one order everywhere, so that two collectors never wait for each other in a circle.
        ordered = sorted(arrivals, key=lambda arrival: (arrival.device, arrival.ledger))
        with self._database.transaction():
            for (device, ledger), group in groupby(ordered, key=lambda a: (a.device, a.ledger)):
                row = self._ledger_of(device, ledger, taken)
                if row is None:
                    taken.left += len(list(group))
                else:
                    self._take_into(row, list(group), taken)
                    taken.held.append(Held(device, ledger, row.seq, row.head))
        return taken

    def _take_into(self, row: LedgerRow, group: list[Arrival], taken: Taken) -> None:
        before = row.seq
        left_bytes = self._limits.max_device_bytes - self._kept_bytes(row.device)
        known = self._leaves(row, {arrival.seq for arrival in group})
        fresh: list[Arrival] = []
        for arrival in group:
            leaf = known.get(arrival.seq)
            if arrival.seq <= row.anchor_seq or leaf == arrival.leaf:
                taken.repeated += 1
            elif leaf is not None:
                self._conflict(row, arrival, taken)
            elif self._has_room(row, arrival, left_bytes, taken):
                known[arrival.seq] = arrival.leaf
                fresh.append(arrival)
                row.kept_bytes += len(arrival.body)
                left_bytes -= len(arrival.body)
                row.ahead += 1
            else:
                taken.left += 1
        now_ns = self._now_ns()
        self._database.many(
            "INSERT INTO record VALUES(?, ?, ?, ?, ?, ?)",
            [(row.id, a.seq, a.prev, a.leaf, now_ns, a.body) for a in fresh],
        )
        taken.stored += len(fresh)
        row.highest = max(row.highest, *(a.seq for a in fresh)) if fresh else row.highest
        self._walk(row, {a.seq: a for a in fresh}, taken)
        row.ahead -= row.seq - before
        if row.seq > before:
            self._end(row.device, row.ledger, Kind.GAP, taken)
        self._write(row)

    def _walk(self, row: LedgerRow, fresh: dict[int, Arrival], taken: Taken) -> None:
        """Go on from the whole part as far as records follow each other."""
        before = row.seq
        while row.seq < row.highest:
            steps: Iterable[tuple[int, bytes, bytes]]
            if row.seq + 1 in fresh:
                steps = _run_of(fresh, row.seq + 1)
            else:
                steps = [
                    (seq, prev, leaf)
                    for seq, prev, leaf in self._database.rows(
                        "SELECT seq, prev, leaf FROM record WHERE ledger_id=? AND seq > ? "
                        "ORDER BY seq LIMIT ?",
                        (row.id, row.seq, _STEP),
                    )
                ]
            moved = False
            for seq, prev, leaf in steps:
                if seq != row.seq + 1:
                    break
                if prev != row.head:
                    replaced = self._exchange(row, seq)
                    if replaced is None:
                        self._raise(
                            Alarm(
                                row.device, row.ledger, Kind.BROKEN, seq,
                                f"record {seq} names the head {prev.hex()[:16]}… before it, and "
                                f"record {row.seq} leads to {row.head.hex()[:16]}…",
                            ),
                            taken,
                        )  # fmt: skip
                        return
                    leaf = replaced  # noqa: PLW2901 - the record that takes its place
                row.head = records.linked(row.head, leaf)
                row.seq = seq
                moved = True
            if not moved:
                break
        if row.seq > before:
            self._end(row.device, row.ledger, Kind.BROKEN, taken)

    def _exchange(self, row: LedgerRow, seq: int) -> bytes | None:
        """Put the conflicting record that fits at a place (rule 4); return its leaf."""
        fitting = self._database.rows(
            "SELECT leaf, prev, received_ns, body FROM conflict "
            "WHERE ledger_id=? AND seq=? AND prev=?",
            (row.id, seq, row.head),
        )
        if not fitting:
            return None
        leaf, prev, received_ns, body = fitting[0]
        self._database.run(
            "INSERT INTO conflict SELECT ledger_id, seq, leaf, prev, received_ns, body "
            "FROM record WHERE ledger_id=? AND seq=?",
            (row.id, seq),
        )
        self._database.run(
            "UPDATE record SET leaf=?, prev=?, received_ns=?, body=? WHERE ledger_id=? AND seq=?",
            (leaf, prev, received_ns, body, row.id, seq),
        )
        self._database.run(
            "DELETE FROM conflict WHERE ledger_id=? AND seq=? AND leaf=?", (row.id, seq, leaf)
        )
        return bytes(leaf)

    def _conflict(self, row: LedgerRow, arrival: Arrival, taken: Taken) -> None:
        if row.conflicts < MAX_CONFLICTS:
            row.conflicts += self._database.run(
                "INSERT INTO conflict VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (row.id, arrival.seq, arrival.leaf, arrival.prev, self._now_ns(), arrival.body),
            )
        self._raise(
            Alarm(
                row.device, row.ledger, Kind.FORK, arrival.seq,
                f"two different records {arrival.seq}: the disk was set back or copied, or "
                "somebody else writes in its name",
            ),
            taken,
        )  # fmt: skip

    def _kept_bytes(self, device: str) -> int:
        """Return what the records of a device take, of all its ledgers."""
        query = "SELECT coalesce(sum(kept_bytes), 0) FROM ledger WHERE device=?"
        return int(self._database.rows(query, (device,))[0][0])

    def _has_room(self, row: LedgerRow, arrival: Arrival, left_bytes: int, taken: Taken) -> bool:
        if row.ahead >= MAX_AHEAD and arrival.seq > row.seq + MAX_AHEAD:
            return False
        if len(arrival.body) <= left_bytes:
            return True
        self._raise(
            Alarm(
                row.device, row.ledger, Kind.QUOTA, arrival.seq,
                f"its records fill the {self._limits.max_device_bytes} bytes that one device may "
                "take (store.max_device_bytes); it keeps the rest itself",
            ),
            taken,
        )  # fmt: skip
        return False

    def _leaves(self, row: LedgerRow, places: set[int]) -> dict[int, bytes]:
        """Return the leaf hashes of those places that are taken."""
        if min(places) > row.highest:
            return {}
        marks = ", ".join("?" * len(places))
        found = self._database.rows(
            f"SELECT seq, leaf FROM record WHERE ledger_id=? AND seq IN ({marks})",  # noqa: S608 - question marks
            (row.id, *places),
        )
        return {seq: bytes(leaf) for seq, leaf in found}

    def _ledger_of(self, device: str, ledger: str, taken: Taken) -> LedgerRow | None:
        """Return the locked row of a ledger, made where there is none; None beyond a bound."""
        found = self._locked(device, ledger)
        if found is not None:
            return found
        others = self._database.rows("SELECT count(*) FROM ledger WHERE device=?", (device,))[0][0]
        if others >= MAX_LEDGERS or (not others and not self._admits(device)):
            return None
        self._database.run(
            "INSERT INTO ledger(device, ledger, first_seen_ns, anchor_seq, anchor_head, seq, head, "
            "highest, ahead, kept_bytes, conflicts, tree_size, tree_roots) "
            "VALUES(?, ?, ?, 0, ?, 0, ?, 0, 0, 0, 0, 0, ?) "
            "ON CONFLICT DO NOTHING",
            (device, ledger, self._now_ns(), records.GENESIS, records.GENESIS, b""),
        )
        if others:
            self._raise(
                Alarm(
                    device, ledger, Kind.NEW_LEDGER, 0,
                    "the device has begun another ledger: its disk was replaced, or the ledger "
                    "before was damaged and moved aside; what that one still owed is not here",
                ),
                taken,
            )  # fmt: skip
        return self._locked(device, ledger)

    def _locked(self, device: str, ledger: str) -> LedgerRow | None:
        found = self._database.rows(
            f"SELECT {_LEDGER} FROM ledger WHERE device=? AND ledger=?{self._for_update}",  # noqa: S608 - our own words
            (device, ledger),
        )
        return LedgerRow(*found[0]) if found else None

    def _write(self, row: LedgerRow) -> None:
        self._database.run(
            "UPDATE ledger SET anchor_seq=?, anchor_head=?, seq=?, head=?, highest=?, ahead=?, "
            "kept_bytes=?, conflicts=?, tree_size=?, tree_roots=? WHERE id=?",
            (
                row.anchor_seq, row.anchor_head, row.seq, row.head, row.highest, row.ahead,
                row.kept_bytes, row.conflicts, row.tree_size, row.tree_roots, row.id,
            ),
        )  # fmt: skip

    # Checkpoints ---------------------------------------------------------------------------------

    def compare(self, claim: Claim) -> tuple[Compared, Taken]:
        """Hold a checkpoint to the records that are held: is its root theirs?

        What is computed is kept: the next checkpoint costs no more than the records between.

        Raises:
            StorageError: Nothing was written.
        """
        taken = Taken()
        with self._database.transaction():
            row = self._locked(claim.device, claim.ledger)
            if row is None or row.seq < claim.size:
                return Compared.EARLY, taken
            if row.anchor_seq or claim.size < row.tree_size:
                return Compared.BEYOND, taken
            tree, leaves = self._tree(row), self._leaves_between(row, claim.size)
            if len(leaves) < min(claim.size - tree.size, _COMPARED):
                return Compared.BEYOND, taken  # the owner deleted records that were not compared
            for leaf in leaves:
                tree.push(leaf)
            row.tree_size, row.tree_roots = tree.size, b"".join(tree.roots)
            found = Compared.MORE if tree.size < claim.size else Compared.SAME
            if found is Compared.SAME and tree.root() != claim.root:
                found = Compared.OTHER
                detail = (
                    f"its checkpoint of {claim.size} records has another root than the records "
                    "that it sent: somebody has seen, or will see, another ledger"
                )
                name = (claim.device, claim.ledger)
                self._raise(Alarm(*name, Kind.CHECKPOINT, claim.size, detail), taken)
            if found in (Compared.SAME, Compared.OTHER):
                self._database.run(
                    "INSERT INTO checkpoint VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (row.id, claim.size, claim.note, self._now_ns()),
                )
            self._write(row)
            taken.held.append(Held(row.device, row.ledger, row.seq, row.head))
        return found, taken

    def _tree(self, row: LedgerRow) -> Range:
        roots = row.tree_roots
        return Range(row.tree_size, [roots[n : n + 32] for n in range(0, len(roots), 32)])

    def _leaves_between(self, row: LedgerRow, size: int) -> list[bytes]:
        """Return the next leaves, at most `_COMPARED` at once: what is left is asked for again."""
        last = min(size, row.tree_size + _COMPARED)
        rows = self._database.rows(
            "SELECT leaf FROM record WHERE ledger_id=? AND seq > ? AND seq <= ? ORDER BY seq",
            (row.id, row.tree_size, last),
        )
        return [bytes(leaf) for (leaf,) in rows]

    # Ledgers -------------------------------------------------------------------------------------

    def ledgers(self) -> list[LedgerRow]:
        """Return all ledgers, by device and age."""
        with self._database.transaction():
            rows = self._database.rows(f"SELECT {_LEDGER} FROM ledger ORDER BY device, id")  # noqa: S608 - our own words
        return [LedgerRow(*row) for row in rows]

    def gaps(self) -> list[Gap]:
        """Return where records lie above a missing one, at most 1,000 of them."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT device, ledger, seq, (SELECT min(record.seq) FROM record "
                "WHERE ledger_id=ledger.id AND record.seq > ledger.seq) FROM ledger "
                "WHERE ahead > 0 ORDER BY device, id LIMIT 1000"
            )
        return [Gap(*row) for row in rows if row[3] is not None and row[3] > row[2] + 1]

    def bodies(self, device: str, ledger: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return records of a ledger's whole part above a place, in order."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT record.seq, body FROM record JOIN ledger ON ledger_id=id "
                "WHERE device=? AND ledger=? AND record.seq > ? AND record.seq <= ledger.seq "
                "ORDER BY record.seq LIMIT ?",
                (device, ledger, after, limit),
            )
        return [(seq, bytes(body)) for seq, body in rows]

    def accept(self, device: str) -> Taken:
        """Accept a device's alarms, and go on beyond what is missing or does not fit.

        The whole part of a ledger that is held back then begins at its first record above: from
        there on it is receipted. What lies between is said to be gone by whoever accepts.
        """
        taken = Taken()
        with self._database.transaction():
            for alarm in self._alarms(" WHERE device=?", (device,)):
                self._end(alarm.device, alarm.ledger, alarm.kind, taken)
            names = self._database.rows(
                "SELECT ledger FROM ledger WHERE device=? AND ahead > 0 ORDER BY ledger", (device,)
            )
            for (ledger,) in names:
                row = self._locked(device, ledger)
                if row is not None:
                    self._go_beyond(row, taken)
                    taken.held.append(Held(device, ledger, row.seq, row.head))
        return taken

    def _go_beyond(self, row: LedgerRow, taken: Taken) -> None:
        first = self._database.rows(
            "SELECT seq, prev FROM record WHERE ledger_id=? AND seq > ? ORDER BY seq LIMIT 1",
            (row.id, row.seq),
        )
        if not first:
            return
        seq, prev = first[0]
        row.anchor_seq = row.seq = seq - 1
        row.anchor_head = row.head = bytes(prev)
        before = row.seq
        self._walk(row, {}, taken)
        row.ahead -= row.seq - before
        self._write(row)


def _run_of(fresh: dict[int, Arrival], first: int) -> list[tuple[int, bytes, bytes]]:
    """Return what came in unbroken order from a place on."""
    found = []
    seq = first
    while seq in fresh:
        arrival = fresh[seq]
        found.append((seq, arrival.prev, arrival.leaf))
        seq += 1
    return found
