"""Entries of the journal, heard by a socket that stands where journald's would."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.observability.journal import Journal, fields_of


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind(str(tmp_path / "journal"))
        hearing.settimeout(60)
        yield hearing


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(str(tmp_path / "journal"))) as opened:
        yield opened


def test_an_entry_has_message_priority_and_fields(
    journald: socket.socket, journal: Journal
) -> None:
    fields = fields_of({"event": "ready", "room": "edge.daemon", "pipeline": "", "start_ms": 3})
    assert journal.write('{"event":"ready"}', 6, fields)
    assert journald.recv(4096).decode().splitlines() == [
        'MESSAGE={"event":"ready"}',
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=edge",
        "EDGE_EVENT=ready",
        "EDGE_ROOM=edge.daemon",
    ]


def test_a_value_of_several_lines_cannot_forge_a_field(
    journald: socket.socket, journal: Journal
) -> None:
    forged = "harmless\nPRIORITY=0"
    assert journal.write("m", 4, {"EDGE_FRAME": forged})
    packed = b"EDGE_FRAME\n" + struct.pack("<Q", len(forged)) + forged.encode() + b"\n"
    assert journald.recv(4096).endswith(packed)


def test_text_that_is_no_unicode_is_sent_all_the_same(
    journald: socket.socket, journal: Journal
) -> None:
    assert journal.write("camera \udce4", 4, {})
    assert b"MESSAGE=camera \\udce4\n" in journald.recv(4096)


def test_no_journald_is_said_and_not_raised(journal: Journal) -> None:
    assert not journal.write("m", 6, {})
