"""The ledger: verdicts in from the event loop, committed by a thread of its own, in order.

Rules:

1. No call waits for the disk but the constructor and `close`. Answers come through `deliver`, the
   loop's `call_soon_threadsafe`, and so run on the loop's thread.
2. `on_committed` is called when the record is on the medium, and never before. Records commit in
   the order of `append`.
3. Group commit: the thread commits what waits as soon as it is free, up to 64 records at once.
4. Storage that fails costs no record that was accepted: it is tried again until it is committed or
   the process ends. What waits is bounded by number and bytes; beyond that `append` raises, and
   the caller must not acknowledge its input.
5. What is not an `EdgeError` is a bug: it is raised on the loop's thread, and the ledger takes no
   more.
"""

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from edge.errors import StorageError
from edge.ledger.entry import Correction, Entry
from edge.ledger.kept import Keeper
from edge.ledger.lookup import Given
from edge.ledger.record import Pending
from edge.ledger.reserve import RESERVE_BYTES, Reserve
from edge.ledger.signing import NO_KEYS, Kept, Keys
from edge.ledger.store import Retention, Store
from edge.ledger.writer import STUCK_FAILURES, Append, Ask, Counts, Deliver, Standing, Stop, Writer

MAX_WAITING: Final = 1_024
"""Records accepted and not committed: 50 s of 20 frames/s."""
MAX_WAITING_BYTES: Final = 64 << 20
"""Frames not yet digested."""
MAX_ASKED: Final = 256
"""Questions and receipts not yet answered."""

_Found = TypeVar("_Found")


def _ignore(_: str) -> None:
    pass


