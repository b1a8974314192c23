"""Pictures through a pipe: where each ends, what its head says, and what is no picture."""

import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.camera.picture import Picture
from edge.camera.piped import MAX_HEAD_BYTES, PictureSplitter, PipedSource
from edge.camera.sources import source_of
from edge.errors import ConfigError, TransportError
from edge.linesim import Board, encode_jpeg, render_part

MAX_BYTES = 1 << 20
NOW_NS = 1_000
JPEGS = [encode_jpeg(render_part(Board(1), index).image) for index in range(2)]
PNG = cv2.imencode(".png", np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()
COLOUR = np.random.default_rng(1).integers(0, 255, (64, 48, 3), np.uint8)
PROGRESSIVE = cv2.imencode(
    ".jpg", COLOUR, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
)[1].tobytes()
# A preview within a segment, as cameras put it there, with an end of image of its own.
EXIF = b"Exif\0\0" + PROGRESSIVE
WITH_PREVIEW = JPEGS[0][:2] + b"\xff\xe1" + (len(EXIF) + 2).to_bytes(2) + EXIF + JPEGS[0][2:]
PLAIN = [JPEGS[0], PNG, PROGRESSIVE, WITH_PREVIEW, JPEGS[1]]


def part(body: bytes, *headers: str, length: int | None = None, end: str = "\r\n") -> bytes:
    size = len(body) if length is None else length
    lines = ("--frame", *headers, f"Content-Length: {size}", "", "")
    return end.join(lines).encode() + body + b"\r\n"


def split(data: bytes, size: int = 0) -> list[Picture]:
    """Feed it in pieces of a size; all that was fed must come out."""
    splitter = PictureSplitter(MAX_BYTES)
    pictures = []
    for at in range(0, len(data), size or len(data)):
        splitter.feed(data[at : at + (size or len(data))])
        while (picture := splitter.next_picture(NOW_NS)) is not None:
            pictures.append(picture)
    assert splitter.is_empty
    return pictures


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 1_000, 4_096])
def test_pictures_come_out_whole_however_the_bytes_come(size: int) -> None:
    pictures = split(b"".join(PLAIN), size)
    assert [picture.image for picture in pictures] == PLAIN
    assert [picture.content_type for picture in pictures] == [
        "image/jpeg", "image/png", "image/jpeg", "image/jpeg", "image/jpeg",
    ]  # fmt: skip
    assert {picture.captured_at_ns for picture in pictures} == {NOW_NS}


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_parts_head_says_what_the_pipe_would_lose(size: int, end: str) -> None:
    first = part(
        PNG, "Content-Type: image/png", "captured-at: 77", "Frame-Id: a-1", "PART-ID: B 7",
        "Reference-Id:  golden ", "X-Other: is ignored", end=end,
    )  # fmt: skip
    raw = "image/x-raw;format=GRAY8;width=2;height=2"
    second = part(b"--\xff\xd8", f"Content-Type: {raw}", end=end)
    assert split(first + second + JPEGS[0] + b"--frame--\r\n", size) == [
        Picture(PNG, "image/png", 77, "B 7", "a-1", "golden"),
        Picture(b"--\xff\xd8", raw, NOW_NS),
        Picture(JPEGS[0], "image/jpeg", NOW_NS),
    ]


