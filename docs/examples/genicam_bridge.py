#!/usr/bin/python3
"""A GenICam camera (GigE Vision, USB3 Vision) as pictures on standard output, for `edge camera -`.

    docs/examples/genicam_bridge.py --camera 192.168.1.30 | edge camera - --topic line/top/frame

It needs Debian's own Python and two packages: `apt install python3-gi gir1.2-aravis-0.8`. Pixels go
out as they are, uncompressed: Mono8, BayerRG8, RGB8 and BGR8 are what edge can judge. Only whole
frames go out: of one that lost packets nobody knows what stood in its holes, so it is left out and
told on standard error.

Each picture says in its head when it was taken. The camera's clock has an origin of its own, so it
is mapped to this machine's: of the last minute's frames the one with the shortest way from stamp
to arrival gives the offset, and its way is taken for none. What it truly took, exposure and
transfer, stands in no stamp; measure it, and give it as --lag-ms.

It ends with status 1 when the camera has gone or fallen silent, and whoever started the pipe starts
it again.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections import deque
from typing import Any

try:
    import gi

    gi.require_version("Aravis", "0.8")
    from gi.repository import Aravis
except (ImportError, ValueError) as missing:
    sys.exit(f"genicam_bridge: {missing}: apt-get install python3-gi gir1.2-aravis-0.8")

FORMATS = {"Mono8": "GRAY8", "BayerRG8": "BayerRG8", "RGB8": "RGB", "BGR8": "BGR"}
BUFFERS = 8
WAIT_US = 200_000
WINDOW_NS = 60 * 10**9


class Clock:
    """Maps a camera's stamps to UTC by the shortest way that a frame has had of late."""

    def __init__(self, lag_ns: int) -> None:
        self._lag_ns = lag_ns
        self._shortest: deque[tuple[int, int]] = deque()  # (arrival, offset), offsets growing

    def captured_ns(self, stamp_ns: int, arrived_ns: int) -> int:
        """Return when a frame was taken, UTC; each frame teaches it."""
        offset = arrived_ns - stamp_ns
        while self._shortest and self._shortest[-1][1] >= offset:
            self._shortest.pop()
        self._shortest.append((arrived_ns, offset))
        while abs(arrived_ns - self._shortest[0][0]) > WINDOW_NS:
            self._shortest.popleft()
        return stamp_ns + self._shortest[0][1] - self._lag_ns


def tell(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"genicam-bridge: {text}\n")


def opened(words: argparse.Namespace) -> Any:
    """Return the camera, set up as asked."""
    camera = Aravis.Camera.new(words.camera)
    if words.format:
        camera.set_pixel_format_from_string(words.format)
    if words.features:
        camera.get_device().set_features_from_string(words.features)
    if words.rate:
        camera.set_frame_rate(words.rate)
    return camera


def write_part(image: bytes, headers: dict[str, str]) -> None:
    """Write one picture as edge camera reads it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"--frame\r\n{lines}Content-Length: {len(image)}\r\n\r\n"
    sys.stdout.buffer.write(head.encode() + image + b"\r\n")
    sys.stdout.buffer.flush()


def bridge(words: argparse.Namespace) -> int:
    """Write frames until a signal, or until the camera has gone."""
    ended: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.append(""))
    camera = opened(words)
    if camera.is_gv_device() and not camera.get_device().is_controller():
        tell("another program controls the camera, or one that died did so until just now")
        return 1
    pixels = camera.get_pixel_format_as_string()
    if pixels not in FORMATS:
        tell(f"the camera sends {pixels}; choose by --format one of {', '.join(FORMATS)}")
        return 78
    camera.get_device().connect("control-lost", lambda *_: ended.append("the camera has gone"))
    stream = camera.create_stream(None, None)
    for _ in range(BUFFERS):
        stream.push_buffer(Aravis.Buffer.new_allocate(camera.get_payload()))
    clock = Clock(int(words.lag_ms * 1e6))
    run = f"{camera.get_device_id()}-{time.time_ns():x}".translate(str.maketrans("/+# ", "____"))
    frames = broken = 0
    heard_at = time.monotonic()
    camera.start_acquisition()
    while not ended:
        buffer = stream.timeout_pop_buffer(WAIT_US)
        if buffer is None:
            if words.silence_s and time.monotonic() - heard_at > words.silence_s:
                ended.append(f"no frame for {words.silence_s:g} s")
            continue
        heard_at = time.monotonic()
        if buffer.get_status() == Aravis.BufferStatus.SUCCESS:
            _, _, width, height = buffer.get_image_region()
            shape = f"format={FORMATS[pixels]};width={width};height={height}"
            captured_ns = clock.captured_ns(buffer.get_timestamp(), buffer.get_system_timestamp())
            headers = {
                "Content-Type": f"image/x-raw;{shape}",
                "Frame-Id": f"{run}-{frames:06d}",
                "Captured-At": str(captured_ns),
            }
            frames += 1
            write_part(buffer.get_data(), headers)
        else:
            broken += 1
            tell(f"a frame is left out: {buffer.get_status().value_nick}")
        stream.push_buffer(buffer)
    with contextlib.suppress(Exception):  # of a camera that has gone
        camera.stop_acquisition()
    tell(f"{frames} frames, {broken} left out" + (f"; {ended[0]}" if ended[0] else ""))
    return 1 if ended[0] else 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--camera", help="address, id or serial number (default: the first found)")
    parser.add_argument("--format", default="", help=f"of its pixels: {', '.join(FORMATS)}")
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second")
    parser.add_argument(
        "--features", default="", help='more settings: "TriggerMode=On TriggerSource=Line1"'
    )
    parser.add_argument("--lag-ms", type=float, default=0.0, help="exposure and transfer")
    parser.add_argument(
        "--silence-s", type=float, default=10.0,
        help="end without a frame for so long (default: 10; 0: never, for a triggered camera)",
    )  # fmt: skip
    words = parser.parse_args()
    try:
        return bridge(words)
    except BrokenPipeError:  # edge camera has ended and has said why
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except gi.repository.GLib.Error as failed:
        tell(failed.message)
        return 1


if __name__ == "__main__":
    sys.exit(main())
