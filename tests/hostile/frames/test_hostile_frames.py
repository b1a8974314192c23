"""Bad frames beside good ones: each bad one has its verdict, each good one its own.

The corpus is what cameras, tools and attackers send: nothing, zeros, bombs, lies and rubbish.
"""

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import until
from daemons import (
    Daemon,
    Line,
    line_to,
    part_jpeg,
    reference_jpeg,
)

from edge.linesim import Board
from edge.mqtt.brokers import LocalBroker

MIB = 1 << 20


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A grey PNG with the given header and compressed pixels; all checksums hold."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, content)
        for name, content in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def jpeg_of(width: int, height: int) -> bytes:
    """A sound JPEG whose header claims another size."""
    jpeg = bytearray(part_jpeg(3, 0))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


JPEG = "image/jpeg"
PNG = "image/png"
BOMB = zlib.compress(bytes(64 * MIB), 9)
CORPUS = {
    "nothing": (b"", JPEG),
    "zeros": (bytes(8 * MIB), JPEG),
    "more than is taken": (bytes(8 * MIB + 1), JPEG),
    "text": (b"GET / HTTP/1.1\r\n\r\n", JPEG),
    "half a frame": (part_jpeg(3, 0)[:20_000], JPEG),
    "magic alone": (b"\xff\xd8\xff", JPEG),
    "a JPEG that claims to be huge": (jpeg_of(65_500, 65_500), JPEG),
    "a JPEG that claims to be nothing": (jpeg_of(0, 0), JPEG),
    "a JPEG called PNG": (part_jpeg(3, 0), PNG),
    "a PNG bomb by its header": (png(60_000, 60_000, BOMB), PNG),
    "a PNG whose pixels end half-way": (png(640, 640, zlib.compress(bytes(641 * 320))), PNG),
    "a PNG of nothing": (png(640, 640, b""), PNG),
    "a PNG that lies about its chunks": (b"\x89PNG\r\n\x1a\n" + b"\xff" * 64, PNG),
    "raw without its size": (bytes(640 * 640), "image/x-raw;format=GRAY8"),
    "raw of another size": (bytes(1_000), "image/x-raw;format=GRAY8;width=640;height=640"),
    "raw of 4 billion pixels": (b"x", "image/x-raw;format=GRAY8;width=65535;height=65535"),
    "raw of a huge number": (b"x", f"image/x-raw;format=GRAY8;width={'9' * 5_000};height=1"),
    "raw of no format": (b"x", "image/x-raw;format=NV12;width=1;height=1"),
    "a type of rubbish": (part_jpeg(3, 0), "\u202e<script>; =;;;" * 50),
    "a type of 60 KB": (part_jpeg(3, 0), "x" * 60_000),
}
PROPERTIES: tuple[dict[str, Any], ...] = (
    {"frame_id": "x" * 60_000},
    {"part_id": "p" * 60_000},
    {"reference": "r" * 60_000},
    {"captured_at": "9" * 60_000},
    {"unknown_property": "u" * 60_000},
    {"frame_id": "\u202eé"},  # Mosquitto keeps control characters away itself
    {"reference": "../../etc/passwd"},
)


