"""The collector's tables, in what SQLite and PostgreSQL both understand."""

from typing import Final

from edge.errors import StorageError
from edge.fleet.database import Database

VERSION: Final = 1

_TABLES: Final = (
    # One row: `version`.
    "CREATE TABLE IF NOT EXISTS fleet_schema(version INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS device("
    "device TEXT PRIMARY KEY, state TEXT NOT NULL, seen_ns BIGINT NOT NULL)",
    # anchor: where the chain that is held begins; above 0 only where somebody accepted a gap.
    # seq, head: up to where it is held and verified. highest, ahead: the last record stored, and
    # how many lie above seq. kept_bytes: of all records. tree_size, tree_roots: of the Merkle tree,
    # up to the last checkpoint that was compared (`edge.ledger.merkle.Range`).
    "CREATE TABLE IF NOT EXISTS ledger("
    "id {identity}, device TEXT NOT NULL, ledger TEXT NOT NULL, first_seen_ns BIGINT NOT NULL, "
    "anchor_seq BIGINT NOT NULL, anchor_head {bytes} NOT NULL, "
    "seq BIGINT NOT NULL, head {bytes} NOT NULL, highest BIGINT NOT NULL, ahead BIGINT NOT NULL, "
    "kept_bytes BIGINT NOT NULL, conflicts BIGINT NOT NULL, tree_size BIGINT NOT NULL, "
    "tree_roots {bytes} NOT NULL, UNIQUE(device, ledger))",
    "CREATE TABLE IF NOT EXISTS record("
    "ledger_id BIGINT NOT NULL, seq BIGINT NOT NULL, prev {bytes} NOT NULL, leaf {bytes} NOT NULL, "
    "received_ns BIGINT NOT NULL, body {bytes} NOT NULL, PRIMARY KEY(ledger_id, seq))",
    # Another record for a place that has one: evidence of a fork.
    "CREATE TABLE IF NOT EXISTS conflict("
    "ledger_id BIGINT NOT NULL, seq BIGINT NOT NULL, leaf {bytes} NOT NULL, prev {bytes} NOT NULL, "
    "received_ns BIGINT NOT NULL, body {bytes} NOT NULL, PRIMARY KEY(ledger_id, seq, leaf))",
    "CREATE TABLE IF NOT EXISTS checkpoint("
    "ledger_id BIGINT NOT NULL, size BIGINT NOT NULL, note {bytes} NOT NULL, "
    "received_ns BIGINT NOT NULL, PRIMARY KEY(ledger_id, size))",
    "CREATE TABLE IF NOT EXISTS alarm("
    "device TEXT NOT NULL, ledger TEXT NOT NULL, kind TEXT NOT NULL, seq BIGINT NOT NULL, "
    "detail TEXT NOT NULL, count BIGINT NOT NULL, raised_at_ns BIGINT NOT NULL, "
    "PRIMARY KEY(device, ledger, kind))",
)
_SQLITE: Final = {"bytes": "BLOB", "identity": "INTEGER PRIMARY KEY"}
_POSTGRES: Final = {
    "bytes": "BYTEA",
    "identity": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}
_LOCK: Final = 0x45444745
"""Of PostgreSQL's advisory locks: two collectors that start at once must not both make tables."""


def prepare(database: Database) -> None:
    """Make the tables where there are none. To be called inside of a transaction.

    Raises:
        StorageError: They are of another version.
    """
    if database.postgres:
        database.rows("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
    words = _POSTGRES if database.postgres else _SQLITE
    for table in _TABLES:
        database.run(table.format_map(words))
    versions = database.rows("SELECT version FROM fleet_schema")
    if not versions:
        database.run("INSERT INTO fleet_schema VALUES(?)", (VERSION,))
    elif versions != [(VERSION,)]:
        raise StorageError(
            f"{database.where}: has schema version {versions[0][0]}; this software knows {VERSION} "
            "only (run the software that wrote it)"
        )
