"""Proofs out of a ledger, or a copy of one, that is open for reading; and its whole audit."""

from collections.abc import Sequence
from typing import Final

from edge.errors import ProofError
from edge.ledger import note as notes
from edge.ledger import proof as proofs
from edge.ledger.audit import Audit
from edge.ledger.merkle import inclusion_proof, leaf_hash
from edge.ledger.note import Verifier
from edge.ledger.proof import Proof
from edge.ledger.reading import Reading
from edge.ledger.signing import DUE_S, Kept
from edge.ledger.tiles import WIDTH, TileReader
from edge.ledger.verify import Place, Report, verify

_LOOKED_AT: Final = 1_000
"""Of the last checkpoints, for one that is cosigned."""


def keys_of(ledger: Reading) -> list[Verifier]:
    """Return the keys that signed, as the ledger itself says.

    Raises:
        ProofError: What it says is no key.
    """
    return [notes.parse_vkey(vkey) for vkey, _ in ledger.signers()]


def audited(
    ledger: Reading,
    known: Sequence[Verifier] = (),
    expected: Place | None = None,
    elsewhere: Sequence[bytes] = (),
) -> tuple[Report, Audit]:
    """Check the whole ledger: chain, tree and checkpoints.

    Args:
        ledger: Open for reading.
        known: Keys that must have signed; none: those that the ledger itself names may have.
        expected: A head that the caller knows from elsewhere.
        elsewhere: Checkpoints that were kept elsewhere.

    Raises:
        ProofError: What the ledger names as its keys are none.
    """
    held = bool(known)
    audit = Audit(ledger, ledger.log_origin, known or keys_of(ledger), elsewhere, hold_to_keys=held)
    return verify(ledger.origin, ledger.marks, ledger.rows(), expected, audit), audit


def prove(ledger: Reading, seq: int, record: bytes | None = None) -> Proof:
    """Return the proof of a record, under the last checkpoint that is cosigned, or the last one.

    Args:
        ledger: Open for reading.
        seq: The record's place.
        record: Its canonical bytes, where the ledger has pruned them.

    Raises:
        ProofError: There is no such record, no checkpoint is over it, or the ledger was altered.
        StorageError: The ledger is damaged, or dropped the hashes that this takes.
    """
    if not 0 < seq <= ledger.size():
        raise ProofError(f"there is no record {seq}: the last one is {ledger.size()}")
    over = _checkpoint_over(ledger, seq)
    kept_from = ledger.leaf_tiles()[0] * WIDTH + 1
    if seq < kept_from:
        raise ProofError(
            f"the leaf hashes before record {kept_from} were dropped with their records, to keep "
            "to ledger.max_bytes (proofs made before hold; the cloud may make others)"
        )
    row = ledger.record(seq)
    body = row.body if row is not None else record
    subtrees = TileReader(ledger.tile)
    if body is not None and leaf_hash(body) != subtrees(0, seq - 1):
        raise ProofError(
            f"the leaf of record {seq} is another's: the bytes were altered (run `edge ledger "
            "verify`), or are those of another record"
        )
    path = inclusion_proof(seq - 1, over.size, subtrees)
    proof = Proof(seq - 1, tuple(path), over.note, body)
    if body is not None:
        proofs.verify(proof, keys_of(ledger))  # none is handed out that does not hold
    return proof


def _checkpoint_over(ledger: Reading, seq: int) -> Kept:
    covering = ledger.covering(seq, _LOOKED_AT)
    if not covering:
        last = ledger.checkpoint()
        raise ProofError(
            f"record {seq} is not under a checkpoint yet: the last one is of "
            f"{last.size if last else 0} records (the daemon signs the next within {DUE_S:.0f} s "
            "of a record, and when it stops)"
        )
    for kept in covering:
        origins = {signature.name for signature in notes.parse(kept.note).signatures}
        if origins != {ledger.log_origin}:
            return kept
    return covering[0]