@pytest.fixture(scope="module")
def daemon(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    overrides = ("status.interval_s=0.5",)
    with Daemon(broker, tmp_path_factory.mktemp("box"), overrides=overrides) as started:
        yield started.ready()


@pytest.fixture
def patient(broker: LocalBroker, tmp_path: Path) -> Iterator[Daemon]:
    """A box of the test's own."""
    overrides = ("status.interval_s=0.5", "device.id=patient")
    with Daemon(broker, tmp_path, overrides=overrides) as started:
        yield started.ready()


def test_each_bad_frame_gets_its_verdict_and_each_good_one_its_own(
    broker: LocalBroker, patient: Daemon
) -> None:
    async def scenario(line: Line) -> None:
        worker = patient.worker()
        for name, (payload, content_type) in CORPUS.items():
            bad = line.send(payload, reference="board-0003", content_type=content_type)
            good = line.inspect(0)
            verdict = await line.verdict(bad)
            assert (verdict["verdict"], verdict["reason"]) == ("review", "decode-error"), name
            assert (await line.verdict(good))["reason"] == "ok", name
            assert line.judgements(bad) == line.judgements(good) == 1, name
        # More pixels than the header announces are no harm: a black image, judged in time.
        too_many = line.send(png(640, 640, BOMB), reference="board-0003", content_type=PNG)
        assert (await line.verdict(too_many))["reason"] == "defect"
        assert patient.worker() == worker

    run(broker, scenario, "patient")


def test_a_flood_of_bad_frames_leaves_the_good_ones_in_time_and_the_log_readable(
    broker: LocalBroker, daemon: Daemon
) -> None:
    async def scenario(line: Line) -> None:
        worker = daemon.worker()
        before = len(daemon.log())
        judged = 0
        for _ in range(3):  # a busy machine may leave no time for some
            bad, good = [], []
            for number in range(100):
                bad.append(line.send(b"rubbish" * number, reference="board-0003"))
                if number % 10 == 0:
                    good.append(line.inspect(0))
                await asyncio.sleep(0.005)  # 200 bad frames a second, and 20 good ones
            assert set(await line.kept(bad)) <= {"decode-error", "overload"}
            judged = max(judged, (await line.kept(good))["ok"])
            if judged >= 8:
                break
        assert judged >= 8
        assert daemon.worker() == worker
        assert len(daemon.log()) - before < 20_000

    run(broker, scenario)


def test_properties_of_any_kind_and_size_make_no_frame_vanish(
    broker: LocalBroker, daemon: Daemon
) -> None:
    async def scenario(line: Line) -> None:
        for properties in PROPERTIES:
            before = len(line.verdicts)
            named: dict[str, Any] = {"reference": "board-0003", **properties}
            line.send(part_jpeg(3, 0), **named)

            def another(before: int = before) -> bool:
                return len(line.verdicts) == before + 1

            await until(another, f"a verdict: {named}"[:200])
            assert await line.kept([line.inspect(0)]) == {"ok": 1}
        assert not daemon.events("mqtt-receiver-broken")

    run(broker, scenario)


def test_messages_on_other_topics_and_bad_references_hold_nothing_up(
    broker: LocalBroker, patient: Daemon
) -> None:
    async def scenario(line: Line) -> None:
        for topic in (
            "line/top/frames",
            "line/top/reference/a/b",
            "edge/box1/pcb/verdicts",
            "x" * 999,
        ):
            line.session.publish(topic, bytes(1_000))
        board = Board(40)
        name = f"line/top/reference/{board.reference_id}"
        for content_type in ("image/jpeg", "image/png", "image/x-raw", "rubbish"):
            line.session.publish(name, b"no image at all", content_type=content_type)
        line.session.publish(name, bytes(8 * MIB + 1))
        # No frame can name these, and their names are not kept.
        for long in ("x" * 60_000, "y" * 129):
            properties = {"reference-id": long}
            line.session.publish(name, reference_jpeg(40), properties=properties)
        bad = line.send(part_jpeg(40, 0), reference=board.reference_id)
        assert (await line.verdict(bad))["reason"] == "decode-error"
        line.session.publish(name, reference_jpeg(40))
        good = line.send(part_jpeg(40, 0), reference=board.reference_id)
        assert (await line.verdict(good))["reason"] == "ok"
        await line.status(
            lambda s: s["counters"].get("references_refused{cause=not an image}", 0) >= 3,
            "what could not be a reference was counted",
        )
        assert line.statuses[-1]["counters"]["references_refused{cause=id}"] == 2

    run(broker, scenario, "patient")


def run(
    broker: LocalBroker, scenario: Callable[[Line], Awaitable[None]], device: str = "box1"
) -> None:
    """Run a scenario on a line whose box is ready."""

    async def on_line() -> None:
        async with line_to(broker, device=device) as line:
            await scenario(line)

    asyncio.run(on_line())
