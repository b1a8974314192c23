"""The database file: its tables, how it is opened, and what its errors mean to an operator.

Rules:

1. One connection writes, ever. The lock file keeps a second process away with a sentence that names
   it, and `locking_mode=EXCLUSIVE` keeps every other tool away: the bug by which SQLite before
   3.51.3 could spoil a database when two connections reset its WAL cannot strike.
2. `synchronous=FULL`: a commit is on the medium before anybody hears of it.
3. A file that is foreign, damaged, gone or of another device is refused and left as it is. Damage
   is an error of its own (`DamagedError`): whoever runs a line may set such a ledger aside
   (`edge.ledger.aside`). The others are the work of people, and theirs to mend.
"""

import fcntl
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from edge.durable import storage_error
from edge.errors import DamagedError, MediumError, StorageError
from edge.ledger import migration, tree
from edge.ledger.record import GENESIS

DATABASE: Final = "ledger.db"
LOCK: Final = "ledger.lock"
APPLICATION_ID: Final = 0x45444745  # "EDGE"
SCHEMA_VERSION: Final = 2
_MIGRATED_VERSION: Final = 1
"""Brought to `SCHEMA_VERSION` when it is opened to be written (`edge.ledger.migration`)."""
WAL_PAGES: Final = 1_000
"""Pages of WAL after which a commit carries them into the database: 4 MiB."""
_WAL_BYTES: Final = 8 << 20

TABLES: Final = {
    "origin": (
        "CREATE TABLE origin("
        "ledger TEXT NOT NULL, device TEXT NOT NULL, created_at_ns INTEGER NOT NULL) STRICT"
    ),
    "record": (
        "CREATE TABLE record("
        "seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, pipeline TEXT NOT NULL, "
        "frame_id TEXT NOT NULL, frame BLOB NOT NULL, part_id TEXT NOT NULL, "
        "fingerprint INTEGER NOT NULL, body BLOB NOT NULL, head BLOB NOT NULL) STRICT"
    ),
    "record_frame": (
        "CREATE UNIQUE INDEX record_frame ON record(pipeline, frame_id, frame) WHERE frame <> x''"
    ),
    "record_part": "CREATE INDEX record_part ON record(part_id) WHERE part_id <> ''",
    "mark": (
        "CREATE TABLE mark(name TEXT PRIMARY KEY, seq INTEGER NOT NULL, head BLOB NOT NULL) STRICT"
    ),
    **tree.TABLES,
}
"""`body` holds the canonical bytes, `head` the chain's head after them; the columns before are
copies for finding. An override has no frame of its own: there `frame` is empty. `mark` has three
rows: `head`, the last record; `receipt`, up to which the cloud holds all; `anchor`, up to which
records were pruned."""

MARKS: Final = ("anchor", "receipt", "head")


UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a statement raises; the second where a damaged file's words, as an error quotes them, are no
UTF-8."""


class FullError(MediumError):
    """No space: the reaction is to prune what may go and, on a full disk, to release the reserve.

    Attributes:
        disk: The disk is full, and not only the quota.
    """

    def __init__(self, problem: str, *, disk: bool) -> None:
        self.disk = disk
        super().__init__(problem)


class Lock:
    """The right to write a folder's ledger: an flock, so that it ends with the process.

    The lock file also holds the name of the ledger that belongs here: a database that went away,
    or was exchanged, is noticed and not begun anew.

    Raises:
        StorageError: Another process has the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as failed:
            raise storage_error(f"{self._path}: cannot be opened", failed) from failed
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failed:
            os.close(self._descriptor)
            raise StorageError(
                f"{folder}: another process writes this ledger (stop it, or give this one "
                "another storage.path)"
            ) from failed

    @property
    def ledger(self) -> str:
        """Name of the ledger that belongs here; empty: none yet."""
        return os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip()

    def name(self, ledger: str) -> None:
        """Write down the ledger's name, durably."""
        os.pwrite(self._descriptor, f"{ledger}\n".encode("ascii"), 0)
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Make new and removed names of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(folder: Path, device: str, lock: Lock) -> tuple[sqlite3.Connection, str]:
    """Open the ledger of a folder, or begin one where there has been none.

    The caller's thread becomes the owner of the connection.

    Returns:
        The connection, and the ledger's name.

    Raises:
        StorageError: It is damaged, foreign, gone, or another device's.
    """
    path = folder / DATABASE
    present = path.exists() and path.stat().st_size > 0
    if lock.ledger and path.exists() and not present:
        raise DamagedError(f"{path}: the ledger {lock.ledger} is gone: the file is empty")
    if lock.ledger and not present:
        raise StorageError(
            f"{path}: the ledger {lock.ledger} is gone (restore it; only if its records may be "
            f"given up, remove {LOCK} to begin a new one)"
        )
    database = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        # First of all, and before the file is read: then the WAL's index lies in this process.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        if present:
            _refuse_foreign(database, path)
        _configure(database)
        if not _objects(database):
            _create(database, device)
        elif version(database) == _MIGRATED_VERSION:
            migration.migrate(database, TABLES)
        # What a crash left in the WAL may be in the page cache only; now it is on the medium.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sync_folder(folder)
        ledger = _identify(database, path, device, lock)
    except UNREADABLE as failed:
        database.close()
        raise translated(failed, path) from failed
    except OSError as failed:
        database.close()
        raise storage_error(f"{path}: cannot be made durable", failed) from failed
    except BaseException:
        database.close()
        raise
    return database, ledger


