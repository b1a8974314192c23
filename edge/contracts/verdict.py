"""Verdicts: the one answer that every accepted frame gets.

A verdict is a value, never an exception. Its JSON form is the contract with the line.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge.contracts.frame import MAX_SIDE_PX


class Kind(StrEnum):
    """What to do with the part."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    REJECT = "reject"
    REVIEW = "review"


class Reason(StrEnum):
    """Stable reason codes that the host gives. Policy guests may add codes of their own."""

    OK = "ok"
    DEFECT = "defect"
    OVERRUN = "overrun"
    STALE = "stale"
    DECODE_ERROR = "decode-error"
    NO_REFERENCE = "no-reference"
    GUEST_TRAP = "guest-trap"
    GUEST_BUDGET = "guest-budget"
    INFERENCE_ERROR = "inference-error"
    WORKER_LOST = "worker-lost"
    OVERLOAD = "overload"
    NOT_READY = "not-ready"
    ID_REUSED = "id-reused"
    STORAGE = "storage"


HOST_REASONS: Final = frozenset(Reason) - {Reason.OK, Reason.DEFECT}
"""Codes that only the host may give: a guest that returns one of them breaks the ABI."""


Side = Annotated[float, Meta(ge=0, le=MAX_SIDE_PX)]
"""Of a box: a pixel of a frame."""


class Defect(msgspec.Struct, frozen=True, rename={"label": "class"}):
    """One finding.

    Attributes:
        label: Class name, from the model card.
        score: 0..1.
        box: x0, y0, x1, y1 in pixels of the frame, half-open, inside the frame.
    """

    label: str
    score: Annotated[float, Meta(ge=0, le=1)]
    box: tuple[Side, Side, Side, Side]


class DeploymentRef(msgspec.Struct, frozen=True):
    """Which deployment judged: its revision, and the sha256 of its manifest in hex."""

    name: str
    revision: int
    digest: str
    signed: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """The verdict as it goes out; readers ignore keys that they do not know.

    Attributes:
        captured_at_ns: UTC; the arrival time where the camera gave none that is plausible.
        latency_ms: `total` from capture (or arrival) to publication, and each stage.
        budget_ms: From capture to publication.
        provider: The execution provider that ran the model; empty where none did.
    """

    device: str
    pipeline: str
    deployment: DeploymentRef
    frame_id: str
    part_id: str
    verdict: Kind
    reason: str
    score: float
    defects: tuple[Defect, ...]
    captured_at_ns: int
    latency_ms: dict[str, float]
    budget_ms: float
    provider: str
    v: int = 1


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Verdict)


def to_json(verdict: Verdict) -> bytes:
    """Encode a verdict as the JSON of the MQTT contract."""
    return _encoder.encode(verdict)


def from_json(payload: bytes) -> Verdict:
    """Decode a verdict; unknown keys are ignored.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: The payload is not a verdict.
    """
    return _decoder.decode(payload)