class Ledger:
    """The ledger of a device, open. Its methods are for the event loop's thread.

    Args:
        folder: Where it lies; made if absent.
        device: The device's id.
        deliver: Brings answers to the loop's thread.
        retention: What is kept.
        on_trouble: Told when storage begins to fail, with the sentence, and when it works again,
            with "".
        reserve_bytes: Set aside for a full disk.
        keeper: Keeps the frames of some records, and is closed with the ledger.
        keys: Sign checkpoints; without one none is made.
        on_checkpoint: Given each checkpoint that is made.

    Raises:
        StorageError: It cannot be opened, is damaged, or another process has it.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        deliver: Deliver,
        *,
        retention: Retention | None = None,
        on_trouble: Callable[[str], None] = _ignore,
        reserve_bytes: int = RESERVE_BYTES,
        keeper: Keeper | None = None,
        keys: Keys = NO_KEYS,
        on_checkpoint: Callable[[Kept], None] | None = None,
    ) -> None:
        # Each counter, here and in the writer, is written by one thread only: none needs a lock.
        self._accepted = self._accepted_bytes = self._asked = 0
        self._closed = False
        self._inbox: queue.SimpleQueue[Append | Ask | Stop] = queue.SimpleQueue()
        self._keeper = keeper
        self._writer = Writer(self._inbox, deliver, on_trouble, keeper, on_checkpoint)
        try:
            self._thread = self._writer.start(
                lambda: Store(folder, device, retention or Retention(), keys),
                Reserve(folder, reserve_bytes),
            )
        except BaseException:
            if keeper is not None:
                keeper.close()
            raise

    @property
    def counts(self) -> Counts:
        """What the ledger did since it was opened."""
        return self._writer.counts

    @property
    def trouble(self) -> str:
        """Why records are not committed, or what soon may keep them from it; else empty."""
        return self._writer.ended or self._writer.trouble

    @property
    def checkpoint(self) -> Kept | None:
        """The last checkpoint; None: there is none."""
        return self._writer.checkpoint

    @property
    def standing(self) -> Standing:
        """Its size and what it owes, as of the last second."""
        return self._writer.standing

    @property
    def came_round_at(self) -> float:
        """When its thread last came round, monotonic seconds: each second, unless storage hangs."""
        return self._writer.came_round_at

    @property
    def stuck(self) -> bool:
        """Whether a record that came now would find no medium: nothing is committed, or no room."""
        return self._writer.failing >= STUCK_FAILURES or not self._has_room

    @property
    def _has_room(self) -> bool:
        # One frame is always taken, however large.
        undigested_bytes = self._accepted_bytes - self._writer.digested_bytes
        return self.waiting < MAX_WAITING and undigested_bytes <= MAX_WAITING_BYTES

    @property
    def committed(self) -> int:
        """Place of the last record that is committed; 0: none yet."""
        return self._writer.committed

    @property
    def receipted(self) -> int:
        """Up to where the cloud holds all; what lies above is owed to it."""
        return self._writer.receipted

    @property
    def waiting(self) -> int:
        """Records accepted and not committed."""
        return self._accepted - self._writer.settled

    def append(self, entry: Entry, frame: bytes, on_committed: Callable[[int], None]) -> None:
        """Record a verdict.

        Args:
            entry: The verdict and its circumstances.
            frame: The frame's payload: digested on the ledger's thread, then let go.
            on_committed: Called with the record's place once it is on the medium.

        Raises:
            StorageError: Too much waits, or the ledger has ended. Nothing was accepted: do not
                acknowledge the frame, and it will be delivered again.
        """
        self._check_open()
        if not self._has_room:
            reason = f": {self._writer.trouble}" if self._writer.trouble else ""
            raise StorageError(f"{self.waiting} records wait for the disk already{reason}")
        self._accepted += 1
        self._accepted_bytes += len(frame)
        self._inbox.put(Append(entry, frame, on_committed))

    def override(self, correction: Correction, on_taken: Callable[[str, int], None]) -> None:
        """Record what a person says of a verdict.

        Args:
            correction: What they say, and of which verdict.
            on_taken: Told why it was refused, or "", and the place of its record once that is on
                the medium, or 0.

        Raises:
            StorageError: Too many questions wait, or the ledger has ended.
        """

        def act(store: Store) -> tuple[str, int]:
            refusal, seq = store.override(correction, time.time_ns())
            self._writer.counts.overrides += not refusal
            return refusal, seq

        failed = ("the storage takes no record now: it was not written down, try again", 0)
        self._ask(act, lambda taken: on_taken(*taken), failed)

    def pending(self, after: int, limit: int, on_found: Callable[[list[Pending]], None]) -> None:
        """Ask for up to `limit` records above `after` that the cloud has not receipted.

        Where storage fails, none are found, and `trouble` says why.

        Raises:
            StorageError: Too many questions wait, or the ledger has ended.
        """
        none: list[Pending] = []
        self._ask(lambda store: store.pending(after, limit), on_found, none)

    def receive(
        self, seq: int, head: bytes, on_taken: Callable[[str, int], None], *, ledger: str = ""
    ) -> None:
        """Take a receipt of the cloud: it holds all records up to `seq`, and `head` is theirs.

        Args:
            seq: As received.
            head: As received.
            on_taken: Told why the receipt was refused, or "", and up to where the cloud's
                receipts reach now (0 where storage failed).
            ledger: Name of the ledger that it is for; empty: it does not say.

        Raises:
            StorageError: Too many questions wait, or the ledger has ended.
        """

        def act(store: Store) -> tuple[str, int]:
            refusal = (
                f"it is for ledger {ledger[:32]!r}; this is {store.ledger}"
                if ledger not in ("", store.ledger)
                else store.receive(seq, head)
            )
            self._writer.counts.refused_receipts += bool(refusal)
            return refusal, store.receipt.seq

        failed = ("the receipt could not be written down", 0)
        self._ask(act, lambda taken: on_taken(*taken), failed)

    def cosign(self, size: int, line: str, on_taken: Callable[[str], None]) -> None:
        """Take the cloud's cosignature of a checkpoint.

        Args:
            size: Of the checkpoint, as received.
            line: As received.
            on_taken: Told why it was refused, or "".

        Raises:
            StorageError: Too many questions wait, or the ledger has ended.
        """
        failed = "the cosignature could not be written down"
        self._ask(lambda store: store.cosign(size, line), on_taken, failed)

    def recent(self, pipeline: str, limit: int, on_found: Callable[[list[Given]], None]) -> None:
        """Ask for a pipeline's last verdicts, oldest first.

        Where storage fails, none are found, and `trouble` says why.

        Raises:
            StorageError: Too many questions wait, or the ledger has ended.
        """
        none: list[Given] = []
        self._ask(lambda store: store.recent(pipeline, limit), on_found, none)

    def find(self, pipeline: str, frame_id: str, on_found: Callable[[Given | None], None]) -> None:
        """Ask for the last verdict that a frame id was given.

        Where storage fails, none is found, and `trouble` says why.

        Raises:
            StorageError: Too many questions wait, or the ledger has ended.
        """
        self._ask(lambda store: store.find(pipeline, frame_id), on_found, None)

    def close(self, grace_s: float = 5.0) -> int:
        """Commit what waits, and end. Blocks: up to `grace_s`, and longer inside of one fsync.

        Returns:
            Records that were accepted and could not be committed: nobody was told that they were.
        """
        if not self._closed:
            self._closed = True
            self._inbox.put(Stop(time.monotonic() + grace_s))
        self._thread.join()
        if self._keeper is not None:
            self._keeper.close()
        return self.waiting

    def _check_open(self) -> None:
        if self._closed or self._writer.ended:
            raise StorageError(self._writer.ended or "the ledger is closed")

    def _ask(
        self,
        act: Callable[[Store], _Found],
        on_found: Callable[[_Found], None],
        otherwise: _Found,
    ) -> None:
        self._check_open()
        if self._asked - self._writer.answered >= MAX_ASKED:
            raise StorageError(f"{MAX_ASKED} questions to the ledger wait already")

        def answer(store: Store) -> Callable[[], None]:
            found = act(store)
            return lambda: on_found(found)

        self._asked += 1
        self._inbox.put(Ask(answer, lambda: on_found(otherwise)))
