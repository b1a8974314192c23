"""Bytes of a repository from servers that are slow, lie, redirect, hang up, or never end."""

import collections
import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import loop_disk
from repositories import (
    Answer,
    Exchange,
    Site,
    cut_after,
    drip,
    endless,
    page,
    serving,
    soundly,
    status,
    whole,
)

from edge.deployment.transport import Pace, Transport
from edge.errors import AbsentError, ConfigError, TransportError

CONTENT = bytes(range(256)) * 1_000
HASTY = Pace(connect_s=1.0, silence_s=0.3, least_bytes_per_s=100_000, window_s=0.3)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with one file."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "file").write_bytes(CONTENT)
    with serving(tmp_path / "web") as running:
        yield running


def _read(site: Site, offset: int = 0, pace: Pace = HASTY) -> tuple[int, bytes]:
    with Transport(site.address, pace=pace).open("file", offset) as stream:
        return stream.offset, b"".join(stream.chunks)


@pytest.mark.parametrize("offset", [0, 1, 65_536, len(CONTENT) - 1])
def test_a_file_is_read_from_any_byte_on(site: Site, offset: int) -> None:
    assert _read(site, offset) == (offset, CONTENT[offset:])
    assert site.asked == [("/file", f"bytes={offset}-" if offset else "")]
    transport = Transport(str(site.folder))
    with transport.open("file", offset) as stream:
        assert (stream.offset, b"".join(stream.chunks)) == (offset, CONTENT[offset:])
    assert transport.received_bytes == len(CONTENT) - offset


def test_a_server_that_ignores_the_range_is_read_from_its_beginning(site: Site) -> None:
    site.rules["file"] = whole
    assert _read(site, 1_000) == (0, CONTENT)


def test_a_file_that_became_shorter_gives_nothing_and_begins_anew(site: Site) -> None:
    assert _read(site, len(CONTENT) + 5) == (0, b"")


@pytest.mark.parametrize("said", ["bytes 0-9/10", "bytes 11-20/30", "", "bytes */9"])
def test_a_partial_answer_from_another_byte_is_refused(site: Site, said: str) -> None:
    site.rules["file"] = lambda exchange: exchange.head(206, 0, Content_Range=said)
    with pytest.raises(TransportError, match="asked from byte 10, answered"):
        _read(site, 10)


@pytest.mark.parametrize("number", [404, 403])
def test_what_is_not_there_is_told_apart(site: Site, number: int) -> None:
    site.rules["file"] = status(number)
    with pytest.raises(AbsentError, match=f"is not there .status {number}"):
        _read(site)
    with pytest.raises(AbsentError, match="is not there"):
        Transport(str(site.folder)).read("nothing", 10)


@pytest.mark.parametrize("number", [206, 401, 429, 500, 502, 204])
def test_any_other_status_is_an_error_that_names_it(site: Site, number: int) -> None:
    site.rules["file"] = status(number)
    with pytest.raises(TransportError, match=f"file: status {number}"):
        _read(site)


@pytest.mark.parametrize("number", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_names_where_it_leads(site: Site, number: int) -> None:
    site.rules["file"] = status(number, Location="http://169.254.169.254/latest")
    with pytest.raises(TransportError, match=r"to 'http://169\.254\.169\.254/latest'"):
        _read(site)
    assert len(site.asked) == 1


def _chunked(content: bytes) -> Answer:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, None, Transfer_Encoding="chunked")
        exchange.wfile.write(content)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        cut_after(100),
        cut_after(0),
        cut_after(70_000, reset=True),
        cut_after(0, reset=True),
        _chunked(b"5\r\nhel"),
        _chunked(b"not hex\r\n"),
    ],
    ids=["cut", "empty", "reset", "reset at once", "chunk cut", "chunk of nonsense"],
)
def test_an_answer_that_ends_early_is_an_error(site: Site, answer: Answer) -> None:
    site.rules["file"] = answer
    with pytest.raises(TransportError, match=r"ended early|no answer"):
        _read(site)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x00" * 100,
        b"HTTP/1.1 nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nxx",
    ],
)
def test_an_answer_that_is_no_http_is_an_error_and_no_crash(site: Site, head: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.wfile.write(head)
        exchange.close_connection = True

    site.rules["file"] = answer
    # Where only the length is none, what came is for digests to judge.
    with contextlib.suppress(TransportError):
        assert _read(site) == (0, b"xx")


def test_a_server_that_hangs_is_given_up(site: Site) -> None:
    site.rules["file"] = Exchange.idle
    began = time.monotonic()
    with pytest.raises(TransportError, match=r"no answer.*timed out"):
        _read(site)
    assert time.monotonic() - began < 60


def test_a_server_that_falls_silent_is_given_up(site: Site) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, len(CONTENT))
        exchange.send(CONTENT[:1_000])
        exchange.idle()

    site.rules["file"] = answer
    with pytest.raises(TransportError, match=r"ended early.*timed out"):
        _read(site)


