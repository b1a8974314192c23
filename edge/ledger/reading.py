"""Reading a ledger that is not ours to write: a copy, or the folder of a daemon that runs.

Rules:

1. Nothing in the folder is changed, made or locked.
2. A second connection never touches a database with a WAL (`edge.ledger.schema`, rule 1): where
   there is one, database and WAL are copied aside, and the copy is read. So is a database of an
   earlier version, to be migrated there.
3. The copy is whole though the daemon goes on: the database is copied before the WAL, and what was
   carried over meanwhile is still in the WAL, unless that was begun anew. That shows in its header,
   and the copy is made again.
"""

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edge.errors import StorageError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import migration, schema, tree
from edge.ledger.signing import Kept
from edge.ledger.verify import Origin, Place, Row

FOLDER: Final = "ledger"
"""Of the ledger, in a state directory."""
_ATTEMPTS: Final = 5
_WAL_HEADER_BYTES: Final = 32  # with the salts: sqlite.org/fileformat2.html, section 4.1
_FRAME_OF_ANY_PIPELINE: Final = (
    # The index begins with the pipeline, of which there are few: step from each to the next.
    "pipeline IN (WITH RECURSIVE each(name) AS ("
    "SELECT min(pipeline) FROM record WHERE frame <> x'' UNION ALL "
    "SELECT (SELECT min(pipeline) FROM record WHERE pipeline > name AND frame <> x'') "
    "FROM each WHERE name IS NOT NULL) SELECT name FROM each) "
    "AND frame_id=? AND frame <> x''"
)
_COLUMNS: Final = "seq, at_ns, pipeline, frame_id, frame, part_id, body, head"
_ROW: Final = (int, int, str, str, bytes, str, bytes, bytes)
_ORIGIN: Final = (str, str, int)
_MARK: Final = (str, int, bytes)
_KEPT: Final = (int, bytes)


