"""Checkpoints: how many records a ledger has, and the root of their Merkle tree, signed. Pure.

Rules (C2SP tlog-checkpoint, c2sp.org/tlog-checkpoint):

1. The text is three lines: origin, size, base64 of the root. Origin and key name are the same.
2. The origin is `edge/DEVICE/LEDGER`: a ledger that begins anew is another log, so that two
   checkpoints of one origin must always lead from one to the other.
3. A cosignature says that its signer saw the tree of this size, and that it continues every earlier
   one that it saw. A cloud cosigns what it has received and recomputed.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from edge.errors import ProofError
from edge.ledger import note as notes
from edge.ledger.merkle import HASH_BYTES
from edge.ledger.note import COSIGNER, LOG, Note, Signature, Signer, Verifier, decoded

MAX_SIZE: Final = 1 << 62
_LINES: Final = 3


class Checkpoint(msgspec.Struct, frozen=True):
    """The tree of a log at one size."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{notes.encoded(self.root)}\n"


class Opened(msgspec.Struct, frozen=True):
    """A checkpoint, and who of the known signed it.

    Attributes:
        logs: Of the log's keys, at least one.
        cosigners: Who cosigned, and when, UTC seconds.
    """

    checkpoint: Checkpoint
    logs: tuple[Verifier, ...]
    cosigners: dict[Verifier, int]


def origin(device: str, ledger: str) -> str:
    """Return the origin of a ledger's checkpoints (rule 2)."""
    return f"edge/{device}/{ledger}"


def signed(checkpoint: Checkpoint, signers: Iterable[Signer]) -> bytes:
    """Return the signed note of a checkpoint."""
    text = checkpoint.text()
    return Note(text, tuple(signer.sign(text) for signer in signers)).encode()


def cosignature(note: bytes, signer: Signer, time_s: int) -> str:
    """Return the line by which a cosigner vouches for a checkpoint (rule 3).

    Whoever calls this has verified the log's signature and that this tree continues the last one
    it vouched for: that is what the line says.

    Args:
        note: The checkpoint's.
        signer: A key of kind `COSIGNER`.
        time_s: UTC.

    Raises:
        ProofError: The note is no checkpoint.
    """
    if signer.verifier.kind != COSIGNER:
        raise ValueError("a cosignature needs a key of a cosigner's kind")
    found = notes.parse(note)
    read(found)
    return signer.sign(found.text, time_s).line()


def with_line(note: bytes, line: str) -> bytes:
    """Return the note with one more signature line; a line of the same key gives way to it.

    Raises:
        ProofError: One of the two is not what it should be, or there are too many lines.
    """
    found, added = notes.parse(note), notes.parse_signature(line)
    kept = [one for one in found.signatures if (one.name, one.key_id) != (added.name, added.key_id)]
    if len(kept) >= notes.MAX_SIGNATURES:
        raise ProofError(f"the checkpoint has {len(kept)} signatures already")
    return Note(found.text, (*kept, added)).encode()


def read(note: Note) -> Checkpoint:
    """Read a checkpoint; nothing is verified.

    Raises:
        ProofError: The note's text is none.
    """
    lines = note.text.split("\n")
    # Lines after the third are extensions, which ours never have and other logs may.
    if len(lines) <= _LINES or not all(lines[:-1]):
        raise ProofError("not a checkpoint: expected origin, size and root, a line each")
    root = decoded(lines[2])
    size = lines[1]
    if not (size.isascii() and size.isdigit()) or (size[0] == "0" and size != "0"):
        raise ProofError(f"not a checkpoint: {size[:40]!r} is no size")
    if len(size) > len(str(MAX_SIZE)) or int(size) > MAX_SIZE:
        raise ProofError("not a checkpoint: its size is beyond 2**62")
    if len(root) != HASH_BYTES:
        raise ProofError(f"not a checkpoint: {lines[2][:80]!r} is no root")
    return Checkpoint(lines[0], int(size), root)


def opened(note: bytes, known: Sequence[Verifier]) -> Opened:
    """Verify a checkpoint.

    Args:
        note: As stored or received.
        known: Keys of the log, and of cosigners.

    Raises:
        ProofError: It is none, no known key of the log signed it, a signature is false, or it is
            another log's than the key.
    """
    found = notes.parse(note)
    checkpoint = read(found)
    logs, cosigners = [], {}
    for verifier, time_s in notes.signers(found, known).items():
        if verifier.kind == LOG:
            logs.append(verifier)
        else:
            cosigners[verifier] = time_s
    if not logs:
        names = ", ".join(_name(signature) for signature in found.signatures)
        raise ProofError(f"no known key of the log signed this checkpoint; it is signed by {names}")
    if not any(verifier.name == checkpoint.origin for verifier in logs):
        raise ProofError(
            f"a checkpoint of {checkpoint.origin!r}, signed by the key of {logs[0].name!r}"
        )
    return Opened(checkpoint, tuple(logs), cosigners)


def _name(signature: Signature) -> str:
    return f"{signature.name}+{signature.key_id.hex()}"