def test_zeros_and_line_ends_between_pictures_are_no_pictures() -> None:
    data = b"\r\n\0" + JPEGS[0] + b"\0" * 5_000 + PNG + b"\0\n"
    assert [picture.image for picture in split(data)] == [JPEGS[0], PNG]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GIF89a", r"byte 0: expected a JPEG, a PNG or a part \(--\); found b'GIF89a'"),
        (JPEGS[0] + b"x", f"byte {len(JPEGS[0])}: .*found b'x'"),
        (b"\xff\xd8\x00\x10JFIF", "damaged at its byte 2"),
        (part(b"", "no header"), "found 'no header' where a header should be"),
        (b"--x\r\nContent-Type: image/png\r\n\r\n", "without Content-Length"),
        (part(b"", length=-1), "without Content-Length"),
        (part(b"", length=MAX_BYTES + 1), f"of more than {MAX_BYTES} bytes"),
        (part(b"", "Captured-At: yesterday"), "UTC in nanoseconds, found 'yesterday'"),
        (part(b"", "Frame-Id: a/b"), "Frame-Id is 1 to 128 characters"),
        (part(b"", "Part-Id:"), "Part-Id is 1 to 128 characters"),
        (part(b"", "Reference-Id: " + "x" * 129), "Reference-Id is 1 to 128 characters"),
        (b"--" + b"x" * MAX_HEAD_BYTES, f"a head of more than {MAX_HEAD_BYTES} bytes"),
        (JPEGS[0][:-2] + b"\x00" * MAX_BYTES, f"of more than {MAX_BYTES} bytes"),
        (PNG[:8] + b"\xff" * 8, f"of more than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_picture_is_named_with_its_place(data: bytes, problem: str) -> None:
    with pytest.raises(TransportError, match=problem):
        split(data)


@given(st.binary(max_size=200), st.sampled_from([b"", *PLAIN, b"--f\r\n", part(b"x")[:-3]]))
def test_noise_is_waited_on_or_refused_and_nothing_else(noise: bytes, before: bytes) -> None:
    splitter = PictureSplitter(MAX_BYTES)
    splitter.feed(before + noise)
    try:
        while splitter.next_picture(NOW_NS) is not None:
            pass
    except TransportError:
        pass


class Pipe:
    """A pipe with a source at its end whose clock counts readings."""

    def __init__(self) -> None:
        read, self.write = os.pipe()
        self.stream = os.fdopen(read, "rb")
        self.source = PipedSource(self.stream, MAX_BYTES, now_ns=count(1).__next__)

    def close(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()
    made.stream.close()


def test_a_picture_is_stamped_when_its_first_byte_came(pipe: Pipe) -> None:
    stamps = []
    for written in (JPEGS[0] + PNG[:5], PNG[5:], PNG):
        os.write(pipe.write, written)
        picture = pipe.source.read()
        assert picture is not None
        stamps.append(picture.captured_at_ns)
    # The clock was read when the source was made, and then at each reading of the pipe.
    assert stamps == [2, 2, 4]


def test_the_end_of_a_pipe_is_the_end_and_half_a_picture_is_a_loss(pipe: Pipe) -> None:
    os.write(pipe.write, PNG + PNG[:20])
    pipe.close()
    first = pipe.source.read()
    assert first is not None
    assert first.image == PNG
    with pytest.raises(TransportError, match="ended in the midst of a picture"):
        pipe.source.read()


@pytest.mark.parametrize("closing", [b"", b"\r\n", b"--frame--", b"--frame--\r\n", b"--frame\r\n"])
def test_a_whole_pipe_ends_with_none(pipe: Pipe, closing: bytes) -> None:
    os.write(pipe.write, part(PNG) + closing)
    pipe.close()
    assert pipe.source.skip()
    assert pipe.source.read() is None


def test_a_read_that_waits_ends_when_it_is_interrupted(pipe: Pipe) -> None:
    taken: list[Picture | None] = []
    reading = threading.Thread(target=lambda: taken.append(pipe.source.read()))
    reading.start()
    pipe.source.interrupt()
    reading.join(60)
    assert taken == [None]


def test_a_pipe_that_falls_silent_is_given_up_where_that_was_asked_for(pipe: Pipe) -> None:
    os.write(pipe.write, PNG)
    source = PipedSource(pipe.stream, MAX_BYTES, silence_s=0.01)
    assert source.skip()
    with pytest.raises(TransportError, match=r"standard input: nothing came for 0\.01 s"):
        source.read()


def test_a_terminal_is_not_waited_on(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary = os.openpty()
    with os.fdopen(primary), Path(os.ttyname(secondary)).open("rb+", buffering=0) as terminal:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": terminal}))
        with pytest.raises(ConfigError, match=r"is a terminal \(BRIDGE \| edge camera -\)"):
            source_of("-")
    os.close(secondary)
