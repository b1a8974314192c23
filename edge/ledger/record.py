"""The record of one verdict, its canonical bytes, and the chain over them. Pure.

Rules:

1. The canonical bytes are JSON in UTF-8 without white space, the keys of every object sorted by
   code point, integers in decimal, other numbers as the shortest digits that read back as the same
   IEEE 754 double, and `null` for a number that is not finite. `v` names this encoding.
2. Nobody has to encode again to check: what is hashed, stored, published and exported are the same
   bytes, and each record carries the head before it (`prev`).
3. leaf = SHA-256(0x00 || bytes), the leaf hash of RFC 6962, section 2.1, so that a Merkle tree over
   the same leaves can be laid beside the chain. head = SHA-256(0x01 || head before || leaf);
   before the first record the head is 32 zero bytes.

Not here: signatures. A chain shows that records fit each other; that they are the device's own is
shown by comparing a head with the one that the cloud receipted.
"""

import hashlib
from typing import Any, Final

import msgspec

from edge import __version__
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.errors import StorageError

VERSION: Final = 1
GENESIS: Final = bytes(32)
"""The head before the first record."""
HEAD_BYTES: Final = 32

_LEAF: Final = b"\x00"
_LINK: Final = b"\x01"


class Pinned(msgspec.Struct, frozen=True):
    """SHA-256, in hex, of what a deployment pins for one pipeline.

    Attributes:
        parameters: Of the three guests' parameters, as JSON with sorted keys.
    """

    model: str
    preprocess: str
    postprocess: str
    decide: str
    parameters: str


class Entry(msgspec.Struct, frozen=True):
    """What is to be recorded: a verdict as it went out, and what it came from.

    Attributes:
        verdict: As published.
        decided_at_ns: UTC.
        reference_digest: SHA-256 of the reference image's payload, hex; empty where none was used.
        pinned: Of the deployment that judged.
        signals: As the policy saw them, by logical name.
        fingerprint: Of the frame's bytes, as the daemon makes it; kept beside the record, not in
            it, for telling redelivered frames after a restart.
    """

    verdict: Verdict
    decided_at_ns: int
    pinned: Pinned
    reference_digest: str = ""
    signals: dict[str, SignalValue] = {}
    fingerprint: int = 0


class Digests(msgspec.Struct, frozen=True):
    """SHA-256, in hex, of all that the verdict depends on; empty where there was none."""

    frame: str
    reference: str
    model: str
    preprocess: str
    postprocess: str
    decide: str
    parameters: str


class Seen(msgspec.Struct, frozen=True):
    """A signal as the policy saw it; `value` is None where it was not a finite number."""

    value: float | None
    age_ns: int
    state: SignalState


class Record(msgspec.Struct, frozen=True):
    """A record, as its canonical bytes say it.

    Attributes:
        v: Version of the encoding.
        type: `verdict`; other kinds of record may follow in later versions.
        ledger: Random name of the ledger: a device whose disk was replaced begins another one.
        seq: Place in the ledger, from 1, without gaps.
        prev: Head of the chain before this record, hex.
        software: Version of this runtime.
    """

    v: int
    type: str
    ledger: str
    seq: int
    prev: str
    device: str
    pipeline: str
    deployment: DeploymentRef
    frame_id: str
    part_id: str
    verdict: Kind
    reason: str
    score: float | None
    defects: tuple[Defect, ...]
    captured_at_ns: int
    decided_at_ns: int
    digests: Digests
    signals: dict[str, Seen]
    provider: str
    software: str
    latency_ms: dict[str, float]
    budget_ms: float


class Pending(msgspec.Struct, frozen=True):
    """A record that the cloud has not receipted: its canonical bytes are the message."""

    seq: int
    body: bytes


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Record)


def leaf_hash(canonical: bytes) -> bytes:
    """Return the leaf hash of a record's canonical bytes (rule 3)."""
    return hashlib.sha256(_LEAF + canonical).digest()


def next_head(head: bytes, canonical: bytes) -> bytes:
    """Return the head of the chain after a record (rule 3)."""
    return hashlib.sha256(_LINK + head + leaf_hash(canonical)).digest()


def encode(entry: Entry, frame_digest: str, ledger: str, seq: int, prev: bytes) -> bytes:
    """Return the canonical bytes of the record of `entry` at place `seq` after the head `prev`."""
    verdict, pinned = entry.verdict, entry.pinned
    return _encoder.encode(
        Record(
            v=VERSION,
            type="verdict",
            ledger=ledger,
            seq=seq,
            prev=prev.hex(),
            device=verdict.device,
            pipeline=verdict.pipeline,
            deployment=verdict.deployment,
            frame_id=verdict.frame_id,
            part_id=verdict.part_id,
            verdict=verdict.verdict,
            reason=verdict.reason,
            score=verdict.score,
            defects=verdict.defects,
            captured_at_ns=verdict.captured_at_ns,
            decided_at_ns=entry.decided_at_ns,
            digests=Digests(
                frame=frame_digest,
                reference=entry.reference_digest,
                model=pinned.model,
                preprocess=pinned.preprocess,
                postprocess=pinned.postprocess,
                decide=pinned.decide,
                parameters=pinned.parameters,
            ),
            signals={
                name: Seen(value.value, value.age_ns, value.state)
                for name, value in entry.signals.items()
            },
            provider=verdict.provider,
            software=__version__,
            latency_ms=verdict.latency_ms,
            budget_ms=verdict.budget_ms,
        )
    )


def decode(canonical: bytes) -> Record:
    """Read a record.

    Raises:
        StorageError: The bytes are not a record of this version.
    """
    try:
        record = _decoder.decode(canonical)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise StorageError(f"not a record of version {VERSION}: {wrong}") from wrong
    if record.v != VERSION:
        raise StorageError(f"a record of version {record.v}; this software reads {VERSION}")
    return record


def verdict_of(record: Record) -> Verdict:
    """Return the verdict as it was published, to be given again to a frame that comes again.

    Equal to the one that went out; only the order of the keys of `latency_ms` is another.
    """
    return Verdict(
        device=record.device,
        pipeline=record.pipeline,
        deployment=record.deployment,
        frame_id=record.frame_id,
        part_id=record.part_id,
        verdict=record.verdict,
        reason=record.reason,
        score=float("nan") if record.score is None else record.score,
        defects=record.defects,
        captured_at_ns=record.captured_at_ns,
        latency_ms=record.latency_ms,
        budget_ms=record.budget_ms,
        provider=record.provider,
    )


def pinned(plan: PipelinePlan) -> Pinned:
    """Return the digests of a plan; they hold as long as the plan is used."""
    guests = (plan.preprocess, plan.postprocess, plan.decide)
    return Pinned(
        model=plan.model.sha256,
        preprocess=plan.preprocess.sha256,
        postprocess=plan.postprocess.sha256,
        decide=plan.decide.sha256,
        parameters=parameters_digest([guest.parameters for guest in guests]),
    )


def parameters_digest(parameters: list[dict[str, Any]]) -> str:
    """Return the SHA-256, hex, of the guests' parameters as canonical JSON (rule 1)."""
    return hashlib.sha256(_encoder.encode(parameters)).hexdigest()
