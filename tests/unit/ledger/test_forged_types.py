"""A file that holds other types than its tables say, or words that would steer a terminal.

STRICT binds who writes by SQLite. Whoever forges a file, or a bad sector, is not bound.
"""

import contextlib
import csv
import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from ledgers import entry, frame

from edge.cli.main import main
from edge.contracts.verdict import Kind
from edge.errors import DamagedError, StorageError
from edge.ledger import entry as entries
from edge.ledger import note, schema
from edge.ledger import record as records
from edge.ledger.entry import Correction
from edge.ledger.signing import Keys
from edge.ledger.store import Prepared, Retention, Store

RECORDS = 300
SEEN_BY_ALL = [
    ("mark", "seq", None),
    ("mark", "head", 7),
    ("origin", "device", b"box1"),
    ("tile", "hashes", 1 << 40),  # bytes(...) of it would be a terabyte
    ("tile", "n", "x"),
    ("edge", "hash", None),
    ("edge", "level", 1 << 40),
    ("checkpoint", "note", "a note"),
    ("checkpoint", "note", None),
    ("signer", "vkey", None),
    ("record", "frame", None),
    ("record", "body", "{}"),
    ("record", "head", 1.5),
]
COMMANDS = (
    ("verify",),
    ("show", "--last", "300"),
    ("show", "--last", "300", "--json"),
    ("export", "--format", "csv"),
    ("prove", "--seq", "300"),
    ("checkpoint",),
    ("checkpoint", "--all"),
    ("key", "show"),
)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signed ledger of 300 records and a word; what is proved lies beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "state" / "ledger"
    store = Store(folder, "box1", Retention(), Keys((note.new_key(),)))
    numbers = range(1, RECORDS + 1)
    digests = (bytes.fromhex(entries.digest(frame(number))) for number in numbers)
    store.append([Prepared(entry(n), digest) for n, digest in zip(numbers, digests, strict=True)])
    store.override(Correction(Kind.PASS, by="lead", reason="a hair", seq=3), 1)
    store.sign(1)
    store.close()
    return folder / schema.DATABASE


def _forge(database: Path, table: str, column: str, value: object) -> None:
    """Write a value into the last row of a table, as no STRICT table takes it."""
    last = f"{_KEY[table]}=(SELECT max({_KEY[table]}) FROM {table})"
    with (
        contextlib.closing(sqlite3.connect(database, isolation_level=None)) as opened,
        _lax(opened, table),
    ):
        opened.execute(f"UPDATE {table} SET {column}=? WHERE {last}", (value,))


_KEY = {
    "mark": "name",
    "origin": "rowid",
    "tile": "rowid",
    "edge": "n",
    "checkpoint": "rowid",
    "signer": "rowid",
    "record": "seq",
}


@contextlib.contextmanager
def _lax(opened: sqlite3.Connection, table: str) -> Iterator[None]:
    """Have SQLite forget a table's types for a while."""
    [(strict,)] = opened.execute("SELECT sql FROM sqlite_schema WHERE name=?", (table,)).fetchall()
    lax = strict.replace(" STRICT", "").replace(", WITHOUT", " WITHOUT").replace(" NOT NULL", "")
    for kind in (" INTEGER,", " TEXT,", " BLOB,", " BLOB)"):
        lax = lax.replace(kind, kind[-1])
    _say(opened, table, lax)
    yield
    _say(opened, table, strict)


def _say(opened: sqlite3.Connection, table: str, statement: str) -> None:
    [(version,)] = opened.execute("PRAGMA schema_version").fetchall()
    opened.execute("PRAGMA writable_schema=ON")
    opened.execute("UPDATE sqlite_schema SET sql=? WHERE name=?", (statement, table))
    opened.execute(f"PRAGMA schema_version={version + 1}")
    opened.execute("PRAGMA writable_schema=RESET")


