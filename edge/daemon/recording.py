"""Recording: verdicts into the ledger, records to the cloud, receipts back.

Binds `edge.ledger` to the broker's session. The verdict itself has gone out to the line before it
comes here: a slow disk delays the acknowledgement of a frame, never its verdict. Where storage
fails for longer, `stuck` has the frames that come meanwhile reviewed and not judged.
"""

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from edge.config import LedgerSection
from edge.daemon.checkpoints import Checkpoints
from edge.daemon.recorded import keeper_of
from edge.daemon.throttle import Throttle
from edge.errors import DamagedError, StorageError
from edge.ledger import aside
from edge.ledger.entry import Correction, Entry
from edge.ledger.kept import Keeper, KeptCounts
from edge.ledger.ledger import Ledger
from edge.ledger.lookup import Given
from edge.ledger.outbox import Outbox
from edge.ledger.record import HEAD_BYTES
from edge.ledger.signing import NO_KEYS, Keys
from edge.ledger.store import Retention
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

_TICK_S: Final = 1.0
_MAX_RECEIPT_BYTES: Final = 1_024
MAX_KEPT_BACK: Final = 4_096
"""Entries that the ledger could not take yet, 2 KiB each. Frames of QoS 1 never fill it: of them
the broker sends no more than 64 ahead of our acknowledgements. Those of QoS 0 may; what is dropped
then is counted."""
_ASKED_A_TICK: Final = 64


class Receipt(msgspec.Struct, frozen=True):
    """The cloud's word: it holds all records up to `seq`, and `head` (hex) is their chain's.

    `ledger` names the ledger that it is for; empty where the cloud does not say. `cosignature` is a
    line (C2SP tlog-cosignature) over the checkpoint of `checkpoint` records; empty: there is none.
    """

    seq: int
    head: str
    ledger: str = ""
    checkpoint: int = 0
    cosignature: str = ""


