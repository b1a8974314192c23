"""The audit of tree and checkpoints, beside the walk along the chain (`edge.ledger.verify`). Pure.

Obligations, numbered as in the code:

1. Every leaf hash that is stored is that of the record at its place; those of pruned records are
   taken as they are.
2. Every hash above follows from those below it.
3. Every checkpoint is of this ledger and of its own size, and signed by a known key; every
   signature on it that claims a known key is true.
4. Every checkpoint's root is that of the tree at its size, and none is ahead of the records. That
   goes for checkpoints that were kept elsewhere, too: by them a ledger is found that was rewritten
   as a whole, or exchanged for an older one.
5. Where the keys are known from elsewhere, no more is left unsigned than a device leaves at any
   time: who rewrites a ledger cannot sign it, and so removes its checkpoints.

Where records are as they were and only a hash or a checkpoint was altered, that is what is named.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from edge.errors import ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger.checkpoint import Checkpoint
from edge.ledger.merkle import HASH_BYTES
from edge.ledger.note import Verifier
from edge.ledger.signing import DUE_RECORDS, DUE_S, Kept
from edge.ledger.tiles import WIDTH, Edge, split
from edge.ledger.verify import Finding

MAX_UNSIGNED: Final = 2 * DUE_RECORDS
"""A batch or two may come in before the checkpoint that is due."""


class Stored(Protocol):
    """What is audited (`edge.ledger.reading.Reading`)."""

    def size(self) -> int:
        """Return how many records were committed."""

    def tile(self, level: int, n: int) -> bytes:
        """Return the hashes of a tile."""

    def leaf_tiles(self) -> tuple[int, int]:
        """Return the first full tile of leaf hashes, and the number after the last one."""

    def edge(self) -> list[tuple[int, int, bytes]]:
        """Return the hashes of tiles that are not full."""

    def checkpoints(self) -> Iterator[Kept]:
        """Yield the checkpoints, by size."""


class Audit:
    """The tree as it grows along the walk.

    Args:
        stored: What lies in the ledger.
        origin: Of its checkpoints.
        known: Keys that may sign them.
        elsewhere: Checkpoints that were kept elsewhere.
        hold_to_keys: The keys are known from elsewhere (obligation 5).

    Attributes:
        known: Keys that may sign.
        checkpoints: Found sound, those from elsewhere among them.
        signed: Size of the last one of them.
        incomparable: Of the signatures alone, because the leaf hashes below them were dropped.
    """

    def __init__(
        self,
        stored: Stored,
        origin: str,
        known: Sequence[Verifier],
        elsewhere: Sequence[bytes] = (),
        *,
        hold_to_keys: bool = False,
    ) -> None:
        self._hold_to_keys = hold_to_keys
        self.checkpoints = self.signed = self.incomparable = 0
        self._stored = stored
        self._origin = origin
        self.known = tuple(known)
        self._elsewhere = elsewhere
        self._tree = Edge()
        self._leaves: list[bytes] = []  # not yet in the tree
        self._tile: list[bytes] = []  # of the leaves from `_begin` on, as stored
        self._begin = 0
        self._due: list[tuple[Checkpoint, bool]] = []  # the next last; whether from elsewhere
        self._stop = 0  # size at which the leaves have to go into the tree

    def begin(self, anchor: int) -> Finding | None:
        """Take in the tree up to the records that are kept."""
        finding = self._read_checkpoints()
        if finding is not None:
            return finding
        size = self._stored.size()
        first, after = self._stored.leaf_tiles()
        if after > size // WIDTH:
            return _tree(size, "it has more tiles than the records fill")
        floor = (first if after else size // WIDTH) * WIDTH
        if floor > anchor:
            return _tree(anchor + 1, f"the leaf hashes of records {anchor + 1} to {floor} are gone")
        finding = self._take_upper(floor)
        self._begin = floor
        # What was dropped cannot be computed again, but its signature was checked.
        while self._due and self._due[-1][0].size < floor:
            self._due.pop()
            self.incomparable += 1
        self._stop = self._next_stop(floor)
        at = floor
        while finding is None and at < anchor:
            at += 1
            finding = self.step(at, None)
        return finding

    def step(self, seq: int, leaf: bytes | None) -> Finding | None:
        """Take in the leaf of a record; None: as it is stored, because the record was pruned."""
        place = seq - 1 - self._begin
        if place >= len(self._tile) and not self._load(seq):
            return _tree(seq, f"the leaf hash of record {seq} is missing")
        stored = self._tile[seq - 1 - self._begin]
        if leaf is None:
            leaf = stored
        elif leaf != stored:  # 1
            return _tree(seq, f"the leaf hash beside record {seq} is not that of the record")
        self._leaves.append(leaf)
        return self._grow() if seq >= self._stop else None

    def end(self, last: int) -> Finding | None:
        """Look at what is left above the last record."""
        finding = self._grow()
        if finding is not None:
            return finding
        if self._due:  # 4
            checkpoint, elsewhere = self._due[-1]
            return Finding(
                last + 1,
                "removed",
                f"records {last + 1} to {checkpoint.size} are missing: "
                f"{_which(checkpoint, elsewhere)} was signed over them",
            )
        rows: list[list[bytes]] = []
        for level, _, one in self._stored.edge():
            rows += [[] for _ in range(level + 1 - len(rows))]
            rows[level].append(one)
        for level, row in enumerate(self._tree.rows):
            if row != (rows[level] if level < len(rows) else []):  # 2
                return _tree(last, f"the last hashes of level {level} are not those of the tree")
        if len(rows) > len(self._tree.rows):
            return _tree(last, "it has more hashes than there are records")
        return self._unsigned(last) if self._hold_to_keys else None

    def _unsigned(self, last: int) -> Finding | None:  # 5
        if not last or (self.checkpoints and last - self.signed <= MAX_UNSIGNED):
            return None
        which = f"records {self.signed + 1} to {last} are" if last > 1 else "record 1 is"
        return Finding(
            self.signed + 1,
            "unsigned",
            f"{which} under no checkpoint, and a device signs after {DUE_RECORDS} records or "
            f"{DUE_S:.0f} s: checkpoints were removed, or it has not been able to sign",
        )

    def _read_checkpoints(self) -> Finding | None:
        found: list[tuple[Checkpoint, bool]] = []
        for kept in self._stored.checkpoints():
            try:
                checkpoint = self._opened(kept.note)
                if checkpoint.size != kept.size:
                    raise ProofError(f"it is of {checkpoint.size} records")
            except ProofError as wrong:  # 3
                return Finding(
                    kept.size, "checkpoint", f"the checkpoint of {kept.size} records: {wrong}"
                )
            found.append((checkpoint, False))
        for note in self._elsewhere:
            try:
                found.append((self._opened(note), True))
            except ProofError as wrong:
                return Finding(0, "checkpoint", f"the checkpoint kept elsewhere: {wrong}")
        self._due = sorted(found, key=lambda one: one[0].size, reverse=True)
        return None

    def _opened(self, note: bytes) -> Checkpoint:
        checkpoint = checkpoints.opened(note, self.known).checkpoint
        if checkpoint.origin != self._origin:
            raise ProofError(f"it is of {checkpoint.origin!r}; this is {self._origin!r}")
        return checkpoint

    def _take_upper(self, floor: int) -> Finding | None:
        """Begin with the hashes of level 1, where those of level 0 were dropped."""
        read = (self._stored.tile(1, n) for n in range(-(-floor // WIDTH**2)))
        hashes = [one for tile in read for one in split(tile)]
        if len(hashes) < floor // WIDTH:
            return _tree(0, f"its hashes of level 1 over records 1 to {floor} are not all there")
        upper, growth = Edge().grown(hashes[: floor // WIDTH])
        for level, n, tile in growth.filled:
            if self._stored.tile(level + 1, n) != tile:
                return _unlike(level + 1, n)
        self._tree = Edge(floor, [[], *upper.rows])
        return None

    def _load(self, seq: int) -> bool:
        """Read the next leaves as they are stored; return whether that of `seq` is among them."""
        self._begin += len(self._tile)
        n = self._begin // WIDTH
        if (n + 1) * WIDTH <= self._stored.size():
            self._tile = split(self._stored.tile(0, n))
            whole = len(self._tile) == WIDTH and len(self._tile[-1]) == HASH_BYTES
        else:
            edge = [(at, one) for level, at, one in self._stored.edge() if level == 0]
            self._tile = [one for _, one in edge]
            whole = [at for at, _ in edge] == list(range(self._begin, self._begin + len(edge)))
        return whole and seq - 1 - self._begin < len(self._tile)

    def _grow(self) -> Finding | None:
        self._tree, growth = self._tree.grown(self._leaves)
        self._leaves = []
        for level, n, tile in growth.filled:
            if level and self._stored.tile(level, n) != tile:  # 2
                return _unlike(level, n)
        size = self._tree.size
        while self._due and self._due[-1][0].size <= size:
            checkpoint, elsewhere = self._due.pop()
            if self._tree.root() != checkpoint.root:  # 4
                return Finding(
                    self.signed + 1,
                    "rewritten",
                    f"{_which(checkpoint, elsewhere)} was signed over another history: of records "
                    f"{self.signed + 1} to {size}, one was altered, removed or put in, and what "
                    "follows was written anew",
                )
            self.checkpoints += 1
            self.signed = checkpoint.size
        self._stop = self._next_stop(size)
        return None

    def _next_stop(self, size: int) -> int:
        full = (size // WIDTH + 1) * WIDTH
        return min(full, self._due[-1][0].size) if self._due else full


def _which(checkpoint: Checkpoint, elsewhere: bool) -> str:
    kept = "kept elsewhere " if elsewhere else ""
    return f"the checkpoint {kept}of {checkpoint.size} records"


def _unlike(level: int, n: int) -> Finding:
    first, last = n * WIDTH ** (level + 1) + 1, (n + 1) * WIDTH ** (level + 1)
    return _tree(
        first,
        f"its hashes of level {level} over records {first} to {last} are not those of the leaves",
    )


def _tree(seq: int, what: str) -> Finding:
    return Finding(seq, "tree", f"the Merkle tree was altered: {what}")
