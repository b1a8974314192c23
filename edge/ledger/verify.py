"""Verification: does every record lie where it was committed, unchanged? Pure.

Obligations, each checked for every row, in this order:

1. Its place follows the place before it: else records were removed or put in.
2. Its bytes are a record, which calls itself by this place, this ledger and this device.
3. It names the head before it. Where it does not, but fits the head stored beside it, the record
   before it was exchanged together with its head, and that one is named.
4. The head stored beside it follows from its bytes.
5. The columns that serve for finding say what the record says.
6. At the end: the marks in the file (last record, receipt) and the head that the caller expects lie
   on this chain.

Whoever can write the file can also rewrite all records after some place, the marks with them. What
is signed (`edge.ledger.audit`) cannot be rewritten without the key; what is not signed yet, or by
whoever has the key, shows by comparing with a head or a checkpoint that lies elsewhere.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from edge.contracts.verdict import Kind
from edge.errors import StorageError
from edge.ledger import record as records
from edge.ledger.record import GENESIS, HEAD_BYTES


class Row(NamedTuple):
    """A record as it lies in the database; a damaged file may hold other types than these."""

    seq: int
    at_ns: int
    pipeline: str
    frame_id: str
    frame: bytes
    part_id: str
    body: bytes
    head: bytes


class Origin(msgspec.Struct, frozen=True):
    """Which ledger this is.

    Attributes:
        ledger: Its random name.
        created_at_ns: UTC.
    """

    ledger: str
    device: str
    created_at_ns: int


class Place(msgspec.Struct, frozen=True):
    """A place in the chain, and the head there."""

    seq: int
    head: bytes


class Finding(msgspec.Struct, frozen=True):
    """The first thing that is wrong.

    Attributes:
        seq: The record at fault; 0: not one record.
        kind: `altered`, `removed`, `inserted`, `displaced`, `unreadable`, `mark`, `rewritten`,
            `tree` (a hash of it was altered, the records not), `checkpoint` (likewise) or
            `unsigned` (more than a device leaves so).
        detail: The whole sentence.
    """

    seq: int
    kind: str
    detail: str


class Report(msgspec.Struct, frozen=True):
    """What was verified.

    Attributes:
        first: Place of the oldest record that is kept; 0: none is.
        last: The last record that was found sound, or the anchor.
        receipted: Up to where the cloud holds all, as the ledger wrote it down.
        records: Records found sound.
        finding: What is wrong; None: nothing.
    """

    ledger: str
    device: str
    first: int
    last: int
    head: str
    receipted: int
    records: int
    finding: Finding | None


class _Digests(msgspec.Struct, frozen=True):
    frame: str


class _Claims(msgspec.Struct):
    """What of a record is compared."""

    v: int
    ledger: str
    seq: int
    prev: str
    device: str
    pipeline: str
    frame_id: str
    part_id: str
    verdict: Kind
    decided_at_ns: int
    digests: _Digests = _Digests("")  # an override has none


_claims = msgspec.json.Decoder(_Claims)
_MARKS: Final = ("anchor", "receipt", "head")


class Beside(Protocol):
    """A check that goes along."""

    def begin(self, anchor: int) -> Finding | None:
        """Called first; records up to `anchor` were pruned."""

    def step(self, seq: int, leaf: bytes) -> Finding | None:
        """Called with each record that was found sound, and its leaf hash."""

    def end(self, last: int) -> Finding | None:
        """Called when all were; `last` is the last one's place."""


def verify(
    origin: Origin,
    marks: Mapping[str, Place],
    rows: Iterable[Row],
    expected: Place | None = None,
    beside: Beside | None = None,
) -> Report:
    """Check a ledger.

    Args:
        origin: Of the ledger.
        marks: `anchor`, `receipt` and `head`.
        rows: All records, by place.
        expected: A head that the caller knows from elsewhere.
        beside: Looks at each record that was found sound.
    """
    anchor = marks["anchor"]
    walk = _Walk(origin, anchor, [place for place in (marks["receipt"], expected) if place])
    finding = _unlike_anchor(anchor, marks["receipt"])
    try:
        if finding is None and beside is not None:
            finding = beside.begin(anchor.seq)
        if finding is None:
            for row in rows:
                finding = walk.step(row)
                if finding is None and beside is not None:
                    finding = beside.step(walk.seq, walk.leaf)
                if finding is not None:
                    break
            else:
                finding = walk.end(marks["head"])
                if finding is None and beside is not None:
                    finding = beside.end(walk.seq)
    except StorageError as failed:
        finding = Finding(walk.seq + 1, "unreadable", f"cannot be read from here on: {failed}")
    return Report(
        ledger=origin.ledger,
        device=origin.device,
        first=anchor.seq + 1 if walk.count else 0,
        last=walk.seq,
        head=walk.head.hex(),
        receipted=marks["receipt"].seq,
        records=walk.count,
        finding=finding,
    )


