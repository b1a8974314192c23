"""Checkpoints at work: the keys from their files, and each checkpoint out to the broker.

The last checkpoint lies retained at `edge/{device}/checkpoints`, so that whoever comes later, a
collector or a witness, finds it. Without a connection none is queued: the next one vouches for the
same records and more.
"""

from pathlib import Path
from typing import Final

import structlog

from edge.config import LedgerSection
from edge.errors import ConfigError, ProofError, StorageError
from edge.ledger import note as notes
from edge.ledger.ledger import Ledger
from edge.ledger.note import COSIGNER
from edge.ledger.signing import Kept, Keys
from edge.mqtt.session import Session
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

KEY_FILE: Final = "ledger.key"
"""In the state directory, beside the ledger's folder: a copy of that is no copy of the key."""


class Checkpoints:
    """Publishes the ledger's checkpoints and takes their cosignatures; on the event loop's thread.

    Args:
        device_id: Part of the topic.
        session: To the broker.
        counters: The daemon's.
    """

    def __init__(self, device_id: str, session: Session, counters: Counters) -> None:
        self._topic = f"edge/{device_id}/checkpoints"
        self._session = session
        self._counters = counters

    def made(self, checkpoint: Kept) -> None:
        """Count and publish a checkpoint that was made."""
        self._counters.count("checkpoints_signed")
        self.publish(checkpoint)

    def publish(self, checkpoint: Kept | None) -> None:
        """Publish a checkpoint, retained, where there is one and a connection."""
        if checkpoint is not None and self._session.connected:
            self._session.publish(
                self._topic, checkpoint.note, retain=True, content_type="text/plain; charset=utf-8"
            )

    def cosign(self, ledger: Ledger, size: int, line: str) -> None:
        """Hand the cosignature of a receipt to the ledger."""

        def taken(refusal: str) -> None:
            if refusal:
                self._counters.count("cosignatures_refused")
                log.warning("cosignature_refused", size=size, detail=refusal)

        try:
            ledger.cosign(size, line, taken)
        except StorageError as busy:
            log.warning("cosignature_not_taken", size=size, detail=str(busy))


def keys_of(section: LedgerSection, state: Path) -> Keys:
    """Read the keys that a config names; the device's own is made where none is named.

    Raises:
        ConfigError: A key cannot be read, made, or is none.
    """
    named = section.key
    path = named or state / KEY_FILE
    if named is None and not path.exists():
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise ConfigError("storage.path", f"{state}: {failed.strerror}") from failed
        notes.write_key(path, notes.new_key())
        log.info("ledger_key_made", path=str(path))
    private = [notes.read_key(path)]
    if section.retiring_key is not None:
        private.append(notes.read_key(section.retiring_key))
    return Keys(tuple(private), cosigners_of(section.cosigners))


def cosigners_of(vkeys: tuple[str, ...]) -> tuple[notes.Verifier, ...]:
    """Read the cosigners that a config names.

    Raises:
        ConfigError: One is no key of a cosigner.
    """
    found = []
    for n, vkey in enumerate(vkeys):
        where = f"ledger.cosigners[{n}]"
        try:
            verifier = notes.parse_vkey(vkey)
        except ProofError as wrong:
            raise ConfigError(where, str(wrong)) from wrong
        if verifier.kind != COSIGNER:
            raise ConfigError(
                where, f"{verifier.name} is the key of a log; expected a cosigner's, of kind 4"
            )
        found.append(verifier)
    return tuple(found)
