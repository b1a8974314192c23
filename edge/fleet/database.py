"""One database, SQLite or PostgreSQL, as far as the store needs it: the room's door to both.

Rules:

1. Statements are written once, with `?` for values, in what both understand.
2. `transaction` returns when the commit is on the medium, and not before. SQLite runs with a
   rollback journal and `synchronous=EXTRA`: several processes may use the file, which a WAL does
   not allow safely before SQLite 3.51.3.
3. A connection that failed is thrown away, and the next transaction opens another.
4. Every wait has a limit. Every failure is a `StorageError`, and nothing of its transaction stays.

Used by one thread.
"""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from edge.config import File
from edge.errors import ConfigError, StorageError

WAIT_S: Final = 10
"""For a connection, for another process's lock, and, in PostgreSQL, for one statement."""
_POSTGRES_OPTIONS: Final = (
    f"-c statement_timeout={WAIT_S}s -c lock_timeout={WAIT_S}s "
    "-c idle_in_transaction_session_timeout=60s -c synchronous_commit=on"
)

Row = tuple[Any, ...]


class _Connection(Protocol):
    """What both drivers' connections have in common."""

    def close(self) -> None: ...

    def cursor(self) -> Any: ...


class Database:
    """A database by its URL. Nothing is opened before the first transaction.

    Args:
        url: As in the config's `store.url`.
        password_file: Of PostgreSQL.
        create: Make SQLite's file where there is none; else that is a failure.

    Attributes:
        where: The URL, for messages.
        postgres: Whether it is PostgreSQL.
    """

    def __init__(self, url: str, password_file: File | None = None, *, create: bool = True) -> None:
        self.where = url
        self._create = create
        self.postgres = url.startswith("postgresql:")
        self._password_file = password_file
        self._connection: _Connection | None = None
        self._cursor: Any = None
        if self.postgres:
            _psycopg()  # that it is missing is said now

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what is inside as one; on return it is on the medium.

        Raises:
            StorageError: Nothing of it was done, or (a connection lost in the commit) nobody knows.
        """
        try:
            if self._connection is None:
                self._open()
            self._cursor.execute("BEGIN" if self.postgres else "BEGIN IMMEDIATE")
            yield
            self._cursor.execute("COMMIT")
        except BaseException as failed:
            # Closing rolls back, whatever state it is in.
            self.close()
            if isinstance(failed, self._errors()):
                raise StorageError(f"{self.where}: {_sentence(failed)}") from failed
            if isinstance(failed, OSError):
                raise StorageError(f"{self.where}: {failed.strerror or failed}") from failed
            raise

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement; return how many rows it touched."""
        self._cursor.execute(self._spoken(statement), tuple(values))
        return int(self._cursor.rowcount)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run a query."""
        self._cursor.execute(self._spoken(statement), tuple(values))
        return [tuple(row) for row in self._cursor.fetchall()]

    def many(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row of values."""
        self._cursor.executemany(self._spoken(statement), rows)

    def _spoken(self, statement: str) -> str:
        # No statement of ours has a literal ? or %.
        return statement.replace("?", "%s") if self.postgres else statement

    def _errors(self) -> tuple[type[BaseException], ...]:
        # The second where the words of a damaged file, as SQLite's error quotes them, are no UTF-8.
        return (_psycopg().Error,) if self.postgres else (sqlite3.Error, UnicodeDecodeError)

    def _open(self) -> None:
        connection = self._connect_postgres() if self.postgres else self._connect_sqlite()
        self._connection, self._cursor = connection, connection.cursor()
        if not self.postgres:
            for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "trusted_schema=OFF"):
                self._cursor.execute(f"PRAGMA {pragma}")

    def _connect_sqlite(self) -> _Connection:
        path = Path(unquote(urlsplit(self.where).path))
        if not self._create and not path.exists():
            raise FileNotFoundError(errno.ENOENT, "there is no such file; a collector makes it")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        return sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)

    def _connect_postgres(self) -> _Connection:
        password = {}
        if self._password_file is not None:  # read each time: it may have been renewed
            lines = self._password_file.read_text(errors="replace").splitlines()
            password = {"password": lines[0] if lines else ""}
        connection: _Connection = _psycopg().connect(
            self.where,
            autocommit=True,
            connect_timeout=WAIT_S,
            options=_POSTGRES_OPTIONS,
            application_name="edge-collect",
            **password,
        )
        return connection


def _psycopg() -> Any:
    try:
        import psycopg  # noqa: PLC0415 - an extra, which who uses SQLite does without
    except ImportError as missing:
        raise ConfigError(
            "store.url",
            "PostgreSQL needs the package psycopg",
            "pip install 'edge-verdict[postgres]'",
        ) from missing
    return psycopg


def _sentence(failed: BaseException) -> str:
    return " ".join(str(failed).split()) or type(failed).__name__