@pytest.mark.parametrize(("table", "column", "value"), SEEN_BY_ALL)
def test_no_command_breaks_on_a_file_of_other_types_and_verify_finds_it(
    ledger: Path, table: str, column: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    state = str(ledger.parent.parent)
    assert main(["ledger", "verify", state]) == 0  # control
    _forge(ledger, table, column, value)
    for command in COMMANDS:
        status = main(["ledger", *command, state])
        assert status in (0, 1), command
        if command == ("verify",):
            assert status == 1, capsys.readouterr().out


@pytest.mark.parametrize(("table", "column", "value"), SEEN_BY_ALL[:2])
def test_a_daemon_sets_such_a_ledger_aside_instead_of_ending_by_a_bug(
    ledger: Path, table: str, column: str, value: object
) -> None:
    _forge(ledger, table, column, value)
    with pytest.raises(DamagedError, match="other types than its columns"):
        Store(ledger.parent, "box1", Retention())


@pytest.mark.parametrize(
    ("sound", "damaged"),
    [
        (b"CREATE TABLE record(", b"CREATE T\xc0BLE record("),  # as an error quotes it
        (b"tablerecordrecord", b"tabler\xc0cordrecord"),
        (b"box1", b"bo\xff1"),  # the device
        (b"receipt", b"rec\xffipt"),  # the name of a mark
    ],
)
def test_bytes_that_are_no_text_are_damage_to_every_reader(
    ledger: Path, sound: bytes, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    content = ledger.read_bytes()
    assert sound in content
    ledger.write_bytes(content.replace(sound, damaged))
    for command in COMMANDS:
        assert main(["ledger", *command, str(ledger.parent.parent)]) in (0, 1), command
        assert command != ("verify",) or "unreadable" in capsys.readouterr().out
    with pytest.raises(DamagedError):
        Store(ledger.parent, "box1", Retention())


ESCAPE = "\x1b[2J\nrecord 1 is sound"
WORDS = (
    ('"pipeline":"pcb"', "pipeline"),
    ('"frame_id":"frame-300"', "frame_id"),
    ('"device":"box1"', "device"),
    ('"verdict":"pass"', "verdict"),
    ('"name":"boards"', "name"),
)


@pytest.mark.parametrize(("before", "key"), WORDS)
def test_no_word_of_a_forged_record_steers_the_terminal(
    ledger: Path, before: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as opened:
        [(body,)] = opened.execute("SELECT body FROM record WHERE seq=300").fetchall()
        forged = body.replace(before.encode(), f'"{key}":"\\u001b[2J\\nrecord 1 is sound"'.encode())
        assert forged != body
        opened.execute("UPDATE record SET body=? WHERE seq=300", (forged,))
        opened.execute("UPDATE signer SET vkey=?", (ESCAPE,))
        opened.execute("UPDATE checkpoint SET note=?", (ESCAPE.encode(),))
    for command in (*COMMANDS, ("show", "--frame", "frame-300")):
        if command[0] == "export":
            continue  # a table is for a file, as it is
        main(["ledger", *command, str(ledger.parent.parent)])
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err, command
        assert "\nrecord 1 is sound" not in printed.out + printed.err, command


@pytest.mark.parametrize("member", ["prev", "frame", "reference"])
@pytest.mark.parametrize("forged", ["zz", "../../../etc", "é" * 64, "A" * 64])
def test_a_record_whose_digests_are_none_is_no_record(member: str, forged: str) -> None:
    true = records.encode(entry(1), "9" * 64, "0" * 16, 1, bytes(32))
    assert records.decode(true)  # control
    body = re.sub(rf'"{member}":"[0-9a-f]*"'.encode(), f'"{member}":"{forged}"'.encode(), true)
    assert body != true
    with pytest.raises(StorageError, match="not a record of version 1"):
        records.decode(body)


def test_a_table_for_people_holds_no_formulas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "ledger", "box1", Retention())
    evil, replace = entry(1), msgspec.structs.replace
    named = {"part_id": '=HYPERLINK("http://x","y")', "frame_id": "@SUM(A1)"}
    evil = replace(evil, verdict=replace(evil.verdict, **named))
    store.append([Prepared(evil, bytes(32))])
    store.override(Correction(Kind.PASS, by="+lead", reason="-1+1", seq=1), 1)
    store.close()
    assert main(["ledger", "export", "--format", "csv", str(tmp_path)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["part_id"] for row in rows] == ['\'=HYPERLINK("http://x","y")'] * 2
    assert (rows[0]["frame_id"], rows[1]["by"], rows[1]["reason"]) == (
        "'@SUM(A1)",
        "'+lead",
        "'-1+1",
    )
    assert not any(cell[:1] in ("=", "+", "-", "@") for row in rows for cell in row.values())


def test_an_export_of_a_record_a_line_shows_no_record_that_is_none(
    ledger: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    command = ["ledger", "export", "--format", "jsonl", str(ledger.parent.parent)]
    assert main(command) == 0
    assert capfdbinary.readouterr().out.count(b"\n") == RECORDS + 1  # control
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as opened:
        opened.execute(
            "UPDATE record SET body=? WHERE seq=2", (b'{"x":\n{"type":"verdict","seq":2}\n}',)
        )
    assert main(command) == 1
    shown = capfdbinary.readouterr()
    assert shown.out.count(b"\n") == 1
    assert b"record 2: more than one line" in shown.err