class Reading:
    """An open ledger, for reading; valid inside of `opened`."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        with self._errors():
            schema.check_schema(database, path)
            origin = database.execute("SELECT ledger, device, created_at_ns FROM origin").fetchone()
            marks = database.execute("SELECT name, seq, head FROM mark").fetchall()
        if origin is None or {name for name, _, _ in marks} != set(schema.MARKS):
            raise StorageError(f"{path}: does not say which ledger it is, or where it ends")
        self.origin = Origin(*self._checked(origin, _ORIGIN))
        self.marks = {
            name: Place(seq, head)
            for name, seq, head in (self._checked(mark, _MARK) for mark in marks)
        }

    def rows(self) -> Iterator[Row]:
        """Yield all records, by place.

        Raises:
            StorageError: The file is damaged.
        """
        return self._select("ORDER BY seq", ())

    def of_part(self, part_id: str) -> Iterator[Row]:
        """Yield the records of a part."""
        # The second condition is the index's own: without it SQLite would read every record.
        return self._select("WHERE part_id=? AND part_id <> '' ORDER BY seq", (part_id,))

    def of_frame(self, frame_id: str) -> Iterator[Row]:
        """Yield the records of a frame id, of any pipeline; all of the ledger are read for it.

        An index would find what people said of a frame without a part. It would cost each commit,
        and each ledger a version that no earlier software opens, to save a tenth of what it takes
        to copy the ledger aside.
        """
        return self._select("WHERE frame_id=? ORDER BY seq", (frame_id,))

    def newest_of_part(self, part_id: str, before: int, limit: int) -> Iterator[Row]:
        """Yield at most `limit` records of a part whose place is below `before`, newest first.

        A camera may name each of its parts alike: then all that there is are records of one.
        """
        clause = "WHERE part_id=? AND part_id <> '' AND seq < ? ORDER BY seq DESC LIMIT ?"
        return self._select(clause, (part_id, before, limit))

    def newest_of_frame(self, frame_id: str, before: int, limit: int) -> Iterator[Row]:
        """Yield likewise the verdicts of a frame id, of any pipeline, by the index."""
        clause = f"WHERE {_FRAME_OF_ANY_PIPELINE} AND seq < ? ORDER BY seq DESC LIMIT ?"
        return self._select(clause, (frame_id, before, limit))

    def last(self, count: int) -> Iterator[Row]:
        """Yield the last records, oldest first."""
        return self._select("WHERE seq > (SELECT max(seq) FROM record) - ? ORDER BY seq", (count,))

    def decided_between(self, first_ns: int, last_ns: int) -> Iterator[Row]:
        """Yield the records decided from one instant to another, UTC, by place."""
        return self._select("WHERE at_ns BETWEEN ? AND ? ORDER BY seq", (first_ns, last_ns))

    def newest(self, before: int, limit: int) -> Iterator[Row]:
        """Yield at most `limit` records whose place is below `before`, newest first."""
        return self._select("WHERE seq < ? ORDER BY seq DESC LIMIT ?", (before, limit))

    def overrides(self, after: int = 0) -> Iterator[Row]:
        """Yield what people said of verdicts behind a place, by place."""
        return self._select("WHERE frame = x'' AND seq > ? ORDER BY seq", (after,))

    def record(self, seq: int) -> Row | None:
        """Return the record at a place, or None."""
        return next(self._select("WHERE seq=?", (seq,)), None)

    def places(self, first: int, last: int) -> Iterator[Row]:
        """Yield the records from a place to a place."""
        return self._select("WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last))

    def size(self) -> int:
        """Return how many records were committed, the pruned among them."""
        return self.marks["head"].seq

    def tile(self, level: int, n: int) -> bytes:
        """Return the hashes of a tile of the tree, full or not; empty where there are none.

        Raises:
            StorageError: The file is damaged.
        """
        with self._errors():
            return tree.read_tile(self._database, level, n)

    def leaf_tiles(self) -> tuple[int, int]:
        """Return the first full tile of leaf hashes, and the number after the last one; or 0, 0."""
        with self._errors():
            first, last = self._database.execute(
                "SELECT min(n), max(n) FROM tile WHERE level=0"
            ).fetchone()
        if first is None:
            return 0, 0
        self._checked((first, last), (int, int))
        return first, last + 1

    def edge(self) -> list[tuple[int, int, bytes]]:
        """Return the hashes of the tiles that are not full: level, number among its level, hash."""
        with self._errors():
            rows = self._database.execute("SELECT level, n, hash FROM edge ORDER BY level, n")
            found = [self._checked(row, (int, int, bytes)) for row in rows]
        return [(level, n, one) for level, n, one in found]

    def checkpoint(self, size: int = 0) -> Kept | None:
        """Return the checkpoint of so many records, or the last one; None where there is none."""
        with self._errors():
            row = self._database.execute(
                "SELECT size, note FROM checkpoint WHERE ? IN (0, size) ORDER BY size DESC LIMIT 1",
                (size,),
            ).fetchone()
        return Kept(*self._checked(row, _KEPT)) if row else None

    def covering(self, seq: int, limit: int) -> list[Kept]:
        """Return the last checkpoints that cover a record, newest first."""
        with self._errors():
            rows = self._database.execute(
                "SELECT size, note FROM checkpoint WHERE size >= ? ORDER BY size DESC LIMIT ?",
                (seq, limit),
            )
            return [Kept(*self._checked(row, _KEPT)) for row in rows]

    def checkpoints(self) -> Iterator[Kept]:
        """Yield the checkpoints, by size."""
        with self._errors():
            for row in self._database.execute("SELECT size, note FROM checkpoint ORDER BY size"):
                yield Kept(*self._checked(row, _KEPT))

    @property
    def log_origin(self) -> str:
        """Origin of the ledger's checkpoints."""
        return checkpoints.origin(self.origin.device, self.origin.ledger)

    def signers(self) -> list[tuple[str, int]]:
        """Return the keys that signed, as the ledger says: vkey, and the size it began after."""
        with self._errors():
            rows = self._database.execute("SELECT vkey, since FROM signer ORDER BY since, vkey")
            found = [self._checked(row, (str, int)) for row in rows]
        return [(vkey, since) for vkey, since in found]

    def _select(self, clause: str, values: tuple[object, ...]) -> Iterator[Row]:
        with self._errors():
            # The clauses are those above; values are bound.
            for row in self._database.execute(f"SELECT {_COLUMNS} FROM record {clause}", values):  # noqa: S608
                yield Row(*self._checked(row, _ROW))

    def _checked(self, row: tuple[Any, ...], kinds: tuple[type, ...]) -> tuple[Any, ...]:
        return schema.checked(row, kinds, self._path)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except schema.UNREADABLE as failed:
            raise schema.translated(failed, self._path) from failed


