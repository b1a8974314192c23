"""An RTSP camera for tests, by GStreamer's own server: Debian's python3, not ours, runs this.

It plays the grey pictures of FRAMES (.npy, uint8 [n, height, width]), each for `--hold` frames,
and says `ready PORT` when it can be reached. With `--stamp` the last 16 rows of each frame are its
own time, UTC in nanoseconds, as 64 fields of black and white: whoever receives it can tell its age.

Needs gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-{base,good,bad,ugly}.
"""

import argparse
import sys
import time
from typing import Any

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions

STAMP_ROWS = 16
STAMP_BITS = 64
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=veryfast key-int-max={fps} bitrate={kbit} "
    "! rtph264pay name=pay0 pt=96 config-interval=1",
    "h264-bframes": "x264enc speed-preset=veryfast key-int-max={fps} bframes=3 bitrate={kbit} "
    "! rtph264pay name=pay0 pt=96 config-interval=1",
    "mjpeg": "jpegenc quality={quality} ! rtpjpegpay name=pay0 pt=26",
}


FULL_RANGE = ",colorimetry=1:4:0:0"  # 0..255, as JPEG has it; video has 16..235


class Playing:
    """The pictures, as the frames of one pipeline that all viewers share."""

    def __init__(self, words: argparse.Namespace) -> None:
        self.frames = np.load(words.frames)
        self.period_ns = Gst.SECOND // words.fps
        self.hold, self.stamp = words.hold, words.stamp
        self.source: Any = None
        self.number = 0

    def configured(self, _factory: object, media: Any) -> None:
        self.source = media.get_element().get_child_by_name("pictures")
        self.number = 0
        self.began = time.monotonic_ns()
        GLib.timeout_add(1, self.push)

    def push(self) -> bool:
        """Push the frame that is due; asked each millisecond."""
        due = self.began + self.number * self.period_ns
        if time.monotonic_ns() < due:
            return True
        frame = self.frames[self.number // self.hold % len(self.frames)]
        if self.stamp:
            frame = frame.copy()
            bits = np.unpackbits(np.array([time.time_ns()], ">u8").view(np.uint8)) * np.uint8(255)
            frame[-STAMP_ROWS:] = np.repeat(bits, frame.shape[1] // STAMP_BITS)
        buffer = Gst.Buffer.new_wrapped(frame.tobytes())
        buffer.duration = self.period_ns
        self.number += 1
        return bool(self.source.emit("push-buffer", buffer) == Gst.FlowReturn.OK)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("frames")
    parser.add_argument("--port", default="0")
    parser.add_argument("--codec", choices=tuple(ENCODERS), default="h264")
    parser.add_argument("--fps", type=int, default=20)
    parser.add_argument("--hold", type=int, default=1)
    parser.add_argument("--kbit", type=int, default=8000)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--stamp", action="store_true")
    words = parser.parse_args()
    Gst.init(None)
    playing = Playing(words)
    _, height, width = playing.frames.shape
    encoder = ENCODERS[words.codec].format(fps=words.fps, kbit=words.kbit, quality=words.quality)
    colours = FULL_RANGE if words.codec == "mjpeg" else ""
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_latency(0)
    factory.set_launch(
        "( appsrc name=pictures is-live=true do-timestamp=true format=time "
        f"caps=video/x-raw,format=GRAY8,width={width},height={height},framerate={words.fps}/1 "
        f"! videoconvert ! video/x-raw,format=I420{colours} ! {encoder} )"
    )
    factory.connect("media-configure", playing.configured)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(words.port)
    server.get_mount_points().add_factory("/line", factory)
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    sys.stdout.write(f"ready {server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
