"""The thread that owns the ledger's connection: takes what waits, commits it, answers, keeps house.

The promises are those of `edge.ledger.ledger`; here is how they are kept when storage fails:

1. A batch that could not be committed stays at the head of the backlog, and is tried again after
   0.1 s, doubling to 5 s. Questions and receipts are answered meanwhile: a receipt may be what
   makes room.
2. A full disk first costs the reserve, then whatever the cloud has receipted and quotas allow.
3. The connection is kept through errors. Opening the file again could find, in the page cache, a
   commit whose fsync had failed, and take it for durable; writing again makes it so.
"""

import contextlib
import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from edge.errors import StorageError
from edge.ledger.entry import Entry
from edge.ledger.kept import Keeper
from edge.ledger.reserve import Reserve
from edge.ledger.schema import FullError
from edge.ledger.signing import Kept
from edge.ledger.store import PRUNE_RECORDS, Prepared, Store

MAX_BATCH: Final = 64
"""Records in one commit: at 32 the cost of the fsync is spread thin already."""
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
STUCK_FAILURES: Final = 3
"""Commits that failed in a row, 0.7 s, before storage counts as stuck and not as slow."""
_UPKEEP_S: Final = 1.0
"""Between looks at quotas and reserve."""

Deliver = Callable[[Callable[[], None]], object]
"""Calls a function soon on the event loop's thread, e.g. `loop.call_soon_threadsafe`."""


class Counts(msgspec.Struct):
    """What the ledger did since it was opened; written by its thread, read by any."""

    committed: int = 0
    batches: int = 0
    checkpoints: int = 0
    pruned: int = 0
    failures: int = 0
    refused_receipts: int = 0
    overrides: int = 0


class Append(msgspec.Struct, frozen=True):
    """A record to be committed; `on_committed` is called with its place."""

    entry: Entry
    frame: bytes
    on_committed: Callable[[int], None]


class Ask(msgspec.Struct, frozen=True):
    """Something else to do with the store.

    Attributes:
        act: Done on this thread; returns what is to be called on the loop's.
        otherwise: Called there when storage failed.
    """

    act: Callable[[Store], Callable[[], None]]
    otherwise: Callable[[], None]


class Stop(msgspec.Struct, frozen=True):
    """Commit what waits, but not after this instant (monotonic seconds), and end."""

    give_up_at: float


class Standing(msgspec.Struct, frozen=True):
    """How the ledger stands, as of the last look at it, once a second.

    Attributes:
        used_bytes: Of the database's quota.
        owed_since_ns: UTC, when the oldest record was decided that the cloud has not receipted; 0:
            none is owed.
        reserve: Whether the reserve lies.
    """

    used_bytes: int = 0
    owed_since_ns: int = 0
    reserve: bool = False


