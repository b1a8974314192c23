"""What the collector raises its voice about. Pure."""

from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """Why somebody should look at a device.

    `broken`, `gap`, `offline` and `silent` end by themselves when their cause has gone; the others
    stand until somebody accepts them (`edge fleet accept`).
    """

    FORK = "fork"
    BROKEN = "broken"
    GAP = "gap"
    NEW_LEDGER = "new-ledger"
    GARBAGE = "garbage"
    QUOTA = "quota"
    CHECKPOINT = "checkpoint"
    OFFLINE = "offline"
    SILENT = "silent"


ALARMS: Final = "fleet/alarms"
"""Topics of alarms begin so."""


class Alarm(msgspec.Struct, frozen=True):
    """An alarm that stands.

    Attributes:
        ledger: Which of the device's ledgers; empty: the device itself.
        seq: The record that it is about; 0: no record.
        detail: The whole sentence, of the first time.
        count: How often it was found.
        raised_at_ns: UTC, the first time.
    """

    device: str
    ledger: str
    kind: Kind
    seq: int
    detail: str
    count: int = 1
    raised_at_ns: int = 0

    def topic(self) -> str:
        """Where it is published, retained."""
        return f"{ALARMS}/{self.device}/{self.ledger or 'device'}/{self.kind.value}"

    def to_json(self) -> bytes:
        """Return the message."""
        return msgspec.json.encode({"v": 1, **msgspec.structs.asdict(self)})
