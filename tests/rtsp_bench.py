"""What a video stream costs: how old its pictures are at the broker, and what verdicts it gets.

`make cameras` runs this. A real RTSP server (tests/rtsp_camera.py) plays simulated boards to
`edge camera`, which publishes to a real Mosquitto and a real daemon. Ages are read from the
pictures themselves, into which the server draws its clock. Verdicts are scored frame by frame
against what was shown. Results: .out/cameras.json.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from brokers import connected, until
from daemons import Daemon, line_to
from numpy.typing import NDArray

from edge.linesim import KINDS, Board, render_part
from edge.mqtt.brokers import LocalBroker

SERVER: Final = Path(__file__).with_name("rtsp_camera.py")
SYSTEM_PYTHON: Final = "/usr/bin/python3"
STAMP_ROWS: Final = 16
BOARD: Final = Board(3)
EACH: Final = ("--rate", "100")
TOPIC: Final = "line/top/frame"
GSTREAMER: Final = (
    "gst-launch-1.0 -q rtspsrc location={url} latency=0 protocols=tcp ! rtph264depay ! h264parse "
    "! openh264dec ! videoconvert ! video/x-raw,format=I420,colorimetry=1:4:0:0 "
    "! jpegenc quality=90 ! fdsink | {edge} camera - {words}"
)
BY_GSTREAMER: Final = "by GStreamer"
STREAMS: Final = {
    "mjpeg, quality 90": ("--codec", "mjpeg", "--quality", "90"),
    "mjpeg, quality 50": ("--codec", "mjpeg", "--quality", "50"),
    "h264, 8 Mbit/s": ("--codec", "h264", "--kbit", "8000"),
    f"h264, 8 Mbit/s, {BY_GSTREAMER}": ("--codec", "h264", "--kbit", "8000"),
    "h264, 2 Mbit/s": ("--codec", "h264", "--kbit", "2000"),
    "h264, 0.5 Mbit/s": ("--codec", "h264", "--kbit", "500"),
    "h264, 0.1 Mbit/s": ("--codec", "h264", "--kbit", "100"),
    "h264, 8 Mbit/s, B-frames": ("--codec", "h264-bframes", "--kbit", "8000"),
}


@dataclass
class RtspCamera:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/line"


@contextlib.contextmanager
def rtsp_camera(
    pictures: NDArray[np.uint8], folder: Path, *words: str, port: int = 0
) -> Iterator[RtspCamera]:
    """Serve pictures, uint8 [n, height, width]; with `--stamp` rows for it are added."""
    if "--stamp" in words:
        pictures = np.pad(pictures, ((0, 0), (0, STAMP_ROWS), (0, 0)))
    np.save(folder / "frames.npy", pictures)
    process = subprocess.Popen(
        [SYSTEM_PYTHON, SERVER, folder / "frames.npy", "--port", str(port), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline().split()
        assert first[:1] == ["ready"], "the RTSP server has not started"
        yield RtspCamera(process, int(first[1]))
    finally:
        process.kill()
        process.communicate()


def stamp_ns(image: bytes) -> int:
    """Read the server's clock from a picture."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    rows = pixels[-STAMP_ROWS + 4 : -4].mean(axis=0)
    fields = rows.reshape(64, -1)[:, 2:-2].mean(axis=1) > 128
    return int.from_bytes(np.packbits(fields).tobytes())


@contextlib.asynccontextmanager
async def filming(
    source: str, broker: LocalBroker, *words: str, by_gstreamer: bool = False
) -> AsyncIterator[None]:
    """`edge camera` as a process, or behind a pipe from GStreamer."""
    edge = [sys.executable, "-m", "edge.cli.main"]
    words = ("--set", f"broker.port={broker.port}", *words)
    if by_gstreamer:
        line = GSTREAMER.format(url=source, edge=" ".join(edge), words=" ".join(words))
        command = ["/bin/bash", "-c", line]
    else:
        command = [*edge, "camera", source, *words]
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


