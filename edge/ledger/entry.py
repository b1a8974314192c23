"""What is to be recorded: a verdict with all that it came from, or a person's word on one. Pure."""

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec

from edge.contracts.messages import PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import Kind, Verdict

MAX_BY_CHARS: Final = 64
MAX_REASON_CHARS: Final = 500
MAX_ID_CHARS: Final = 128

_canonical: Final = msgspec.json.Encoder(order="sorted")


PARAMETERS: Final = (
    "preprocess",
    "postprocess",
    "decide",
    "refine.preprocess",
    "refine.postprocess",
    "refine",
)
"""What the members of a document of parameters are; it ends after three where there is no cascade.
"""


class PinnedRefine(msgspec.Struct, frozen=True):
    """SHA-256, in hex, of what the second model of a cascade consists of."""

    model: str
    preprocess: str
    postprocess: str


class Pinned(msgspec.Struct, frozen=True):
    """SHA-256, in hex, of what a deployment pins for one pipeline.

    Attributes:
        parameters: Of `document`.
        document: As JSON with sorted keys, the parameters of `preprocess`, `postprocess` and
            `decide`; of a cascade then those of its second model's guests, and how it is set.
        refine: Of a cascade's second model; None: there is none.
    """

    model: str
    preprocess: str
    postprocess: str
    decide: str
    parameters: str
    document: bytes = b""
    refine: "PinnedRefine | None" = None


class Runtime(msgspec.Struct, frozen=True):
    """What ran the model and the guests; empty where nothing was judged.

    Attributes:
        versions: Of engines and decoders, and the machine's architecture and processor.
        threads: Intra-op threads of ONNX Runtime.
        options: Provider options.
    """

    versions: dict[str, str] = {}
    threads: int = 0
    options: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    """What is to be recorded: a verdict as it went out, and what it came from.

    Attributes:
        verdict: As published.
        decided_at_ns: UTC.
        reference_digest: SHA-256 of the reference image's payload, hex; empty where none was used,
            and where `digest_reference` gives it.
        reference: That payload, to be kept beside the frame.
        pinned: Of the deployment that judged.
        signals: As the policy saw them, by logical name.
        fingerprint: Of the frame's bytes, as the daemon makes it; kept beside the record, not in
            it, for telling redelivered frames after a restart.
        content: What the frame's bytes were read as, an MQTT content type.
        reference_content: Likewise of the reference.
        policy: The policy's state before this frame; None where the frame was not judged.
        findings: SHA-256, hex, of the findings before they were rounded; empty likewise.
        runtime: What it was judged with.
        frame_digest: SHA-256 of the frame, hex, where it is known already.
        digest_reference: Asked once, where there is time: on the ledger's thread.
    """

    verdict: Verdict
    decided_at_ns: int
    pinned: Pinned
    reference_digest: str = ""
    reference: bytes = b""
    signals: dict[str, SignalValue] = {}
    fingerprint: int = 0
    content: str = ""
    reference_content: str = ""
    policy: PolicyState | None = None
    findings: str = ""
    runtime: Runtime = Runtime()
    frame_digest: str = ""
    digest_reference: Callable[[], str] | None = None

    def digested(self) -> "Entry":
        """Itself with the digest of its reference."""
        if self.digest_reference is None:
            return self
        found = self.digest_reference()
        return msgspec.structs.replace(self, reference_digest=found, digest_reference=None)


class Correction(msgspec.Struct, frozen=True):
    """What a person says of a verdict that was given.

    Attributes:
        pipeline: Whose verdict; empty: the part has been seen by one pipeline only.
        part_id: Of the part; its last verdict is meant. Empty where `seq` names the record.
        seq: The record that is meant; 0 where `part_id` names the part.
        verdict: What it should have been.
        by: Who says so: a name or a role.
        reason: Why, in their words.
        via: How they came in, e.g. `uid 1000`; written by the daemon, never by them.
    """

    verdict: Kind
    by: str
    reason: str
    part_id: str = ""
    seq: int = 0
    pipeline: str = ""
    via: str = ""

    def problem(self) -> str:
        """Say what is wrong with it; empty: nothing."""
        if bool(self.part_id) == bool(self.seq) or self.seq < 0:
            return "name either a part or the place of a record"
        for name, text, longest in (
            ("by", self.by, MAX_BY_CHARS),
            ("reason", self.reason, MAX_REASON_CHARS),
            ("part", self.part_id or "-", MAX_ID_CHARS),
        ):
            if not text.strip() or len(text) > longest or not text.isprintable():
                return f"{name}: expected 1 to {longest} printable characters"
        return ""


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes, hex."""
    return hashlib.sha256(content).hexdigest()


def pinned(plan: PipelinePlan) -> Pinned:
    """Return the digests of a plan; they hold as long as the plan is used."""
    guests, refine = [plan.preprocess, plan.postprocess, plan.decide], plan.refine
    settings: list[dict[str, Any]] = []
    if refine is not None:
        guests += [refine.preprocess, refine.postprocess]
        settings = [refine.settings]
    document = parameters_document([*(guest.parameters for guest in guests), *settings])
    return Pinned(
        model=plan.model.sha256,
        preprocess=plan.preprocess.sha256,
        postprocess=plan.postprocess.sha256,
        decide=plan.decide.sha256,
        parameters=digest(document),
        document=document,
        refine=None
        if refine is None
        else PinnedRefine(refine.model.sha256, refine.preprocess.sha256, refine.postprocess.sha256),
    )


def parameters_document(parameters: list[dict[str, Any]]) -> bytes:
    """Return parameters, in the order of `PARAMETERS`, as the JSON whose digest is recorded."""
    return _canonical.encode(parameters)
