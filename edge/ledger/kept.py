"""Kept frames: the bytes behind some of the records, so that a verdict can be computed again.

Rules:

1. A ring on disk, bounded by bytes and age, the oldest first to go. Every file is named by the
   SHA-256 of its content and is written once; one that is named again counts as new. So a
   reference goes after the last frame that was compared with it.
2. Records come first. Nobody waits for this thread: what it has no room for is dropped and counted,
   and when the disk has less than `min_free_bytes`, kept frames go until it has.
3. No fsync: it would hold up that of the ledger. A power cut may cost the frames of the last half
   minute (the kernel's writeback), never a record. What it left half-written does not have the
   content that its name says, and is not there for a reader.
"""

import hashlib
import math
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from edge.contracts.verdict import Kind
from edge.ledger.entry import Entry

FOLDER: Final = "frames"
"""Of the kept frames, in the ledger's folder."""
MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 32 << 20
"""What may wait to be written, beside the ledger's own bounds."""
_BLOCK_BYTES: Final = 4_096
_UPKEEP_S: Final = 5.0
"""Between looks at age and free space."""
_UNFINISHED: Final = "unfinished"
_NAME_CHARS: Final = 64
_TAIL: Final = 1 << 64


class Keeping(msgspec.Struct, frozen=True):
    """Which frames are kept, and how much of them.

    Attributes:
        pass_share: Of the frames that passed, 0..1; all that were rejected or reviewed are kept.
        max_bytes: In all, whole blocks.
        max_age_s: Older ones go.
        min_free_bytes: What the disk must have free beside them.
    """

    pass_share: float = 0.01
    max_bytes: int = 1 << 30
    max_age_s: float = 30 * 86_400
    min_free_bytes: int = 256 << 20

    def wants(self, verdict: Kind, frame_digest: bytes) -> bool:
        """Whether a frame is to be kept: chosen by its digest, so the choice can be repeated."""
        if verdict is not Kind.PASS:
            return True
        return int.from_bytes(frame_digest[:8]) < math.floor(self.pass_share * _TAIL)


class KeptCounts(msgspec.Struct, frozen=True):
    """What happened since the start, and what lies there.

    Attributes:
        kept: Frames that are there with all that belongs to them.
        dropped: Frames that were to be kept and were not.
        evicted: Files that had to go, by age, quota or for want of room.
        files: There now, frames and what belongs to them.
        bytes: Of these files, in whole blocks.
    """

    kept: int = 0
    dropped: int = 0
    evicted: int = 0
    files: int = 0
    bytes: int = 0


class _Wish(msgspec.Struct, frozen=True):
    """A frame to be kept: its digest and bytes, and what belongs to it."""

    pieces: tuple[tuple[str, bytes], ...]
    size: int


