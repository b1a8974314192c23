"""Records, their canonical bytes, and the chain over them. Pure.

There are two types: `verdict`, what a frame was given and what that came from; and `override`, what
a person says of it afterwards. An override never touches the record that it speaks of.

Rules:

1. The canonical bytes are JSON in UTF-8 without white space, the keys of every object sorted by
   code point, integers in decimal, other numbers as the shortest digits that read back as the same
   IEEE 754 double, and `null` for a number that is not finite. `v` names this encoding.
2. Nobody has to encode again to check: what is hashed, stored, published and exported are the same
   bytes, and each record carries the head before it (`prev`).
3. leaf = SHA-256(0x00 || bytes), the leaf hash of RFC 6962, section 2.1, so that the Merkle
   tree over the same leaves lies beside the chain. head = SHA-256(0x01 || head before || leaf);
   before the first record the head is 32 zero bytes.

Not here: signatures (`edge.ledger.checkpoint`). A chain shows that records fit each other, and not
whose they are.
"""

import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from edge import __version__
from edge.contracts.signal import SignalState
from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.errors import StorageError
from edge.ledger import entry as entries
from edge.ledger import merkle
from edge.ledger.entry import Correction, Entry, PinnedRefine, Runtime

VERSION: Final = 1
GENESIS: Final = bytes(32)
"""The head before the first record."""
HEAD_BYTES: Final = 32

_LINK: Final = b"\x01"

Hex = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
"""A SHA-256, or none. Held where it becomes bytes or a file's name, as a record that is read may be
forged; of all digests it would take as long as the rest of reading."""


class Digests(msgspec.Struct, frozen=True):
    """SHA-256, in hex, of what the verdict depends on; empty where there was none.

    Attributes:
        state: Of what the policy had saved before this frame.
        findings: Of what it was decided by: the guest ABI's Defect structs, before rounding.
        refine: Of a cascade's second model; left out where the pipeline has one model.
    """

    frame: Hex
    reference: Hex
    model: str
    preprocess: str
    postprocess: str
    decide: str
    parameters: str
    state: str = ""
    findings: str = ""
    refine: PinnedRefine | UnsetType = UNSET


class Seen(msgspec.Struct, frozen=True):
    """A signal as the policy saw it; `value` is None where it was not a finite number."""

    value: float | None
    age_ns: int
    state: SignalState


class Record(msgspec.Struct, frozen=True, tag_field="type", tag="verdict"):
    """The record of a verdict, as its canonical bytes say it; `type` is `verdict`.

    Attributes:
        v: Version of the encoding.
        ledger: Random name of the ledger: a device whose disk was replaced begins another one.
        seq: Place in the ledger, from 1, without gaps.
        prev: Head of the chain before this record, hex.
        software: Version of this runtime.
        content: What the bytes of `frame` and `reference` were read as: MQTT content types.
        frame_index: Frames that the policy had decided before; -1 where this one was not judged.
    """

    v: int
    ledger: str
    seq: int
    prev: Hex
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
    content: dict[str, str] = {}
    frame_index: int = -1
    runtime: Runtime = Runtime()

    @property
    def judged(self) -> bool:
        """Whether the frame went the whole way; else its verdict is the host's."""
        return self.frame_index >= 0


class Override(msgspec.Struct, frozen=True, tag_field="type", tag="override"):
    """The record of a correction; `type` is `override`.

    Attributes:
        v: As in `Record`, like all that stands there, too.
        of: Place of the verdict's record.
        of_leaf: Its leaf hash, hex: it stays bound when that record's body is pruned.
        was: The verdict that was given.
        verdict: What it should have been.
        by: Who says so.
        via: How they came in.
        reason: Why, in their words.
        decided_at_ns: UTC, when it was said.
    """

    v: int
    ledger: str
    seq: int
    prev: str
    device: str
    pipeline: str
    frame_id: str
    part_id: str
    of: int
    of_leaf: str
    was: Kind
    verdict: Kind
    by: str
    via: str
    reason: str
    decided_at_ns: int
    software: str


class Pending(msgspec.Struct, frozen=True):
    """A record that the cloud has not receipted: its canonical bytes are the message."""

    seq: int
    body: bytes


_encoder = msgspec.json.Encoder(order="sorted")
_decoder: Final[msgspec.json.Decoder[Record | Override]] = msgspec.json.Decoder(Record | Override)


leaf_hash: Final = merkle.leaf_hash
"""The leaf hash of a record's canonical bytes (rule 3)."""


def next_head(head: bytes, canonical: bytes) -> bytes:
    """Return the head of the chain after a record (rule 3)."""
    return linked(head, leaf_hash(canonical))


def linked(head: bytes, leaf: bytes) -> bytes:
    """Return the head of the chain after a record whose leaf hash is known (rule 3)."""
    return hashlib.sha256(_LINK + head + leaf).digest()


def encode(entry: Entry, frame_digest: str, ledger: str, seq: int, prev: bytes) -> bytes:
    """Return the canonical bytes of the record of `entry` at place `seq` after the head `prev`."""
    verdict, pinned, policy = entry.verdict, entry.pinned, entry.policy
    content = {"frame": entry.content, "reference": entry.reference_content}
    return _encoder.encode(
        Record(
            v=VERSION,
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
                state=entries.digest(policy.blob) if policy is not None and policy.blob else "",
                findings=entry.findings,
                refine=UNSET if pinned.refine is None else pinned.refine,
            ),
            signals={
                name: Seen(value.value, value.age_ns, value.state)
                for name, value in entry.signals.items()
            },
            provider=verdict.provider,
            software=__version__,
            latency_ms=verdict.latency_ms,
            budget_ms=verdict.budget_ms,
            content={name: text for name, text in content.items() if text},
            frame_index=-1 if policy is None else policy.frame_index,
            runtime=entry.runtime,
        )
    )


def encode_override(
    correction: Correction, of: Record, of_leaf: bytes, at_ns: int, seq: int, prev: bytes
) -> bytes:
    """Return the canonical bytes of the record of a correction, at place `seq`, made at `at_ns`.

    Args:
        correction: What was said.
        of: The record that it speaks of, of the same ledger.
        of_leaf: Its leaf hash.
        at_ns: UTC.
        seq: Its place.
        prev: Head of the chain before it.
    """
    return _encoder.encode(
        Override(
            v=VERSION,
            ledger=of.ledger,
            seq=seq,
            prev=prev.hex(),
            device=of.device,
            pipeline=of.pipeline,
            frame_id=of.frame_id,
            part_id=of.part_id,
            of=of.seq,
            of_leaf=of_leaf.hex(),
            was=of.verdict,
            verdict=correction.verdict,
            by=correction.by,
            via=correction.via,
            reason=correction.reason,
            decided_at_ns=at_ns,
            software=__version__,
        )
    )


def decode(canonical: bytes) -> Record | Override:
    """Read a record of either type.

    Raises:
        StorageError: The bytes are not a record of this version.
    """
    try:
        record = _decoder.decode(canonical)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise StorageError(f"not a record of version {VERSION}: {wrong}") from wrong
    if record.v != VERSION:
        raise StorageError(f"a record of version {record.v}; this software reads {VERSION}")
    return record


def decode_verdict(canonical: bytes) -> Record:
    """Read the record of a verdict.

    Raises:
        StorageError: The bytes are not a record of this version, or one of another type.
    """
    record = decode(canonical)
    if not isinstance(record, Record):
        raise StorageError(f"record {record.seq} is no verdict, but an override of {record.of}")
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
