"""What comes from a device, checked before anything is done with it. Pure.

Rules:

1. A topic says who speaks; the broker's access list sees that it is true. A payload that names
   another device is refused, and the blame stays with the one whose topic it is.
2. Bounds come first: bytes, then depth (the parser's), then each field that is used.
3. A record is kept as the bytes that came: they are what was hashed.
"""

import re
from typing import Annotated, Final, Literal

import msgspec

from edge.ledger import record as records

MAX_SEQ: Final = 1 << 53
"""Places are JSON integers; beyond this some readers round them."""
_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOPIC_LEVELS: Final = 3  # edge, the device, what it says
_MAX_STATUS_BYTES: Final = 256 << 10


class RefusedError(Exception):
    """A message that is not what its topic promises. It is counted, and goes no further."""


class Arrival(msgspec.Struct, frozen=True):
    """A record as it came.

    Attributes:
        prev: Head of the chain before it, as it says.
        leaf: Hash of its bytes.
    """

    device: str
    ledger: str
    seq: int
    prev: bytes
    leaf: bytes
    body: bytes


class _Claims(msgspec.Struct):
    v: Annotated[int, msgspec.Meta(ge=1)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    ledger: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]
    prev: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    device: str


class _Status(msgspec.Struct):
    state: Literal["online", "offline"]
    detail: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


_claims = msgspec.json.Decoder(_Claims)
_status = msgspec.json.Decoder(_Status)


def device_of(topic: str) -> str:
    """Return who speaks on `edge/{device}/…`; empty where that is no device's name."""
    levels = topic.split("/")
    if len(levels) != _TOPIC_LEVELS or not _DEVICE.fullmatch(levels[1]):
        return ""
    return levels[1]


def record(device: str, body: bytes, max_bytes: int) -> Arrival:
    """Read a record.

    Raises:
        RefusedError: It is too large, no record, or another device's.
    """
    if len(body) > max_bytes:
        raise RefusedError(f"a record of {len(body)} bytes; the limit is {max_bytes}")
    if b"\n" in body or b"\r" in body:
        # What is exported is a record a line: one of several could show another device's.
        raise RefusedError("not a record: canonical bytes are one line")
    try:
        claims = _claims.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise RefusedError(f"not a record: {str(wrong)[:200]}") from wrong
    if claims.device != device:
        raise RefusedError(f"a record that names device {claims.device[:80]!r}")
    return Arrival(
        device=device,
        ledger=claims.ledger,
        seq=claims.seq,
        prev=bytes.fromhex(claims.prev),
        leaf=records.leaf_hash(body),
        body=body,
    )


def status(payload: bytes) -> _Status:
    """Read a device's status: only whether it is there.

    Raises:
        RefusedError: It does not say so.
    """
    if len(payload) > _MAX_STATUS_BYTES:
        raise RefusedError(f"a status of {len(payload)} bytes")
    try:
        return _status.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise RefusedError(f"not a status: {str(wrong)[:200]}") from wrong