class Keeper:
    """Keeps frames, on a thread of its own, until `close`.

    Args:
        folder: Where; made if absent, and of no one else.
        keeping: What.
        on_trouble: Told on that thread when frames begin to be dropped, with the sentence, and
            when they are kept again, with "".

    Attributes:
        trouble: Why frames are not kept; empty where they are.
    """

    def __init__(
        self, folder: Path, keeping: Keeping, on_trouble: Callable[[str], None] = lambda _: None
    ) -> None:
        self.trouble = ""
        self._folder = folder
        self._keeping = keeping
        self._on_trouble = on_trouble
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        # Each is written by one thread only.
        self._offered = self._offered_bytes = self._refused = 0
        self._done = self._done_bytes = self._failed = 0
        self._kept = self._evicted = self._bytes = 0
        self._there: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="kept frames", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> KeptCounts:
        """What happened since the start; any thread may ask."""
        return KeptCounts(
            kept=self._kept,
            dropped=self._refused + self._failed,
            evicted=self._evicted,
            files=len(self._there),
            bytes=self._bytes,
        )

    def offer(self, entry: Entry, frame: bytes, frame_digest: bytes) -> None:
        """Keep a frame if it is wanted and there is room. One thread calls this; never waits."""
        if not frame or not self._keeping.wants(entry.verdict.verdict, frame_digest):
            return
        pieces = [(frame_digest.hex(), frame)]
        if entry.reference:
            pieces.append((entry.reference_digest, entry.reference))
        if entry.pinned.document:
            pieces.append((entry.pinned.parameters, entry.pinned.document))
        if entry.policy is not None and entry.policy.blob:
            blob = entry.policy.blob
            pieces.append((hashlib.sha256(blob).hexdigest(), blob))
        wish = _Wish(tuple(pieces), len(frame))
        waiting = self._offered - self._done
        if waiting >= MAX_WAITING or (
            waiting and self._offered_bytes - self._done_bytes + wish.size > MAX_WAITING_BYTES
        ):
            self._refused += 1
            return
        self._offered += 1
        self._offered_bytes += wish.size
        self._wishes.put(wish)

    def close(self) -> None:
        """Write what waits, and end; repetitions change nothing."""
        self._wishes.put(None)
        self._thread.join()

    def _run(self) -> None:
        self._begin()
        upkeep_at = 0.0
        while True:
            if time.monotonic() >= upkeep_at:
                self._keep_house()
                upkeep_at = time.monotonic() + _UPKEEP_S
            try:
                wish = self._wishes.get(timeout=max(0.0, upkeep_at - time.monotonic()))
            except queue.Empty:
                continue
            if wish is None:
                return
            self._keep(wish)
            self._done += 1
            self._done_bytes += wish.size

    def _begin(self) -> None:
        """Find what lies there from earlier runs, oldest first."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            (self._folder / _UNFINISHED).unlink(missing_ok=True)
            found = sorted(_files(self._folder), key=lambda each: each[2])
        except OSError as failed:
            self._note(f"{self._folder}: cannot be used: {failed.strerror}")
            return
        for name, size, written_s in found:
            self._count_in(name, _blocks(size), written_s)

    def _keep(self, wish: _Wish) -> None:
        try:
            # By name: a frame may be its own reference, and is one file.
            pieces = dict(wish.pieces)
            absent = [name for name in pieces if not self._renewed(name)]
            if self._make_room(sum(_blocks(len(pieces[name])) for name in absent)):
                # The frame comes last: where it lies, all that belongs to it does.
                for name in reversed(absent):
                    self._write(name, pieces[name])
                self._kept += 1
                self._note("")
                return
            self._note(
                f"{self._folder}: the disk has less than {self._keeping.min_free_bytes} bytes "
                "free, or the quota is smaller than one frame: frames are not kept (make room; "
                "records and verdicts go on)"
            )
        except OSError as failed:
            self._note(f"{self._folder}: frames cannot be kept: {failed.strerror}")
        self._failed += 1

    def _renewed(self, name: str) -> bool:
        """Count a file as new that lies there; say whether it does."""
        if name not in self._there:
            return False
        now_s = time.time()
        try:
            os.utime(place(self._folder, name), (now_s, now_s))
        except FileNotFoundError:  # somebody removed it by hand
            self._count_out(name)
            return False
        self._there[name] = (self._there[name][0], now_s)
        self._there.move_to_end(name)
        return True

    def _write(self, name: str, content: bytes) -> None:
        path = place(self._folder, name)
        path.parent.mkdir(mode=0o750, exist_ok=True)
        unfinished = self._folder / _UNFINISHED
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        self._count_in(name, _blocks(len(content)), time.time())

    def _keep_house(self) -> None:
        try:
            oldest_s = time.time() - self._keeping.max_age_s
            while self._there and next(iter(self._there.values()))[1] < oldest_s:
                self._evict()
            self._make_room(0)
        except OSError as failed:
            self._note(f"{self._folder}: cannot be looked after: {failed.strerror}")

    def _make_room(self, size: int) -> bool:
        """Let the oldest go until so much more may be written; say whether it may."""
        while self._there and (
            self._bytes + size > self._keeping.max_bytes or not self._is_free(size)
        ):
            self._evict()
        return self._bytes + size <= self._keeping.max_bytes and self._is_free(size)

    def _is_free(self, size: int) -> bool:
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize >= self._keeping.min_free_bytes + size

    def _evict(self) -> None:
        name = next(iter(self._there))
        place(self._folder, name).unlink(missing_ok=True)
        self._count_out(name)
        self._evicted += 1

    def _count_in(self, name: str, size: int, written_s: float) -> None:
        self._there[name] = (size, written_s)
        self._bytes += size

    def _count_out(self, name: str) -> None:
        size, _ = self._there.pop(name)
        self._bytes -= size

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._on_trouble(trouble)


def place(folder: Path, digest: str) -> Path:
    """Return where a kept file lies: `ab/abcd…`."""
    return folder / digest[:2] / digest


def read(folder: Path, digest: str) -> bytes | None:
    """Return what was kept under a digest; None where it is not there, or is not what it says."""
    if len(digest) != _NAME_CHARS or not digest.isalnum():
        return None
    try:
        content = place(folder, digest).read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _files(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yield name, bytes and time of writing (UTC seconds) of every kept file."""
    with os.scandir(folder) as shelves:
        for shelf in shelves:
            if len(shelf.name) != len("ab") or not shelf.is_dir(follow_symlinks=False):
                continue
            with os.scandir(shelf) as kept:
                for file in kept:
                    if len(file.name) == _NAME_CHARS:
                        found = file.stat(follow_symlinks=False)
                        yield file.name, found.st_size, found.st_mtime


def _blocks(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
