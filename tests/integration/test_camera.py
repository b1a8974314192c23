"""`edge camera` for real: a folder, an MJPEG stream over HTTP, a pipe, through a real broker."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from brokers import connected, require_mosquitto, running_broker, section, until
from numpy.typing import NDArray

from edge.camera import reader as reader_module
from edge.camera.command import CameraCounts, CameraOptions, run_camera
from edge.camera.picture import Picture, Source
from edge.camera.publisher import MAX_IN_FLIGHT, MAX_WAITING
from edge.camera.sources import FolderSource, VideoSource
from edge.cli.main import main
from edge.errors import TransportError
from edge.linesim import Board, encode_jpeg, render_part
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

TOPIC = "line/top/frame"
PICTURES = [encode_jpeg(render_part(Board(1), index).image) for index in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, picture in enumerate(PICTURES):
        (tmp_path / f"part{number}.jpg").write_bytes(picture)
    return tmp_path


def test_a_folder_arrives_whole_and_in_order(any_broker: LocalBroker, folder: Path) -> None:
    counts, frames = filmed(any_broker, FolderSource(folder), expect=6, reference_id="golden")
    assert [frame.payload for frame in frames] == PICTURES
    assert counts == CameraCounts(6, published=6, dropped=0, refused=0, losses=0)
    if any_broker.kind == "mosquitto":
        assert [frame.properties["part-id"] for frame in frames] == [f"part{n}" for n in range(6)]
        assert {frame.properties["reference-id"] for frame in frames} == {"golden"}
        assert {frame.content_type for frame in frames} == {"image/jpeg"}
        assert len({frame.properties["frame-id"] for frame in frames}) == 6
        stamps = [int(frame.properties["captured-at"]) for frame in frames]
        assert stamps == sorted(stamps)
        assert all(0 <= f.arrived_at_ns - t < 20e9 for f, t in zip(frames, stamps, strict=True))


def test_a_file_whose_name_is_no_unicode_is_a_frame_like_others(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    for number in range(6):  # a share of long ago, in Latin-1; more than may be in flight
        (tmp_path / os.fsdecode(b"Pr\xfcfling%d.jpg" % number)).write_bytes(PICTURES[number])
    counts, frames = filmed(mosquitto, FolderSource(tmp_path), expect=6)
    assert counts.published == 6
    names = [frame.properties["part-id"] for frame in frames]
    assert names == [rf"Pr\xfcfling{n}" for n in range(6)]


def test_frames_that_nobody_hears_are_told(
    mosquitto: LocalBroker, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counts, _ = filmed(mosquitto, FolderSource(folder), topic="line/top/fram")
    assert counts == CameraCounts(6, published=6, dropped=0, refused=0, losses=0, unheard=6)
    said = capfd.readouterr()
    assert (said.out + said.err).count("camera-unheard") == 1  # once, until somebody hears one
    counts, _ = filmed(mosquitto, FolderSource(folder))
    assert counts.unheard == 0


def test_placeholders_carry_the_ids_where_there_are_no_properties(
    embedded_broker: LocalBroker, folder: Path
) -> None:
    topic = "line/top/frame/{reference_id}/{part_id}/{frame_id}"
    _, frames = filmed(embedded_broker, FolderSource(folder), expect=6, topic=topic)
    levels = [frame.topic.split("/")[3:] for frame in frames]
    assert [part for _, part, _ in levels] == [f"part{n}" for n in range(6)]
    assert len({frame_id for _, _, frame_id in levels}) == 6


def test_an_mjpeg_stream_becomes_frames(mosquitto: LocalBroker) -> None:
    with mjpeg_camera(pictures=1_000) as (url, _):
        _, frames = filmed(mosquitto, VideoSource(url), expect=5, frames=5)
    for frame in frames:
        assert frame.content_type == "image/jpeg"
        assert min(difference(frame.payload, picture) for picture in PICTURES) < 4


def test_a_stream_that_breaks_off_is_taken_up_again(
    mosquitto: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "FIRST_PAUSE_S", 0.01)
    with mjpeg_camera(pictures=8) as (url, connections):
        counts, frames = filmed(mosquitto, VideoSource(url), expect=20, frames=20)
    assert len(frames) == 20
    assert counts.losses >= 1
    assert len(connections) >= 2


def test_a_stream_that_never_comes_is_given_up(mosquitto: LocalBroker) -> None:
    with pytest.raises(TransportError, match=r"cannot be opened.*no picture for 0\.2 s: given up"):
        filmed(mosquitto, VideoSource("http://127.0.0.1:9/"), give_up_s=0.2)


def test_a_broker_that_lags_costs_the_oldest_frames_and_no_memory(folder: Path) -> None:
    require_mosquitto()

    async def scene() -> tuple[CameraCounts, list[int]]:
        async with LocalBroker(kind="mosquitto") as broker:
            stop = asyncio.Event()
            source = Counting(FolderSource(folder, loop=True))
            filming = asyncio.create_task(run_camera(options(broker, source, TOPIC), stop))
            await until(lambda: source.reads > 3 or filming.done(), "the camera runs")
            await broker.stop()
            # Far more than may wait: most of these must give way.
            enough = source.reads + 10 * (MAX_IN_FLIGHT + MAX_WAITING)
            await until(lambda: source.reads > enough, "the camera reads on without a broker")
            await broker.start()
            async with connected(broker, "watcher", TOPIC) as peer:
                resumed = source.reads
                await until(lambda: source.reads > resumed + 20, "the camera reads on")
                numbers = [frame_number(await peer.next()) for _ in range(10)]
            stop.set()
            return await filming, numbers

    counts, numbers = asyncio.run(scene())
    assert counts.dropped > 5 * MAX_WAITING
    assert counts.read == counts.published + counts.dropped + counts.refused
    assert numbers == sorted(set(numbers))


def test_a_stopped_camera_counts_what_it_sent(mosquitto: LocalBroker, folder: Path) -> None:
    async def scene() -> CameraCounts:
        stop = asyncio.Event()
        source = Counting(FolderSource(folder, loop=True))
        filming = asyncio.create_task(run_camera(options(mosquitto, source, TOPIC), stop))
        await until(lambda: source.reads >= 5 or filming.done(), "the camera runs")
        stop.set()
        return await filming

    counts = asyncio.run(scene())
    assert counts.published == counts.read >= 5


def test_the_command_publishes_a_folder_and_tells_what_it_did(
    mosquitto: LocalBroker, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["camera", str(folder), "--rate", "100", "--set", f"broker.port={mosquitto.port}"]

    async def scene() -> tuple[int, list[bytes]]:
        async with connected(mosquitto, "watcher", TOPIC) as peer:
            # In a process of its own: signals belong to a main thread.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edge.cli.main", *words, "--json"
            )
            payloads = [(await peer.next()).payload for _ in PICTURES]
            return await process.wait(), payloads

    status, payloads = asyncio.run(scene())
    assert (status, payloads) == (0, PICTURES)
    printed = json.loads(capfd.readouterr().out.splitlines()[-1])
    nothing = dict.fromkeys(("dropped", "refused", "losses", "unheard"), 0)
    assert printed == {"read": 6, "published": 6, **nothing}


def test_a_broker_that_takes_no_such_large_frame_is_told_and_ends_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mosquitto()
    with running_broker(kind="mosquitto", settings=["max_packet_size 10000"]) as broker:
        words = ["--set", f"broker.port={broker.port}", "--rate", "50", "--json"]
        assert main(["camera", str(folder), *words, "--loop"]) == 1  # else it would go on for ever
        said = capsys.readouterr().err
        assert "10000 bytes at most" in said
        assert "max_packet_size" in said, "the remedy"
        assert said.splitlines()[-1].startswith("edge: the broker took none of the first 3 frames")

        small = encode_jpeg(render_part(Board(1), 0).image[:64, :64])
        (tmp_path / "a-small-one-first.jpg").write_bytes(small)
        assert main(["camera", str(folder), *words]) == 0
        counts = json.loads(capsys.readouterr().out)
        assert (counts["published"], counts["refused"]) == (1, 6)


def test_what_a_bridge_writes_into_a_pipe_arrives_as_it_says(
    mosquitto: LocalBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    told = b"Frame-Id: gige-7\r\nPart-Id: B 1\r\nReference-Id: golden\r\nCaptured-At: 99\r\n"
    stream = PICTURES[0] + part_of_stream(PICTURES[1], told) + PICTURES[2]
    status, frames = piped(mosquitto, stream, expect=3)
    assert status == 0
    assert [frame.payload for frame in frames] == PICTURES[:3]
    shown = ("frame-id", "part-id", "reference-id", "captured-at")
    assert [frames[1].properties[name] for name in shown] == ["gige-7", "B 1", "golden", "99"]
    assert [frame_number(frame) for frame in (frames[0], frames[2])] == [0, 2]
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["published"] == 3


def test_a_bridge_that_dies_in_a_picture_fails_the_command_after_the_whole_ones(
    mosquitto: LocalBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    status, frames = piped(mosquitto, PICTURES[0] + PICTURES[1][:99], expect=1)
    assert (status, [frame.payload for frame in frames]) == (1, PICTURES[:1])
    assert "edge: standard input ended in the midst of a picture" in capfd.readouterr().err


def test_a_pipe_that_waits_is_left_when_the_command_is_told_to_stop(mosquitto: LocalBroker) -> None:
    status, frames = piped(mosquitto, PICTURES[0], expect=1, end=False)
    assert (status, len(frames)) == (0, 1)


def test_a_folder_that_is_not_there_ends_the_command_with_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["camera", "/nonexistent/folder"]) == 78
    assert "/nonexistent/folder: there is no such folder" in capsys.readouterr().err


def piped(
    broker: LocalBroker, stream: bytes, *, expect: int, end: bool = True
) -> tuple[int, list[Incoming]]:
    """Write a stream to the command, close its pipe or stop it; return its status, and frames."""
    words = ["camera", "-", "--set", f"broker.port={broker.port}", "--json"]

    async def scene() -> tuple[int, list[Incoming]]:
        async with connected(broker, "watcher", TOPIC) as peer:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edge.cli.main", *words, stdin=asyncio.subprocess.PIPE
            )
            assert process.stdin is not None
            process.stdin.write(stream)
            if end:
                process.stdin.close()
            frames = [await peer.next() for _ in range(expect)]
            if not end:
                process.terminate()
            return await process.wait(), frames

    return asyncio.run(scene())


class Counting:
    """A source that tells how often it was read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.title, self.is_live = source.title, source.is_live
        self.can_reopen, self.interrupt = source.can_reopen, source.interrupt
        self.open, self.skip, self.close = source.open, source.skip, source.close
        self.reads = 0

    def read(self) -> Picture | None:
        self.reads += 1
        return self._source.read()


