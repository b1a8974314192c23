"""What lies behind a record: its bytes, found by their digests among the kept frames."""

from pathlib import Path
from typing import Final

import msgspec

from edge.contracts.messages import PolicyState
from edge.ledger import kept
from edge.ledger import record as records
from edge.ledger.record import Record
from edge.ledger.verify import Row
from edge.rerun.compare import INPUT, Difference

_NOT_KEPT: Final = "not kept"
_ALTERED: Final = "altered since"


class Evidence(msgspec.Struct, frozen=True):
    """All that a verdict is computed from, beside the deployment.

    Attributes:
        parameters: The three guests' parameters as recorded, JSON; None where they are not kept.
        missing: What is not there, or is not what was recorded. The verdict cannot be computed.
    """

    record: Record
    frame: bytes
    reference: bytes
    policy: PolicyState
    parameters: bytes | None
    missing: tuple[Difference, ...]


def gather(folder: Path, row: Row, record: Record) -> Evidence:
    """Find what a record was made from.

    Args:
        folder: Of the kept frames.
        row: The record as it lies in the ledger, for a look at whether it was altered.
        record: The same, read.
    """
    missing = list(_own(row, record))
    digests = record.digests

    def find(what: str, digest: str) -> bytes:
        content = kept.read(folder, digest) if digest else b""
        if content is None:
            lies = kept.place(folder, digest).exists()
            missing.append(
                Difference(INPUT, what, digest, "", note=_ALTERED if lies else _NOT_KEPT)
            )
        return content or b""

    frame = find("frame", digests.frame)
    reference = find("reference", digests.reference)
    state = find("policy state", digests.state)
    return Evidence(
        record=record,
        frame=frame,
        reference=reference,
        policy=PolicyState(max(record.frame_index, 0), state),
        parameters=kept.read(folder, digests.parameters),
        missing=tuple(missing),
    )


def _own(row: Row, record: Record) -> tuple[Difference, ...]:
    """Compare the record with the chain's head beside it; `edge ledger verify` checks it all."""
    head = records.next_head(bytes.fromhex(record.prev), row.body)
    if head == row.head:
        return ()
    return (Difference(INPUT, f"record {record.seq}", row.head.hex(), head.hex()),)