async def ages_ms(
    words: Sequence[str], frames: int, fps: int, folder: Path, *, by_gstreamer: bool
) -> list[float]:
    """Say how old each frame is when a subscriber has it."""
    pictures = np.stack([render_part(BOARD, n).image for n in range(8)])
    async with LocalBroker(kind="mosquitto") as broker:
        with rtsp_camera(pictures, folder, *words, "--stamp", "--fps", str(fps)) as camera:
            async with (
                connected(broker, "watcher", TOPIC) as peer,
                filming(camera.url, broker, *EACH, by_gstreamer=by_gstreamer),
            ):
                messages = [await peer.next(60) for _ in range(frames)]
    return [(message.arrived_at_ns - stamp_ns(message.payload)) / 1e6 for message in messages]


async def verdicts(
    words: Sequence[str],
    parts: int,
    fps: int,
    hold: int,
    lag_ms: float,
    folder: Path,
    *,
    by_gstreamer: bool,
) -> dict[str, Any]:
    """Show parts, every other one of them bad, and score each frame's verdict."""
    kinds = [(KINDS[n // 2 % len(KINDS)],) if n % 2 else () for n in range(parts)]
    pictures = np.stack([render_part(BOARD, n, kind).image for n, kind in enumerate(kinds)])
    async with LocalBroker(kind="mosquitto") as broker:
        with Daemon(broker, folder, budget_ms=0) as daemon:
            daemon.ready()
            async with line_to(broker) as line, connected(broker, "watcher", TOPIC) as watcher:
                with rtsp_camera(
                    pictures, folder, *words, "--fps", str(fps), "--hold", str(hold)
                ) as camera:
                    flags = (*EACH, "--reference-id", BOARD.reference_id, "--lag-ms", str(lag_ms))
                    async with filming(camera.url, broker, *flags, by_gstreamer=by_gstreamer):
                        enough, limit_s = parts * hold, 30 + 2 * parts * hold / fps
                        await until(lambda: len(line.verdicts) > enough, "verdicts", limit_s)
            heard = [json.loads(found[0][0]) for found in line.verdicts.values()]
            images = {}
            while not watcher.messages.empty():
                message = await watcher.next()
                images[message.properties["frame-id"]] = message.payload
    greys_off: list[float] = []
    counts = {"bad": Counter[str](), "good": Counter[str]()}
    for verdict in heard:
        off, number = likest(images[verdict["frame_id"]], pictures)
        greys_off.append(off)
        counts["bad" if kinds[number] else "good"][verdict["verdict"]] += 1
    return {
        **counts,
        "greys_off": round(float(np.mean(greys_off)), 2),
        "reasons": Counter(verdict["reason"] for verdict in heard),
        "latency_ms": percentiles([verdict["latency_ms"]["total"] for verdict in heard]),
    }


def likest(image: bytes, pictures: NDArray[np.uint8]) -> tuple[float, int]:
    """Say which picture a frame shows, and how far off its pixels are on average."""
    shown = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    norms = (cv2.norm(shown, picture, cv2.NORM_L1) for picture in pictures)
    return min((norm / shown.size, number) for number, norm in enumerate(norms))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile."""
    return {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 99)}


async def measure(words: argparse.Namespace) -> dict[str, Any]:
    """Measure each stream in turn."""
    found: dict[str, Any] = {}
    for name, stream in STREAMS.items():
        if words.only and words.only not in name:
            continue
        by_gstreamer = BY_GSTREAMER in name
        with tempfile.TemporaryDirectory() as folder:
            ages = await ages_ms(
                stream, words.frames, words.fps, Path(folder), by_gstreamer=by_gstreamer
            )
        settled = ages[len(ages) // 4 :]
        with tempfile.TemporaryDirectory() as folder:
            scored = await verdicts(
                stream,
                words.parts,
                words.fps,
                words.hold,
                percentiles(settled)["p50"],
                Path(folder),
                by_gstreamer=by_gstreamer,
            )
        found[name] = {"first_age_ms": round(ages[0], 1), "age_ms": percentiles(settled), **scored}
        sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
        sys.stdout.flush()
    return found


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=100, help="whose ages are measured")
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--parts", type=int, default=240, help="that are shown and scored")
    parser.add_argument("--hold", type=int, default=1, help="frames for which a part is shown")
    parser.add_argument("--only", default="", help="streams whose name has this")
    words = parser.parse_args()
    out = Path(".out")
    out.mkdir(exist_ok=True)
    found = asyncio.run(measure(words))
    (out / "cameras.json").write_text(json.dumps({"options": vars(words), "streams": found}))


if __name__ == "__main__":
    main()