def filmed(
    broker: LocalBroker,
    source: Source,
    *,
    expect: int = 0,
    topic: str = TOPIC,
    frames: int = 0,
    reference_id: str = "",
    give_up_s: float = 20.0,
) -> tuple[CameraCounts, list[Incoming]]:
    """Run a camera beside a peer; return its counts and the first `expect` frames."""

    async def scene() -> tuple[CameraCounts, list[Incoming]]:
        async with connected(broker, "watcher", f"{TOPIC}/#") as peer:
            counts = await run_camera(
                options(
                    broker,
                    source,
                    topic,
                    frames=frames,
                    reference_id=reference_id,
                    give_up_s=give_up_s,
                )
            )
            return counts, [await peer.next() for _ in range(expect)]

    return asyncio.run(scene())


def options(
    broker: LocalBroker,
    source: Source,
    topic: str,
    *,
    frames: int = 0,
    reference_id: str = "",
    give_up_s: float = 20.0,
) -> CameraOptions:
    return CameraOptions(
        source,
        section(broker),
        topic,
        rate_hz=200.0,
        frames=frames,
        reference_id=reference_id,
        give_up_s=give_up_s,
    )


@contextmanager
def mjpeg_camera(pictures: int) -> Iterator[tuple[str, list[int]]]:
    """An HTTP camera that breaks off after so many pictures; yields its URL and connections."""
    connections: list[int] = []
    pause = threading.Event()

    class Stream(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connections.append(1)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for number in range(pictures):
                    self.wfile.write(part_of_stream(PICTURES[number % len(PICTURES)]))
                    if pause.wait(0.01):
                        return
            except OSError:
                return  # the reader has gone

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", connections
    finally:
        pause.set()
        server.shutdown()
        serving.join()
        server.server_close()


def part_of_stream(picture: bytes, more: bytes = b"") -> bytes:
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n"
    return head.encode() + more + b"\r\n" + picture + b"\r\n"


def difference(one: bytes, other: bytes) -> float:
    """Mean difference of two pictures in greys."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def pixels(encoded: bytes) -> NDArray[np.int16]:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image.astype(np.int16)


def frame_number(message: Incoming) -> int:
    return int(message.properties["frame-id"].rpartition("-")[2])