class Recording:
    """The ledger at work. All methods belong to the event loop's thread.

    Args:
        section: The config's `ledger`.
        folder: The ledger's folder.
        device_id: Part of the topics.
        session: Carries records out and receipts in.
        counters: The daemon's.
        on_change: Called when storage begins to fail, and when it works again.
        keys: Sign the ledger's checkpoints.
        frames_wait: Whether a frame waits for its verdict: records then give way.

    Attributes:
        came_round_at: When `keep_sending` last did; monotonic seconds.

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
        keys: Keys = NO_KEYS,
        frames_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._topic = f"edge/{device_id}/records"
        self._session = session
        self._counters = counters
        self._on_change = on_change
        self.frames_wait = frames_wait
        self._kept_back: deque[tuple[Entry, Callable[[], None]]] = deque()
        self._unsettled: deque[tuple[str, str, Callable[[], None]]] = deque(maxlen=MAX_KEPT_BACK)
        self._refused_receipt = ""
        self._throttle = Throttle(time.monotonic_ns)
        self._section = section
        self._kept = KeptCounts()
        self._checkpoints = Checkpoints(device_id, session, counters)
        self._folder = folder
        self.came_round_at = self.now_s()

        def open_ledger() -> tuple[Keeper | None, Ledger]:
            keeper = keeper_of(section, folder, loop, self._frames_troubled)
            ledger = Ledger(
                folder,
                device_id,
                loop.call_soon_threadsafe,
                keeper=keeper,
                retention=Retention(
                    max_records=section.max_records,
                    max_age_s=section.max_age_days * 86_400,
                    max_bytes=section.max_bytes,
                ),
                on_trouble=self._troubled,
                keys=keys,
                on_checkpoint=self._checkpoints.made,
            )
            return keeper, ledger

        try:
            self._keeper, self._ledger = open_ledger()
        except DamagedError as damage:
            # A line must not stand because of a bad sector; nothing of the evidence is touched.
            lies = aside.set_aside(folder, damage)
            log.critical("ledger_set_aside", folder=str(lies), detail=str(damage))
            counters.count("ledgers_set_aside")
            self._keeper, self._ledger = open_ledger()
        self._outbox = Outbox(self._ledger.receipted, self)
        self._outbox.committed(self._ledger.committed)
        session.subscribe(f"edge/{device_id}/receipts", 1, self._receive)

    @property
    def trouble(self) -> str:
        """Why records are not committed; empty where they are."""
        return self._ledger.trouble

    @property
    def ledger_came_round_at(self) -> float:
        """When the ledger's thread last came round; monotonic seconds."""
        return self._ledger.came_round_at

    @property
    def stuck(self) -> bool:
        """Whether a verdict that came now could not be recorded for a while."""
        return bool(self._kept_back) or self._ledger.stuck

    def status(self) -> dict[str, Any]:
        """Return what the status message says of the ledger."""
        standing = self._ledger.standing
        return {
            "committed": self._ledger.committed,
            "receipted": self._ledger.receipted,
            "owed": self._outbox.owed,
            "owed_since_ns": standing.owed_since_ns,
            "waiting": self._ledger.waiting + len(self._kept_back),
            "stuck": self.stuck,
            "trouble": self._ledger.trouble,
            "set_aside": [each.name for each in aside.found(self._folder)],
            "refused_receipt": self._refused_receipt,
            "signed": self._ledger.checkpoint.size if self._ledger.checkpoint else 0,
            "bytes": standing.used_bytes,
            "max_bytes": self._section.max_bytes,
            "reserve": standing.reserve,
            "frames": self._frames_status(),
        }

    def _frames_status(self) -> dict[str, Any] | None:
        if self._keeper is None:
            return None
        counts = msgspec.structs.asdict(self._keeper.counts)
        limits = {"max_bytes": self._section.frames.max_bytes, "trouble": self._keeper.trouble}
        return {**counts, **limits}

    async def recent(self, pipeline: str, limit: int) -> list[Given]:
        """Return the last verdicts of a pipeline, oldest first; none where storage fails."""
        found: asyncio.Future[list[Given]] = asyncio.get_running_loop().create_future()

        def tell(given: list[Given]) -> None:
            if not found.done():  # whoever asked may have been ended
                found.set_result(given)

        try:
            self._ledger.recent(pipeline, limit, tell)
        except StorageError:  # a pipeline that begins without them may judge a frame again
            return []
        return await found

    def record(self, entry: Entry, frame: bytes, on_committed: Callable[[], None]) -> None:
        """Record a verdict; `on_committed` is called when it is on the medium.

        Where the ledger takes no more, the entry is kept back, without the frame's bytes, until it
        does.
        """
        if self._kept_back:  # records keep the order of verdicts
            self._keep_back(entry, frame, on_committed, "others wait before it")
            return
        try:
            self._append(entry, frame, on_committed)
        except StorageError as full:
            self._keep_back(entry, frame, on_committed, str(full))

    def _append(self, entry: Entry, frame: bytes, on_committed: Callable[[], None]) -> None:
        def committed(seq: int) -> None:
            self._counters.count("records_committed")
            on_committed()
            self._outbox.committed(seq)

        self._ledger.append(entry, frame, committed)

    def _keep_back(
        self, entry: Entry, frame: bytes, on_committed: Callable[[], None], why: str
    ) -> None:
        frame_id = entry.verdict.frame_id
        if len(self._kept_back) >= MAX_KEPT_BACK:
            self._counters.count("records_dropped")
            unsaid = self._throttle.admit("record_dropped")
            if unsaid is not None:
                detail = f"{MAX_KEPT_BACK} wait: {why}"
                log.error("record_dropped", frame=frame_id, detail=detail, not_logged=unsaid)
            return
        self._counters.count("records_kept_back")
        digest = hashlib.sha256(frame).hexdigest()
        bare = msgspec.structs.replace(entry.digested(), frame_digest=digest, reference=b"")
        self._kept_back.append((bare, on_committed))
        if len(self._kept_back) == 1:
            log.error("record_kept_back", frame=frame_id, detail=why)

    def _record_kept_back(self) -> None:
        while self._kept_back:
            entry, on_committed = self._kept_back[0]
            try:
                self._append(entry, b"", on_committed)
            except StorageError:
                return
            self._kept_back.popleft()

    def ensure(self, pipeline: str, frame_id: str, on_committed: Callable[[], None]) -> None:
        """Call `on_committed` when the verdict that a frame was given before is on the medium.

        Until then it is looked for again each second, as long as the broker stays: on the next
        connection it brings the frame once more.
        """

        def found(given: Given | None) -> None:
            if given is not None:
                on_committed()
            else:
                self._unsettled.append((pipeline, frame_id, on_committed))

        try:
            self._ledger.find(pipeline, frame_id, found)
        except StorageError:
            self._unsettled.append((pipeline, frame_id, on_committed))

    async def override(self, correction: Correction) -> tuple[str, int]:
        """Record what a person says of a verdict.

        Returns:
            Why it was refused, or ""; and the place of its record, once that is on the medium.
        """
        answer: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()

        def taken(refusal: str, seq: int) -> None:
            if not refusal:
                self._counters.count("verdicts_overridden", kind=correction.verdict)
                log.info("verdict_overridden", record=seq, by=correction.by, via=correction.via)
                self._outbox.committed(seq)
            if not answer.done():  # whoever asked had patience for a disk that is this slow
                answer.set_result((refusal, seq))

        try:
            self._ledger.override(correction, taken)
        except StorageError as busy:
            return str(busy), 0
        return await answer

    def connected(self) -> None:
        """The broker is there."""
        self._outbox.connected()
        self._checkpoints.publish(self._ledger.checkpoint)

    def disconnected(self) -> None:
        """The broker is gone."""
        self._unsettled.clear()  # it brings these frames again
        self._outbox.disconnected()

    async def keep_sending(self) -> None:
        """Send again what the cloud has not receipted, until cancelled."""
        while True:
            self.came_round_at = self.now_s()
            await asyncio.sleep(_TICK_S)
            self._outbox.tick()
            self._record_kept_back()
            for _ in range(min(_ASKED_A_TICK, len(self._unsettled))):
                self.ensure(*self._unsettled.popleft())
            self._count_frames()

    def _count_frames(self) -> None:
        """Carry what the keeper's thread counted over to the daemon's counters."""
        if self._keeper is None:
            return
        before, now = self._kept, self._keeper.counts
        self._counters.count("frames_kept", now.kept - before.kept)
        self._counters.count("frames_not_kept", now.dropped - before.dropped)
        self._counters.count("kept_files_evicted", now.evicted - before.evicted)
        self._kept = now

    async def close(self, grace_s: float) -> int:
        """Commit what waits, or was kept back; return how many records could not be."""
        self._record_kept_back()
        uncommitted = await asyncio.to_thread(self._ledger.close, grace_s)
        return uncommitted + len(self._kept_back)

    # What the outbox causes (`edge.ledger.outbox.Outlets`).

    def now_s(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def later(self, pause_s: float, act: Callable[[], None]) -> None:
        """Call `act` after so long."""
        asyncio.get_running_loop().call_later(pause_s, act)

    def load(self, after: int, limit: int) -> None:
        """Read the next records."""
        try:
            self._ledger.pending(after, limit, self._outbox.loaded)
        except StorageError:  # it takes no more questions: none are found, and a tick asks again
            asyncio.get_running_loop().call_soon(self._outbox.loaded, [])

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Have what is published inside leave in one piece."""
        return self._session.together()

    def publish(self, body: bytes, on_done: Callable[[bool], None]) -> bool:
        """Send a record; verdicts go first."""

        def done(taken: bool) -> None:
            if not taken:  # the session's log says why
                self._counters.count("records_refused")
            on_done(taken)

        return self._session.publish(self._topic, body, bulk=True, on_done=done)

    def _receive(self, message: Incoming) -> None:
        self._session.acknowledge(message)
        try:
            if len(message.payload) > _MAX_RECEIPT_BYTES:
                raise ValueError(f"{len(message.payload)} bytes")
            receipt = msgspec.json.decode(message.payload, type=Receipt)
            head = bytes.fromhex(receipt.head)
            if receipt.seq < 0 or len(head) != HEAD_BYTES:
                raise ValueError(f"seq {receipt.seq}, head of {len(head)} bytes")
            self._ledger.receive(receipt.seq, head, self._taken, ledger=receipt.ledger)
            if receipt.cosignature:
                self._checkpoints.cosign(self._ledger, receipt.checkpoint, receipt.cosignature)
        except (ValueError, msgspec.DecodeError, RecursionError) as wrong:
            self._counters.count("receipts_refused")
            log.warning("receipt_refused", topic=message.topic, detail=str(wrong))
        except StorageError as busy:
            log.warning("receipt_not_taken", detail=str(busy))  # the cloud repeats itself

    def _taken(self, refusal: str, receipted: int) -> None:
        if refusal:
            self._counters.count("receipts_refused")
            # Another chain under our name, or ours altered: nothing that an operator may miss.
            log.error("receipt_refused", detail=refusal)
            self._refused_receipt = refusal
            self._on_change()
        elif receipted:
            self._refused_receipt = ""
        self._outbox.receipt_taken(receipted)

    def _frames_troubled(self, trouble: str) -> None:
        if trouble:
            log.error("frames_not_kept", detail=trouble)
        else:
            log.info("frames_kept_again")
        self._on_change()

    def _troubled(self, trouble: str) -> None:
        if trouble:
            log.error("ledger_trouble", detail=trouble)
        else:
            log.info("ledger_well")
        self._on_change()