class Writer:
    """The thread's side of the ledger.

    Args:
        inbox: What is to be done, in order; bounded by whoever fills it.
        deliver: Brings answers to the loop's thread.
        on_trouble: Told there of each change of `trouble`.
        keeper: Keeps the frames of some records; None: none are kept.
        on_checkpoint: Given each checkpoint there, once it is committed.

    Attributes:
        standing: As of the last look.
        checkpoint: The last one; None: there is none.
        failing: Commits that failed since the last one that did not.
        settled: Records committed and answered.
        committed: Place of the last one.
        receipted: Place up to which the cloud holds all.
        digested_bytes: Bytes of frames digested and let go.
        answered: Asks answered.
        came_round_at: When the thread last did, with work or without; monotonic seconds.
        trouble: Why storage fails, or what soon will make it; else empty.
        ended: Why nothing is taken any more; else empty.
    """

    def __init__(
        self,
        inbox: "queue.SimpleQueue[Append | Ask | Stop]",
        deliver: Deliver,
        on_trouble: Callable[[str], None],
        keeper: Keeper | None = None,
        on_checkpoint: Callable[[Kept], None] | None = None,
    ) -> None:
        self.counts = Counts()
        self.checkpoint: Kept | None = None
        self.standing = Standing()
        self.failing = 0
        self.settled = 0
        self.committed = 0
        self.receipted = 0
        self.digested_bytes = 0
        self.answered = 0
        self.came_round_at = time.monotonic()
        self.trouble = ""
        self.ended = ""
        self._inbox = inbox
        self._deliver_on = deliver
        self._on_trouble = on_trouble
        self._keeper = keeper
        self._on_checkpoint = on_checkpoint
        self._backlog: deque[tuple[Prepared, Callable[[int], None]]] = deque()
        self._asks: deque[Ask] = deque()
        self._stop: Stop | None = None
        self._retry_at = 0.0
        self._full = False
        self._retry_s = _FIRST_RETRY_S
        self._upkeep_at = 0.0

    def start(self, open_store: Callable[[], Store], reserve: Reserve) -> threading.Thread:
        """Open the store on a new thread, and serve it there.

        Raises:
            StorageError: It could not be opened.
        """
        opened: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        thread = threading.Thread(
            target=self._run, args=(open_store, reserve, opened), name="ledger", daemon=True
        )
        thread.start()
        failed = opened.get()
        if failed is not None:
            thread.join()
            raise failed
        return thread

    def _run(
        self,
        open_store: Callable[[], Store],
        reserve: Reserve,
        opened: "queue.SimpleQueue[BaseException | None]",
    ) -> None:
        try:
            store = _opened(open_store, reserve)
        except BaseException as failed:  # noqa: BLE001 - raised again where `start` was called
            opened.put(failed)
            return
        self.committed, self.receipted = store.head.seq, store.receipt.seq
        self.checkpoint = store.checkpoint
        opened.put(None)
        try:
            self._serve(store, reserve)
            self._sign(store)
        except BaseException as bug:  # noqa: BLE001 - raised again on the loop's thread
            self.ended = f"the ledger ended by a bug: {bug!r}"
            self._deliver(partial(_raise, bug))
        finally:
            store.close()

    def _serve(self, store: Store, reserve: Reserve) -> None:
        while True:
            self.came_round_at = time.monotonic()
            self._take()
            if self._backlog and time.monotonic() >= self._retry_at:
                self._commit(store, reserve)
            self._answer(store)
            if time.monotonic() >= self._upkeep_at:
                self._keep_house(store, reserve)
            if self._stop is not None and (
                not self._backlog or time.monotonic() >= self._stop.give_up_at
            ):
                return

    def _take(self) -> None:
        """Wait for something to do, then take all that is there."""
        due = self._retry_at if self._backlog else self._upkeep_at
        timeout = max(0.0, min(due, self._upkeep_at) - time.monotonic())
        if self._stop is not None:
            timeout = min(timeout, _FIRST_RETRY_S)
        with contextlib.suppress(queue.Empty):
            self._sort(self._inbox.get(timeout=timeout))
            while True:
                self._sort(self._inbox.get_nowait())

    def _sort(self, task: Append | Ask | Stop) -> None:
        match task:
            case Append(entry, frame, on_committed):
                entry, known = entry.digested(), entry.frame_digest
                digest = bytes.fromhex(known) if known else hashlib.sha256(frame).digest()
                self.digested_bytes += len(frame)
                if self._keeper is not None:
                    self._keeper.offer(entry, frame, digest)
                # The reference would be kept in memory with every record that waits.
                bare = msgspec.structs.replace(entry, reference=b"")
                self._backlog.append((Prepared(bare, digest), on_committed))
            case Ask():
                self._asks.append(task)
            case Stop():
                self._stop = task

    def _commit(self, store: Store, reserve: Reserve) -> None:
        batch = [self._backlog[n] for n in range(min(MAX_BATCH, len(self._backlog)))]
        try:
            places = store.append([prepared for prepared, _ in batch])
        except FullError as full:
            self.counts.failures += 1
            self._full = True
            if full.disk and reserve.release():
                self._note(f"{full}; the reserve was released")
                return
            self.failing += 1
            self._back_off(str(full))
            return
        except StorageError as failed:
            self.counts.failures += 1
            self.failing += 1
            self._back_off(str(failed))
            return
        for _ in batch:
            self._backlog.popleft()
        self._retry_at, self._retry_s, self._full = 0.0, _FIRST_RETRY_S, False
        self.failing = 0
        self.settled += len(batch)
        self.committed = store.head.seq
        self.counts.committed += len(batch)
        self.counts.batches += 1
        self._deliver(partial(_tell, [tell for _, tell in batch], places))
        self._note("" if reserve.lies else _NO_RESERVE)
        if store.checkpoint_due(time.monotonic()):
            self._sign(store)

    def _sign(self, store: Store) -> None:
        try:
            made = store.sign(time.time_ns())
        except StorageError as failed:  # tried again with the next commit, or in a second
            self.counts.failures += 1
            self._note(str(failed))
            return
        if made is None:
            return
        self.checkpoint = made
        self.counts.checkpoints += 1
        if self._on_checkpoint is not None:
            self._deliver(partial(self._on_checkpoint, made))

    def _answer(self, store: Store) -> None:
        for _ in range(len(self._asks)):
            ask = self._asks.popleft()
            try:
                answer = ask.act(store)
            except StorageError as failed:
                self.counts.failures += 1
                self._note(str(failed))
                answer = ask.otherwise
            self.committed, self.receipted = store.head.seq, store.receipt.seq
            self.checkpoint = store.checkpoint
            self.answered += 1
            self._deliver(answer)

    def _keep_house(self, store: Store, reserve: Reserve) -> None:
        pruned = 0
        try:
            pruned = store.prune(time.time_ns(), full=self._full)
            store.trim()
        except StorageError as failed:
            self.counts.failures += 1
            self._note(str(failed))
        self.counts.pruned += pruned
        if pruned:
            self._retry_at = 0.0  # there is room now
        if reserve.lay():
            if self.trouble == _NO_RESERVE:
                self._note("")
        elif not self.trouble:
            self._note(_NO_RESERVE)
        if store.checkpoint_due(time.monotonic()):
            self._sign(store)
        with contextlib.suppress(StorageError):
            self.standing = Standing(store.used_bytes(), store.owed_since_ns(), reserve.lies)
        # While there is more to prune, it goes on between commits.
        self._upkeep_at = time.monotonic() + (0.0 if pruned == PRUNE_RECORDS else _UPKEEP_S)

    def _back_off(self, why: str) -> None:
        self._note(why)
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._deliver(partial(self._on_trouble, trouble))

    def _deliver(self, call: Callable[[], None]) -> None:
        # A loop that was closed raises RuntimeError: nobody is left who could be told.
        with contextlib.suppress(RuntimeError):
            self._deliver_on(call)


_NO_RESERVE: Final = (
    "the disk is nearly full: the reserve of the ledger is in use (make room; records are still "
    "committed)"
)


def _opened(open_store: Callable[[], Store], reserve: Reserve) -> Store:
    """Open the store; carrying its log over may take the reserve, where the disk is full."""
    try:
        return open_store()
    except FullError:
        if not reserve.release():
            raise
        return open_store()


def _tell(listeners: list[Callable[[int], None]], places: list[int]) -> None:
    for listener, place in zip(listeners, places, strict=True):
        listener(place)


def _raise(bug: BaseException) -> None:
    raise bug