def test_a_server_that_drips_is_given_up(site: Site) -> None:
    site.rules["file"] = drip(0.05, 10)
    with pytest.raises(TransportError, match=r"comes at \d+ bytes a second; given up below 100000"):
        _read(site)
    assert site.sent_bytes < 10_000


def test_a_server_without_end_is_cut_off_at_the_most_that_is_wanted(site: Site) -> None:
    site.rules["file"] = endless
    with pytest.raises(TransportError, match="is larger than 100000 bytes"):
        Transport(site.address).read("file", 100_000)


def test_the_deadline_ends_a_request_and_all_that_follow(site: Site) -> None:
    transport = Transport(site.address, deadline_s=time.monotonic() + 2.0)
    site.rules["file"] = endless
    with (
        transport.open("file") as stream,
        pytest.raises(TransportError, match="time for the whole update is over"),
    ):
        collections.deque(stream.chunks, maxlen=0)
    asked = len(site.asked)
    with pytest.raises(TransportError, match="time for the whole update is over"):
        transport.read("file", 10)
    assert len(site.asked) == asked


def test_nobody_who_listens_is_an_error_in_words(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        address = site.address
    with pytest.raises(TransportError, match="refused") as refused:
        Transport(address).read("file", 10)
    assert "object at 0x" not in str(refused.value)


def test_a_server_whose_certificate_nobody_vouches_for_is_refused(site: Site) -> None:
    address = site.address.replace("http", "https")
    with pytest.raises(TransportError, match="no answer"):
        Transport(address, ssl.create_default_context(), HASTY).read("file", 10)


def test_a_large_answer_that_nobody_wants_more_of_is_left(site: Site) -> None:
    site.rules["file"] = endless
    transport = Transport(site.address)
    with transport.open("file") as stream:
        next(stream.chunks)
    site.rules["file"] = page(b"next")
    assert transport.read("file", 10) == b"next"


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/x", "http://", "https:///path", "http://host:port/", "http://[bad",
        "file://host/folder", "http://user:secret@host/", "http://host/?token=secret",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_its_secret(address: str) -> None:
    with pytest.raises(ConfigError, match=r"updates\.repository") as refused:
        Transport(address)
    assert "secret" not in str(refused.value)


def test_a_folder_a_file_address_and_one_with_a_space_are_alike(tmp_path: Path) -> None:
    folder = tmp_path / "a stick"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "x").write_bytes(CONTENT)
    for base in (str(folder), f"{folder}/", f"file://{folder}", f"file://{tmp_path}/a%20stick"):
        assert Transport(base).read("sub/x", len(CONTENT)) == CONTENT


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_stick_that_holds_no_file_there_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(TransportError, match="is no regular file"):
        Transport(str(tmp_path)).read("file", 10)


def test_a_stick_that_is_pulled_out_ends_the_read_in_words(tmp_path: Path) -> None:
    with loop_disk(tmp_path, 32) as disk:
        (disk.mount / "file").write_bytes(CONTENT * 40)
        with Transport(str(disk.mount)).open("file") as stream:
            next(stream.chunks)
            disk.power_off()
            with pytest.raises(TransportError, match="file: ended early: Input/output error"):
                b"".join(stream.chunks)
        with pytest.raises(TransportError, match="Input/output error"):
            Transport(str(disk.mount)).read("file", 10)


def test_the_server_here_is_sound(site: Site) -> None:
    """The control: without a rule nothing is wrong."""
    site.rules["file"] = soundly
    assert _read(site) == (0, CONTENT)
