"""Sources: what they are told from, and how they fail."""

import socket
import time
from pathlib import Path

import pytest

from edge.camera.sources import FolderSource, VideoSource, source_of
from edge.errors import ConfigError, TransportError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"bytes of " + name.encode())
    return tmp_path


def test_a_folder_is_read_by_name_with_its_bytes_untouched(folder: Path) -> None:
    source = FolderSource(folder, now_ns=iter(range(10)).__next__)
    pictures = [source.read() for _ in range(4)]
    assert pictures[3] is None
    assert [
        (p.part_id, p.image, p.content_type, p.captured_at_ns) for p in pictures if p is not None
    ] == [
        ("a", b"bytes of a.png", "image/png", 0),
        ("b", b"bytes of b.JPG", "image/jpeg", 1),
        ("c", b"bytes of c.jpeg", "image/jpeg", 2),
    ]


def test_a_looped_folder_begins_again(folder: Path) -> None:
    source = FolderSource(folder, loop=True)
    names = [picture.part_id for _ in range(7) if (picture := source.read())]
    assert names == ["a", "b", "c", "a", "b", "c", "a"]


def test_a_file_that_vanished_is_named_and_the_next_is_read(folder: Path) -> None:
    source = FolderSource(folder)
    (folder / "a.png").unlink()
    with pytest.raises(TransportError, match=r"a\.png: cannot be read: No such file"):
        source.read()
    following = source.read()
    assert following is not None
    assert following.part_id == "b"


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("/nonexistent/folder", "there is no such folder"),
        ("/dev/video917", r"there is no device /dev/video917 \(found: "),
        ("917", r"there is no device /dev/video917 \(found: "),
        ("ftp://user:secret@host/x", r"ftp://user:\*\*\*@host/x: is of no known kind"),
    ],
)
def test_a_source_that_is_not_there_is_named(where: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        source_of(where)
    assert "secret" not in str(raised.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no picture"):
        source_of(str(tmp_path))


@pytest.mark.parametrize("url", ["rtsp://10.0.0.1/live", "http://10.0.0.1/mjpeg"])
def test_a_stream_is_told_from_its_url_and_not_opened_yet(url: str) -> None:
    source = source_of(url)
    assert isinstance(source, VideoSource)
    assert (source.title, source.is_live) == (url, True)


def test_a_password_does_not_stand_in_a_title() -> None:
    assert source_of("rtsp://me:s3cret@cam/live").title == "rtsp://me:***@cam/live"


def test_a_source_with_its_password_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("rtsp://me:s3cret@cam/live\n")
    assert source_of(f"@{tmp_path / 'url'}").title == "rtsp://me:***@cam/live"
    with pytest.raises(ConfigError, match="cannot be read from it"):
        source_of(f"@{tmp_path / 'none'}")
    for text in ("", "\n", "rtsp://a/\nrtsp://b/"):
        (tmp_path / "url").write_text(text)
        with pytest.raises(ConfigError, match="expected one line"):
            source_of(f"@{tmp_path / 'url'}")


def test_a_stream_that_refuses_is_a_transport_error() -> None:
    with pytest.raises(TransportError, match=r"http://127\.0\.0\.1:9/: cannot be opened"):
        VideoSource("http://127.0.0.1:9/").open()


def test_a_stream_that_stays_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        before = time.monotonic()
        with pytest.raises(TransportError, match="cannot be opened"):
            VideoSource(url, open_s=0.3, read_s=0.3).open()
        # Its own limit, not the one of the network, which is minutes.
        assert time.monotonic() - before < 60


def test_a_source_that_was_never_opened_cannot_be_read() -> None:
    source = VideoSource("http://127.0.0.1:9/")
    with pytest.raises(TransportError, match="no picture comes"):
        source.read()
    source.close()
