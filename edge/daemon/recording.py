"""Recording: verdicts into the ledger, records to the cloud, receipts back.

Binds `edge.ledger` to the broker's session. The verdict itself has gone out to the line before it
comes here: a slow disk delays the acknowledgement of a frame, never its verdict.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from edge.config import LedgerSection
from edge.errors import StorageError
from edge.ledger.entry import Entry
from edge.ledger.ledger import Ledger
from edge.ledger.lookup import Given
from edge.ledger.outbox import Outbox
from edge.ledger.record import HEAD_BYTES
from edge.ledger.store import Retention
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

_TICK_S: Final = 1.0
_MAX_RECEIPT_BYTES: Final = 1_024
_MAX_KEPT_BACK: Final = 1_000
"""Entries that the ledger could not take, kept for when their frame is delivered again. The frame
of an entry that had to go stays unacknowledged: what is not recorded is never said to be."""


class Receipt(msgspec.Struct, frozen=True):
    """The cloud's word: it holds all records up to `seq`, and `head` (hex) is their chain's."""

    seq: int
    head: str


class Recording:
    """The ledger at work. All methods belong to the event loop's thread.

    Args:
        section: The config's `ledger`.
        folder: The ledger's folder.
        device_id: Part of the topics.
        session: Carries records out and receipts in.
        counters: The daemon's.
        on_change: Called when storage begins to fail, and when it works again.

    Raises:
        StorageError: The ledger cannot be opened.
    """

    def __init__(
        self,
        section: LedgerSection,
        folder: Path,
        device_id: str,
        session: Session,
        counters: Counters,
        on_change: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._topic = f"edge/{device_id}/records"
        self._session = session
        self._counters = counters
        self._on_change = on_change
        self._kept_back: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._ledger = Ledger(
            folder,
            device_id,
            loop.call_soon_threadsafe,
            retention=Retention(
                max_records=section.max_records,
                max_age_s=section.max_age_days * 86_400,
                max_bytes=section.max_bytes,
            ),
            on_trouble=self._troubled,
        )
        self._outbox = Outbox(self._ledger.receipted, self)
        self._outbox.committed(self._ledger.committed)
        session.subscribe(f"edge/{device_id}/receipts", 1, self._receive)

    @property
    def trouble(self) -> str:
        """Why records are not committed; empty where they are."""
        return self._ledger.trouble

    def status(self) -> dict[str, Any]:
        """Return what the status message says of the ledger."""
        return {
            "committed": self._ledger.committed,
            "receipted": self._ledger.receipted,
            "owed": self._outbox.owed,
            "waiting": self._ledger.waiting,
            "trouble": self._ledger.trouble,
        }

    async def recent(self, pipeline: str, limit: int) -> list[Given]:
        """Return the last verdicts of a pipeline, oldest first."""
        found: asyncio.Future[list[Given]] = asyncio.get_running_loop().create_future()
        self._ledger.recent(pipeline, limit, found.set_result)
        return await found

    def record(self, entry: Entry, frame: bytes, on_committed: Callable[[], None]) -> None:
        """Record a verdict; `on_committed` is called when it is on the medium.

        Where the ledger takes no more, it is not called: the frame stays unacknowledged, and its
        redelivery ends in `ensure`.
        """

        def committed(seq: int) -> None:
            self._counters.count("records_committed")
            on_committed()
            self._outbox.committed(seq)

        try:
            self._ledger.append(entry, frame, committed)
        except StorageError as full:
            self._counters.count("records_kept_back")
            self._kept_back[entry.verdict.pipeline, entry.verdict.frame_id] = entry
            if len(self._kept_back) > _MAX_KEPT_BACK:
                self._kept_back.popitem(last=False)
            log.error("record_kept_back", frame=entry.verdict.frame_id, detail=str(full))

    def ensure(
        self, pipeline: str, frame_id: str, frame: bytes, on_committed: Callable[[], None]
    ) -> None:
        """See that the verdict of a frame that came again is recorded, as `record` does.

        Args:
            pipeline: Whose verdict.
            frame_id: Of the frame.
            frame: Its payload; empty where it came again while it was judged. Then it is left
                unacknowledged if its first coming was not recorded, and comes once more.
            on_committed: Called when it is on the medium.
        """

        def found(given: Given | None) -> None:
            entry = self._kept_back.get((pipeline, frame_id))
            if given is not None:
                self._kept_back.pop((pipeline, frame_id), None)
                on_committed()
            elif entry is not None and frame:
                del self._kept_back[pipeline, frame_id]
                self.record(entry, frame, on_committed)

        try:
            self._ledger.find(pipeline, frame_id, found)
        except StorageError as busy:
            log.error("record_not_ensured", frame=frame_id, detail=str(busy))

    def connected(self) -> None:
        """The broker is there."""
        self._outbox.connected()

    def disconnected(self) -> None:
        """The broker is gone."""
        self._outbox.disconnected()

    async def keep_sending(self) -> None:
        """Send again what the cloud has not receipted, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._outbox.tick()

    async def close(self, grace_s: float) -> int:
        """Commit what waits; return how many records could not be."""
        return await asyncio.to_thread(self._ledger.close, grace_s)

    # What the outbox causes (`edge.ledger.outbox.Outlets`).

    def now_s(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def load(self, after: int, limit: int) -> None:
        """Read the next records."""
        self._ledger.pending(after, limit, self._outbox.loaded)

    def publish(self, body: bytes, on_done: Callable[[bool], None]) -> bool:
        """Send a record."""
        return self._session.publish(self._topic, body, on_done=on_done)

    def _receive(self, message: Incoming) -> None:
        self._session.acknowledge(message)
        try:
            if len(message.payload) > _MAX_RECEIPT_BYTES:
                raise ValueError(f"{len(message.payload)} bytes")
            receipt = msgspec.json.decode(message.payload, type=Receipt)
            head = bytes.fromhex(receipt.head)
            if receipt.seq < 0 or len(head) != HEAD_BYTES:
                raise ValueError(f"seq {receipt.seq}, head of {len(head)} bytes")
            self._ledger.receive(receipt.seq, head, self._taken)
        except (ValueError, msgspec.DecodeError, RecursionError) as wrong:
            self._counters.count("receipts_refused")
            log.warning("receipt_refused", topic=message.topic, detail=str(wrong))
        except StorageError as busy:
            log.warning("receipt_not_taken", detail=str(busy))  # the cloud repeats itself

    def _taken(self, refusal: str, receipted: int) -> None:
        if refusal:
            self._counters.count("receipts_refused")
            log.warning("receipt_refused", detail=refusal)
        self._outbox.receipt_taken(receipted)

    def _troubled(self, trouble: str) -> None:
        if trouble:
            log.error("ledger_trouble", detail=trouble)
        else:
            log.info("ledger_well")
        self._on_change()