def check_schema(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is no ledger, or of a version that is neither known nor migrated.

    Raises:
        StorageError: With what was found.
    """
    application = database.execute("PRAGMA application_id").fetchone()[0]
    found = version(database)
    if application != APPLICATION_ID:
        raise StorageError(f"{path}: is not a ledger of this software, and is left as it is")
    if found not in (SCHEMA_VERSION, _MIGRATED_VERSION):
        raise StorageError(
            f"{path}: has schema version {found}; this software knows {SCHEMA_VERSION} only "
            "(run the software that wrote it)"
        )
    if _objects(database) != (TABLES if found == SCHEMA_VERSION else migration.TABLES_1):
        raise DamagedError(f"{path}: its tables are not those of schema version {found}")


def checked(row: tuple[Any, ...], kinds: tuple[type, ...], path: Path) -> tuple[Any, ...]:
    """Return a row whose cells are of these types.

    Tables are STRICT, but that binds only who writes by SQLite: a damaged or forged file may hold
    anything.

    Raises:
        DamagedError: They are not.
    """
    if tuple(map(type, row)) != kinds:
        raise DamagedError(f"{path}: is damaged: a row of it has other types than its columns")
    return row


def version(database: sqlite3.Connection) -> int:
    """Return the version of a database's tables."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def translated(failed: sqlite3.Error | UnicodeDecodeError, path: Path) -> StorageError:
    """Say what an error of SQLite means, and what to do."""
    code = getattr(failed, "sqlite_errorcode", 0) & 0xFF
    name = getattr(failed, "sqlite_errorname", type(failed).__name__)
    if isinstance(failed, UnicodeDecodeError) or "decode to UTF-8" in str(failed):
        code = sqlite3.SQLITE_CORRUPT  # which SQLite does not look at, and its door for Python does
    match code:
        case sqlite3.SQLITE_FULL:
            return FullError(f"{path}: the disk is full (make room)", disk=True)
        case sqlite3.SQLITE_CANTOPEN if _no_room(path.parent):  # for the log beside it
            return FullError(f"{path}: the disk is full (make room)", disk=True)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            remedy = (
                "is damaged, and is left as it is (copy the folder for `edge ledger verify` and "
                "`export`, restore a backup, or move it away to begin a new ledger)"
            )
            return DamagedError(f"{path}: {remedy}: {failed} [{name}]")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            remedy = "cannot be written (look at the mount and at the folder's owner)"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            remedy = "is held by another program (close it)"
        case sqlite3.SQLITE_IOERR:
            remedy = "cannot be read or written: the storage reports an error (look at the medium)"
            return MediumError(f"{path}: {remedy}: {failed} [{name}]")
        case _:
            remedy = "failed"
    return StorageError(f"{path}: {remedy}: {failed} [{name}]")


def _no_room(folder: Path) -> bool:
    """Whether no block or no inode is left to this user."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return not room.f_bavail or bool(room.f_files and not room.f_favail)


def _refuse_foreign(database: sqlite3.Connection, path: Path) -> None:
    # A kill between creating the file and its first commit leaves an empty database.
    if _objects(database):
        check_schema(database, path)
    elif database.execute("PRAGMA application_id").fetchone()[0] not in (0, APPLICATION_ID):
        raise StorageError(f"{path}: is not a ledger of this software, and is left as it is")


def _configure(database: sqlite3.Connection) -> None:
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"wal_autocheckpoint={WAL_PAGES}",
        f"journal_size_limit={_WAL_BYTES}",
        "trusted_schema=OFF",
        "cell_size_check=ON",
        "temp_store=MEMORY",
    ):
        database.execute(f"PRAGMA {pragma}")


def _objects(database: sqlite3.Connection) -> dict[str, str]:
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return dict(rows.fetchall())


def _create(database: sqlite3.Connection, device: str) -> None:
    database.execute("BEGIN IMMEDIATE")
    for statement in TABLES.values():
        database.execute(statement)
    database.execute(
        "INSERT INTO origin VALUES(?, ?, ?)", (secrets.token_hex(8), device, time.time_ns())
    )
    database.executemany("INSERT INTO mark VALUES(?, 0, ?)", [(name, GENESIS) for name in MARKS])
    database.execute(f"PRAGMA application_id={APPLICATION_ID}")
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    database.execute("COMMIT")


def _identify(database: sqlite3.Connection, path: Path, device: str, lock: Lock) -> str:
    ledger, owner = database.execute("SELECT ledger, device FROM origin").fetchone() or ("", "")
    if owner != device:
        raise StorageError(
            f"{path}: belongs to device {owner!r}, and this is {device!r} (give this device "
            "another storage.path, or correct device.id)"
        )
    if lock.ledger and lock.ledger != ledger:
        raise StorageError(
            f"{path}: is ledger {ledger}, but {lock.ledger} belongs here: the file was exchanged "
            f"(restore the right one; remove {LOCK} only if this one is right)"
        )
    if not lock.ledger:
        lock.name(ledger)
    return str(ledger)