def find(folder: Path) -> Path | None:
    """Return the database in a state directory, in the ledger's folder, or in a copy of either.

    Raises:
        StorageError: This user may not look there, or not read it.
    """
    for candidate in (folder / schema.DATABASE, folder / FOLDER / schema.DATABASE):
        try:
            there = candidate.is_file()
        except PermissionError:
            raise _denied(candidate) from None
        # Asked, not opened: to close a database's file ends the locks that this process has on it.
        if there and not os.access(candidate, os.R_OK, effective_ids=True):
            raise _denied(candidate)
        if there:
            return candidate
    return None


def _denied(path: Path) -> StorageError:
    return StorageError(f"{path}: Permission denied (look as the daemon's user or as root)")


@contextlib.contextmanager
def opened(path: Path, *, copies: Path | None = None) -> Iterator[Reading]:
    """Open a ledger's database for reading.

    Args:
        path: The database.
        copies: A folder for copies: it is copied there in any case, without looking for a writer.
            For whoever opens it again and again: the look is a lock that a starting daemon could
            meet.

    Raises:
        StorageError: It is damaged, is no ledger, or there is no room to copy it aside.
    """
    with contextlib.ExitStack() as stack:
        address = _unchanged(path)
        if copies is not None or _is_written(path) or _size(_wal(path)) or _is_old(path):
            aside = Path(stack.enter_context(_folder_aside(copies)))
            address = f"{_copied(path, aside).as_uri()}?mode=rw"
        try:
            database = sqlite3.connect(address, uri=True, isolation_level=None)
            stack.callback(database.close)
            if address != _unchanged(path):
                schema.check_schema(database, path)
                if schema.version(database) < schema.SCHEMA_VERSION:
                    migration.migrate(database, schema.TABLES)
        except schema.UNREADABLE as failed:
            raise schema.translated(failed, path) from failed
        for pragma in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON"):
            database.execute(f"PRAGMA {pragma}")
        yield Reading(database, path)


def _unchanged(path: Path) -> str:
    return f"{path.resolve().as_uri()}?mode=ro&immutable=1"


def _is_old(path: Path) -> bool:
    """Whether it is of an earlier version, which is brought up to this one in a copy."""
    try:
        with contextlib.closing(sqlite3.connect(_unchanged(path), uri=True)) as database:
            return schema.version(database) < schema.SCHEMA_VERSION
    except schema.UNREADABLE:
        return False  # what is wrong is said where it is opened


def _is_written(path: Path) -> bool:
    """Whether a process holds the folder's lock (`schema.Lock`)."""
    try:
        descriptor = os.open(path.with_name(schema.LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _copied(path: Path, aside: Path) -> Path:
    copy = aside / schema.DATABASE
    try:
        for _ in range(_ATTEMPTS):
            before = _wal_header(path)
            shutil.copyfile(path, copy)
            if _size(_wal(path)):
                shutil.copyfile(_wal(path), _wal(copy))
            if _wal_header(path) == before:
                return copy
            _wal(copy).unlink(missing_ok=True)
    except OSError as failed:
        raise StorageError(
            f"{path}: cannot be copied to {aside}: {failed.strerror} (set TMPDIR to another folder)"
        ) from failed
    raise StorageError(f"{path}: is written faster than it can be copied (verify a copy)")


def _folder_aside(within: Path | None) -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="edge-ledger-", dir=within)
    except OSError as failed:
        raise StorageError(f"no folder for a copy: {failed} (set TMPDIR to one)") from failed


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _wal_header(path: Path) -> bytes:
    try:
        with _wal(path).open("rb") as wal:
            return wal.read(_WAL_HEADER_BYTES)
    except FileNotFoundError:
        return b""
