"""Questions to an open ledger: which verdict was a frame given, and which does a person mean?

Used on the thread that owns the connection; errors of SQLite are translated there.
"""

import sqlite3

import msgspec

from edge.contracts import verdict as verdicts
from edge.ledger import record as records
from edge.ledger.entry import Correction


class Given(msgspec.Struct, frozen=True):
    """A verdict that a frame was given before.

    Attributes:
        verdict: JSON, as in `edge.contracts.verdict`.
        frame_digest: SHA-256 of the frame's bytes, hex.
        fingerprint: As the daemon made it.
    """

    frame_id: str
    reason: str
    verdict: bytes
    frame_digest: str
    fingerprint: int


def recent(database: sqlite3.Connection, pipeline: str, limit: int, last: int) -> list[Given]:
    """Return a pipeline's last `limit` verdicts, oldest first.

    They are looked for among the last 8 * `limit` records of all pipelines, which end at `last`.
    """
    # The + keeps SQLite from the index, by which it would have to sort all that there is.
    rows = database.execute(
        "SELECT body, fingerprint FROM record WHERE +pipeline=? AND seq > ? "
        "AND frame <> x'' ORDER BY seq DESC LIMIT ?",
        (pipeline, last - 8 * limit, limit),
    ).fetchall()
    return [_given(body, fingerprint) for body, fingerprint in reversed(rows)]


def of_frame(database: sqlite3.Connection, pipeline: str, frame_id: str) -> Given | None:
    """Return the last verdict that a frame id was given, or None."""
    row = database.execute(
        "SELECT body, fingerprint FROM record WHERE pipeline=? AND frame_id=? "
        "AND frame <> x'' ORDER BY seq DESC LIMIT 1",
        (pipeline, frame_id),
    ).fetchone()
    return _given(*row) if row else None


def meant(database: sqlite3.Connection, correction: Correction, last: int) -> tuple[str, bytes]:
    """Return why a correction is refused, or ""; and the record of the verdict that it means.

    Args:
        database: An open ledger.
        correction: Names the verdict.
        last: Place of the last record.
    """
    if correction.seq:
        row = database.execute(
            "SELECT body, frame FROM record WHERE seq=?",
            # A person may name any number, and SQLite has none beyond 64 bits.
            (min(correction.seq, last + 1),),
        ).fetchone()
        if row is None:
            return f"record {correction.seq} is not there, or was pruned", b""
        if not row[1]:
            return f"record {correction.seq} is an override itself: name the verdict", b""
        return "", row[0]
    rows = database.execute(
        "SELECT pipeline, max(seq) FROM record WHERE part_id=? AND part_id <> '' "
        "AND frame <> x'' AND ? IN ('', pipeline) GROUP BY pipeline",
        (correction.part_id, correction.pipeline),
    ).fetchall()
    if not rows:
        return f"no verdict of part {correction.part_id!r} is kept here", b""
    if len(rows) > 1:
        names = ", ".join(sorted(name for name, _ in rows))
        return f"part {correction.part_id!r} was judged by {names}: name the pipeline", b""
    found = database.execute("SELECT body FROM record WHERE seq=?", (rows[0][1],))
    return "", found.fetchone()[0]


def _given(body: bytes, fingerprint: int) -> Given:
    record = records.decode_verdict(body)
    return Given(
        frame_id=record.frame_id,
        reason=record.reason,
        verdict=verdicts.to_json(records.verdict_of(record)),
        frame_digest=record.digests.frame,
        fingerprint=fingerprint,
    )
