"""The thread that owns the store: commits what came, and answers. The event loop never waits.

What arrives while one batch is committed is the next batch. A batch that cannot be committed is
tried again until it is, or the process ends; its messages stay unacknowledged meanwhile, and the
broker and the devices keep them.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import msgspec

from edge.errors import StorageError
from edge.fleet.arrivals import Arrival
from edge.fleet.register import Taken
from edge.fleet.store import Store

MAX_BATCH: Final = 256
MAX_WAITING: Final = 4_096
"""Records that came and are not committed; the broker sends 64 ahead of our acknowledgements."""
MAX_ASKED: Final = 256
"""Questions not answered yet."""
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0

Deliver = Callable[[Callable[[], None]], object]
_Found = TypeVar("_Found")


class _Came(msgspec.Struct, frozen=True):
    arrival: Arrival
    on_done: Callable[[], None]


class _Ask(msgspec.Struct, frozen=True):
    act: Callable[[Store], Callable[[], None]]
    on_failed: Callable[[], None]


class _Stop(msgspec.Struct, frozen=True):
    pass


class Keeping:
    """The store at work. Its methods are for the event loop's thread.

    Args:
        store: Prepared; from `start` on, this object's thread owns it.
        deliver: Brings answers to the loop, e.g. `loop.call_soon_threadsafe`.
        on_taken: Told there of each batch that was committed.

    Attributes:
        trouble: Why nothing is committed; empty where it is.
    """

    def __init__(self, store: Store, deliver: Deliver, on_taken: Callable[[Taken], None]) -> None:
        self.trouble = ""
        self._store = store
        self._deliver_on = deliver
        self._on_taken = on_taken
        self._inbox: queue.SimpleQueue[_Came | _Ask | _Stop] = queue.SimpleQueue()
        self._backlog: deque[_Came] = deque()
        self._asks: deque[_Ask] = deque()
        self._stopping = False
        self._put = self._done = 0
        self._asked = self._answered = 0
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    @property
    def waiting(self) -> int:
        """Records that came and are not committed."""
        return self._put - self._done

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def take(self, arrival: Arrival, on_done: Callable[[], None]) -> bool:
        """Have a record committed, then `on_done` called; False where too many wait already."""
        if self.waiting >= MAX_WAITING:
            return False
        self._put += 1
        self._inbox.put(_Came(arrival, on_done))
        return True

    def ask(
        self,
        act: Callable[[Store], _Found],
        on_found: Callable[[_Found], None],
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Have something else done; where the store fails, or is asked too much, `on_failed`."""

        def answer(store: Store) -> Callable[[], None]:
            return partial(on_found, act(store))

        if self._asked - self._answered >= MAX_ASKED:
            on_failed()
            return
        self._asked += 1
        self._inbox.put(_Ask(answer, on_failed))

    def close(self) -> None:
        """Commit what waits if that works at once, and end. Blocks."""
        self._inbox.put(_Stop())
        self._thread.join()

    def _run(self) -> None:
        try:
            while not (self._stopping and (not self._backlog or self.trouble)):
                self._sort_all()
                if self._backlog and time.monotonic() >= self._retry_at:
                    self._commit()
                self._answer()
        except BaseException as bug:  # noqa: BLE001 - raised again on the loop's thread
            self.trouble = f"the store's thread ended by a bug: {bug!r}"
            self._deliver(partial(_raise, bug))
        finally:
            self._store.close()

    def _sort_all(self) -> None:
        timeout = max(0.0, self._retry_at - time.monotonic()) if self._backlog else None
        with contextlib.suppress(queue.Empty):
            self._sort(self._inbox.get(timeout=timeout))
            while True:
                self._sort(self._inbox.get_nowait())

    def _sort(self, task: _Came | _Ask | _Stop) -> None:
        match task:
            case _Came():
                self._backlog.append(task)
            case _Ask():
                self._asks.append(task)
            case _Stop():
                self._stopping = True

    def _commit(self) -> None:
        batch = [self._backlog[n] for n in range(min(MAX_BATCH, len(self._backlog)))]
        try:
            taken = self._store.take([came.arrival for came in batch])
        except StorageError as failed:
            self.trouble = str(failed)
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            return
        for _ in batch:
            self._backlog.popleft()
        self.trouble, self._retry_s, self._retry_at = "", _FIRST_RETRY_S, 0.0
        self._done += len(batch)
        self._deliver(partial(self._tell, [came.on_done for came in batch], taken))

    def _tell(self, listeners: list[Callable[[], None]], taken: Taken) -> None:
        for listener in listeners:
            listener()
        self._on_taken(taken)

    def _answer(self) -> None:
        for _ in range(len(self._asks)):
            ask = self._asks.popleft()
            try:
                answer = ask.act(self._store)
            except StorageError as failed:
                self.trouble = str(failed)
                answer = ask.on_failed
            else:
                if not self._backlog:
                    self.trouble = ""
            self._answered += 1
            self._deliver(answer)

    def _deliver(self, call: Callable[[], None]) -> None:
        # A loop that was closed raises RuntimeError: nobody is left who could be told.
        with contextlib.suppress(RuntimeError):
            self._deliver_on(call)


def _raise(bug: BaseException) -> None:
    raise bug
