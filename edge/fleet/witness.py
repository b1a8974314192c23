"""Checkpoints of devices: whose they are, and the word of a witness on them.

Rules:

1. A checkpoint is compared with the records, whoever signed it: another root is an alarm.
2. It is cosigned only where a key that is known as this device's signed it, the collector holds all
   its records, and the root computed from them is the same.
3. The cosigner has one tree for each ledger, which only grows: what it cosigns continues whatever
   it cosigned before.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, Self

import msgspec

from edge.errors import ConfigError, ProofError
from edge.fleet.config import CollectSection
from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger.note import COSIGNER, LOG, Signer, Verifier

_MAX_KEYS_BYTES: Final = 16 << 20
_LEVELS: Final = 3  # of an origin: edge, device, ledger


class Compared(Enum):
    """What came of holding a checkpoint to the records."""

    SAME = "same"
    OTHER = "other"
    EARLY = "early"
    """Not all of its records are here yet."""
    MORE = "more"
    """They are here, and not all were gone through yet: ask again."""
    BEYOND = "beyond"
    """It cannot be compared: records before it are missing for ever, or it is an old one."""


class Claim(msgspec.Struct, frozen=True):
    """A checkpoint as a device published it.

    Attributes:
        signed: By a key that is known as this device's.
        note: As it came.
    """

    device: str
    ledger: str
    size: int
    root: bytes
    signed: bool
    note: bytes


class Witness:
    """Who checks signatures, and cosigns.

    Args:
        keys: Public keys, by device.
        signer: Cosigns; None: nothing is cosigned.
    """

    def __init__(self, keys: Mapping[str, Sequence[Verifier]], signer: Signer | None) -> None:
        self._keys = keys
        self._signer = signer

    @classmethod
    def of(cls, section: CollectSection) -> Self:
        """Read the keys that a config names.

        Raises:
            ConfigError: One cannot be read, or is none.
        """
        signer = None
        if section.witness_key is not None:
            signer = Signer(section.witness_name, notes.read_key(section.witness_key), COSIGNER)
        return cls(_device_keys(section), signer)

    def read(self, device: str, note: bytes) -> Claim:
        """Read a checkpoint.

        Raises:
            ProofError: It is none, is another device's, or its device's keys did not sign it.
        """
        found = checkpoints.read(notes.parse(note))
        levels = found.origin.split("/")
        if len(levels) != _LEVELS or found.origin != checkpoints.origin(device, levels[2]):
            raise ProofError(f"a checkpoint of {found.origin[:200]!r}")
        known = [key.named(found.origin) for key in self._keys.get(device, ())]
        if known:
            checkpoints.opened(note, known)
        return Claim(device, levels[2], found.size, found.root, bool(known), note)

    def cosignature(self, claim: Claim, time_s: int) -> str:
        """Return the cosignature of a checkpoint that was found the same; empty: it gets none."""
        if self._signer is None or not claim.signed:
            return ""
        return checkpoints.cosignature(claim.note, self._signer, time_s)


def _device_keys(section: CollectSection) -> dict[str, list[Verifier]]:
    keys: dict[str, list[Verifier]] = {}
    if section.device_keys is None:
        return keys
    try:
        with section.device_keys.open("rb") as file:
            text = file.read(_MAX_KEYS_BYTES).decode()
    except (OSError, UnicodeDecodeError) as failed:
        raise ConfigError("collect.device_keys", f"cannot be read: {failed}") from failed
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{section.device_keys}:{number}"
        try:
            verifier = notes.parse_vkey(line.strip())
        except ProofError as wrong:
            raise ConfigError(where, str(wrong)) from wrong
        levels = verifier.name.split("/")
        if verifier.kind != LOG or len(levels) != _LEVELS or levels[0] != "edge":
            raise ConfigError(
                where,
                f"{verifier.name} is no ledger's key, edge/DEVICE/LEDGER",
                "`edge ledger key show` on the device prints it",
            )
        keys.setdefault(levels[1], []).append(verifier)
    return keys