def _unlike_anchor(anchor: Place, receipt: Place) -> Finding | None:
    if anchor.seq < 0 or len(anchor.head) != HEAD_BYTES or (not anchor.seq and any(anchor.head)):
        return Finding(0, "mark", "the mark of what was pruned is not a place in a chain")
    if anchor.seq > receipt.seq:
        return Finding(
            receipt.seq + 1,
            "removed",
            f"records {receipt.seq + 1} to {anchor.seq} were removed, and the cloud has not "
            "receipted them: that is never pruned",
        )
    return None


class _Walk:
    """The way along the chain: `seq` and `head` are those of the last sound record."""

    def __init__(self, origin: Origin, anchor: Place, witnesses: list[Place]) -> None:
        self.origin = origin
        self.anchor = anchor
        self.seq = anchor.seq
        self.head = anchor.head if anchor.seq else GENESIS
        self.leaf = b""
        self.count = 0
        self._witnesses = [place for place in witnesses if place.seq >= anchor.seq]

    def step(self, row: Row) -> Finding | None:
        """Check one row against obligations 1 to 6; the numbers below are theirs."""
        place = self.seq + 1
        if row.seq != place:  # 1
            return self._misplaced(row.seq)
        try:  # 2
            claims = _claims.decode(row.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as wrong:
            return Finding(place, "altered", f"record {place} is not a record any more: {wrong}")
        self.leaf = records.leaf_hash(row.body)
        after = records.linked(self.head, self.leaf)
        finding = self._unchained(row, claims, after) or self._unlike(row, claims)
        if finding is not None:
            return finding
        self.seq, self.head = place, after
        self.count += 1
        return self._witnessed()  # 6

    def end(self, last: Place) -> Finding | None:
        """Check what was said to be the last record (6), and what nobody reached."""
        if last.seq > self.seq:
            return _removed(self.seq + 1, last.seq)
        if last.seq < self.seq:
            return Finding(
                last.seq + 1, "inserted", f"records after {last.seq}, the last one, were put in"
            )
        if last.head != self.head:
            return Finding(
                self.seq, "mark", f"record {self.seq} is not what was marked as the last one"
            )
        for witness in self._witnesses:
            if witness.seq > self.seq:
                return _removed(self.seq + 1, witness.seq)
        return self._witnessed() if not self.count else None

    def _unchained(self, row: Row, claims: _Claims, after: bytes) -> Finding | None:
        place = row.seq
        if claims.seq != place:  # 2
            return Finding(
                place,
                "displaced",
                f"at place {place} lies a record that calls itself {claims.seq}: it was moved "
                "there, put in, or altered",
            )
        if claims.prev != self.head.hex():  # 3
            return self._unconnected(row, claims)
        if after != row.head:  # 4
            return Finding(
                place,
                "altered",
                f"record {place} (frame {claims.frame_id!r}) was altered, or the head beside it: "
                "they do not fit each other",
            )
        return None

    def _misplaced(self, found: object) -> Finding:
        place = self.seq + 1
        if isinstance(found, int) and found > place:
            return _removed(place, found - 1)
        return Finding(place, "inserted", f"record {found} lies below {self.seq}, where none is")

    def _unconnected(self, row: Row, claims: _Claims) -> Finding:
        """The record names another head before it than ours: whose fault?"""
        place = row.seq
        try:
            claimed = bytes.fromhex(claims.prev)
        except ValueError:
            claimed = b""
        if records.next_head(claimed, row.body) != row.head:
            return Finding(
                place,
                "altered",
                f"record {place} (frame {claims.frame_id!r}) was altered or put in: it fits "
                "neither the record before it nor the head beside it",
            )
        if self.seq == self.anchor.seq:
            return Finding(
                place,
                "mark" if self.seq else "altered",
                f"record {place} was exchanged, or the mark before it: they do not fit each other",
            )
        return Finding(
            self.seq,
            "altered",
            f"record {self.seq} was exchanged, its head with it: record {place} follows another",
        )

    def _unlike(self, row: Row, claims: _Claims) -> Finding | None:  # 2, 5
        told = (claims.decided_at_ns, claims.pipeline, claims.frame_id, claims.part_id)
        if claims.v != records.VERSION:
            return Finding(row.seq, "altered", f"record {row.seq} is of version {claims.v}")
        if (claims.ledger, claims.device) != (self.origin.ledger, self.origin.device):
            return Finding(
                row.seq,
                "inserted",
                f"record {row.seq} is of ledger {claims.ledger} of device {claims.device!r}; this "
                f"is {self.origin.ledger} of {self.origin.device!r}",
            )
        columns = (row.at_ns, row.pipeline, row.frame_id, row.part_id)
        if columns != told or row.frame.hex() != claims.digests.frame:
            return Finding(
                row.seq, "altered", f"a column beside record {row.seq} was altered; the record not"
            )
        return None

    def _witnessed(self) -> Finding | None:
        for witness in self._witnesses:
            if witness.seq == self.seq and witness.head != self.head:
                return Finding(
                    self.seq,
                    "rewritten",
                    f"the head at record {self.seq} is {self.head.hex()}, and the receipt or the "
                    f"expected head says {witness.head.hex()}: what leads there was rewritten",
                )
        return None


def _removed(first: int, last: int) -> Finding:
    what = f"record {first} is" if first == last else f"records {first} to {last} are"
    return Finding(first, "removed", f"{what} missing")
