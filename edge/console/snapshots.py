"""Questions to the ledger of a daemon that runs, answered from a copy on a thread of its own.

Rules:

1. The daemon's database is never opened (`edge.ledger.reading`): a copy is, and it is renewed when
   somebody asks, the ledger has changed, and the last copy is old enough: `REST` times as long as
   copying took. So looking on costs a box a few per cent of a core, whatever the ledger's size.
2. One question at a time, and few may wait: a page that asks too much is told so.
3. A copy goes with its process: what one that was killed left behind, the next one removes.
4. What people said is kept in memory by the verdict that it is of, since a verdict does not know
   of later words: read whole once, then only what is new.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import structlog

from edge.errors import EdgeError, StorageError
from edge.ledger import reading
from edge.ledger import record as records
from edge.ledger.reading import Reading
from edge.ledger.record import Override

REST: Final = 20.0
MIN_REST_S: Final = 1.0
MAX_WAITING: Final = 32
"""Five visitors, each with the six connections of a browser."""
MAX_WORDS: Final = 100_000
"""Some 100 MB; of more, the newest."""
_COPIES: Final = "edge-console-"
_LOCK: Final = "lock"
_Found = TypeVar("_Found")

log = structlog.get_logger("edge.console")


class BusyError(EdgeError):
    """Too many questions wait already; the asker may come again."""


class View(NamedTuple):
    """What a question sees.

    Attributes:
        ledger: The copy.
        words: What people said, by the place of the verdict that it is of; oldest first.
        copied_at_ns: UTC, when the copy was begun.
    """

    ledger: Reading
    words: Mapping[int, list[Override]]
    copied_at_ns: int


class Snapshots:
    """The ledger of a state directory, for questions. `close` ends the thread.

    Args:
        folder: The state directory. It may be made later: until then there is no ledger.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger copy")
        self._waiting = 0
        self._place = contextlib.ExitStack()
        self._copies: Path | None = None
        self._copy = contextlib.ExitStack()
        self._view: View | None = None
        self._signature: tuple[int, ...] = ()
        self._renew_at = 0.0
        self._forced = threading.Event()
        self._words: dict[int, list[Override]] = {}
        self._words_kept = 0
        self._words_of = ""
        self._words_up_to = 0

    async def ask(self, question: Callable[[View], _Found]) -> _Found:
        """Return what `question` finds; it is called on the thread.

        Raises:
            BusyError: Too many wait.
            StorageError: There is no ledger, or it cannot be read.
        """
        if self._waiting >= MAX_WAITING:
            raise BusyError("too many questions at once: ask again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._answer, question
            )
        finally:
            self._waiting -= 1

    def renew(self) -> None:
        """Have the next question see all that is committed now."""
        self._forced.set()

    async def close(self) -> None:
        """End the thread and remove the copy."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
        self._thread.shutdown()

    def _leave(self) -> None:
        self._forget()
        self._place.close()

    def _answer(self, question: Callable[[View], _Found]) -> _Found:
        return question(self._current())

    def _current(self) -> View:
        path = reading.find(self._folder)
        if path is None:
            self._forget()
            raise StorageError(f"{self._folder}: no ledger is there (has the daemon started once?)")
        signature = _signature(path)
        forced = self._forced.is_set()
        due = forced or time.monotonic() >= self._renew_at
        if self._view is not None and (signature == self._signature or not due):
            return self._view
        self._forced.clear()
        begun = time.monotonic()
        copied_at_ns = time.time_ns()
        self._forget()
        if self._copies is None:
            self._copies = self._place.enter_context(_folder_of_copies())
        ledger = self._copy.enter_context(reading.opened(path, copies=self._copies))
        self._learn(ledger)
        self._view = View(ledger, self._words, copied_at_ns)
        self._signature = signature
        now = time.monotonic()
        self._renew_at = now + max(MIN_REST_S, REST * (now - begun))
        return self._view

    def _forget(self) -> None:
        self._view = None
        self._copy.close()  # an ExitStack may be filled again

    def _learn(self, ledger: Reading) -> None:
        """Read what people said since the last copy."""
        if self._words_of != ledger.origin.ledger or ledger.size() < self._words_up_to:
            self._words.clear()
            self._words_kept = 0
            self._words_of, self._words_up_to = ledger.origin.ledger, 0
        for row in ledger.overrides(self._words_up_to):
            with contextlib.suppress(StorageError):  # of a later version: it is not for us
                word = records.decode(row.body)
                if isinstance(word, Override):
                    self._remember(word)
        self._words_up_to = ledger.size()

    def _remember(self, word: Override) -> None:
        """Keep a word; the oldest of the verdict that was spoken of first gives way."""
        self._words.setdefault(word.of, []).append(word)
        self._words_kept += 1
        if self._words_kept > MAX_WORDS:
            first = next(iter(self._words))
            del self._words[first][0]
            if not self._words[first]:
                del self._words[first]
            self._words_kept -= 1


@contextlib.contextmanager
def _folder_of_copies() -> Iterator[Path]:
    """Yield a folder that is held by a lock, after removing those that nobody holds any more."""
    for left in Path(tempfile.gettempdir()).glob(f"{_COPIES}*"):
        with contextlib.suppress(OSError):
            # One without its lock's file is just being made.
            with _held(left / _LOCK, os.O_RDWR):
                shutil.rmtree(left)
            log.info("console_copies_removed", folder=str(left))
    try:
        folder = tempfile.TemporaryDirectory(prefix=_COPIES, ignore_cleanup_errors=True)
    except OSError as failed:
        raise StorageError(f"no folder for a copy: {failed} (set TMPDIR to one)") from failed
    with folder as name, _held(Path(name) / _LOCK, os.O_RDWR | os.O_CREAT):
        yield Path(name)


@contextlib.contextmanager
def _held(lock: Path, flags: int) -> Iterator[None]:
    descriptor = os.open(lock, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _signature(path: Path) -> tuple[int, ...]:
    """Change with the ledger: size and time of the database and of its WAL."""
    found: list[int] = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(OSError):
            at = file.stat()
            found += (at.st_ino, at.st_size, at.st_mtime_ns)
    return tuple(found)
