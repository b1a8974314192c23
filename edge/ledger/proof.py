"""Proofs: that a record is in a ledger, for somebody who has nothing but this and a key. Pure.

Rules (C2SP tlog-proof, c2sp.org/tlog-proof):

1. A proof is lines of text: `c2sp.org/tlog-proof@v1`, `extra` with the record's canonical bytes in
   base64, `index`, the hashes from the leaf's neighbour up, an empty line, the signed checkpoint.
2. `extra` is not trusted: its leaf hash leads to the root that was signed, or it does not. A proof
   of a record whose bytes are gone has none; whoever has the bytes lays them beside it.
3. A file holds one proof or several, one after the other. Each is a whole proof of the standard
   form; a reader that knows only one finds it by splitting at the first line.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from edge.errors import ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger.checkpoint import MAX_SIZE, Opened
from edge.ledger.merkle import HASH_BYTES, MAX_PROOF_HASHES, leaf_hash, root_by_inclusion
from edge.ledger.note import Verifier, decoded, encoded

MAGIC: Final = "c2sp.org/tlog-proof@v1"
SUFFIX: Final = ".tlog-proof"
MAX_FILE_BYTES: Final = 64 << 20
MAX_PROOFS: Final = 10_000


class Proof(msgspec.Struct, frozen=True):
    """A proof as it was read or made; nothing of it is verified.

    Attributes:
        index: Of the leaf, from 0: record `index + 1`.
        path: From the leaf's neighbour up.
        note: The signed checkpoint.
        record: Canonical bytes; None where they are gone.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes
    record: bytes | None = None

    def encode(self) -> bytes:
        """Return the proof's bytes."""
        lines = [MAGIC]
        if self.record is not None:
            lines.append(f"extra {encoded(self.record)}")
        lines.append(f"index {self.index}")
        lines += [encoded(neighbour) for neighbour in self.path]
        return ("\n".join(lines) + "\n\n").encode() + self.note


class Proved(msgspec.Struct, frozen=True):
    """What a proof has proved: this record is in this tree, and these say that this is the tree."""

    record: bytes
    index: int
    opened: Opened


def parse(content: bytes) -> list[Proof]:
    """Read the proofs of a file; nothing is verified.

    Raises:
        ProofError: It holds none, or something that is none.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ProofError(f"a file of {len(content)} bytes; the limit is {MAX_FILE_BYTES}")
    start = f"{MAGIC}\n".encode()
    if not content.startswith(start):
        raise ProofError(f"not a proof: expected the first line {MAGIC}")
    parts = (b"\n" + content).split(b"\n" + start)[1:]
    if len(parts) > MAX_PROOFS:
        raise ProofError(f"{len(parts)} proofs; the limit is {MAX_PROOFS}")
    # The newline that ended each part but the last went with the split.
    ended = [part + b"\n" for part in parts[:-1]] + parts[-1:]
    return [_parse_one(part) for part in ended]


def verify(proof: Proof, known: Sequence[Verifier], record: bytes | None = None) -> Proved:
    """Check a proof.

    Args:
        proof: As read.
        known: Keys of the log, and of cosigners.
        record: The canonical bytes, where the proof has none, or to be compared with its own.

    Raises:
        ProofError: It does not hold.
    """
    opened = checkpoints.opened(proof.note, known)
    if record is None:
        record = proof.record
    elif proof.record not in (None, record):
        raise ProofError("the proof is of another record than the one laid beside it")
    if record is None:
        raise ProofError("the proof holds no record: lay its canonical bytes beside it")
    tree = opened.checkpoint
    root = root_by_inclusion(leaf_hash(record), proof.index, tree.size, proof.path)
    if root != tree.root:
        raise ProofError(
            f"the record is not leaf {proof.index} of the signed tree of {tree.size}: the record, "
            "the index or a hash was altered"
        )
    return Proved(record, proof.index, opened)


def _parse_one(part: bytes) -> Proof:
    above, parted, note = part.partition(b"\n\n")
    if not parted:
        raise ProofError("not a proof: no checkpoint under an empty line")
    try:
        lines = above.decode("ascii").split("\n")
    except UnicodeDecodeError as wrong:
        raise ProofError(f"not a proof: {wrong}") from wrong
    record = None
    if lines[0].startswith("extra "):
        text = lines.pop(0).removeprefix("extra ")
        record = decoded(text)
        if text and not record:
            raise ProofError("not a proof: its extra line is not base64")
    index = lines.pop(0).removeprefix("index ") if lines and lines[0].startswith("index ") else ""
    if not index.isdigit() or (index[0] == "0" and index != "0") or len(index) > len(str(MAX_SIZE)):
        raise ProofError("not a proof: expected a line `index N`")
    path = tuple(decoded(line) for line in lines)
    if len(path) > MAX_PROOF_HASHES or any(len(neighbour) != HASH_BYTES for neighbour in path):
        raise ProofError("not a proof: expected base64 of a hash on each line after the index")
    return Proof(int(index), path, note, record)
