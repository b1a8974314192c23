"""Where pictures come from: a folder, a V4L2 device, an RTSP or HTTP stream, a pipe.

Sources block, and live on one thread, which opens, reads and closes them. Each picture is stamped
with the UTC time at which it was read, as none of these interfaces tells its capture; what is known
of the way before that (`lag_ms`) is taken off.
"""

import math
import os
import re
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Final

import cv2

from edge.camera.picture import Picture, Source
from edge.camera.piped import PipedSource
from edge.errors import ConfigError, TransportError

# OpenCV's own warnings say less than the errors that we raise beside them.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

CONTENT_TYPES: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
STREAMS: Final = ("rtsp://", "rtsps://", "http://", "https://")
YOUNG_PICTURES: Final = "rtsp_flags;prefer_tcp|fflags;nobuffer"
"""For FFmpeg: do not play back first what came while the stream was examined, a second or more."""
PIPE: Final = "-"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")
_DEVICE: Final = re.compile(r"[0-9]{1,3}|/dev/\S+")


class FolderSource:
    """The JPEG and PNG files of a folder, by name, their bytes untouched.

    Args:
        folder: Read once, when the source is made.
        loop: Begin again after the last.
        now_ns: UTC clock.

    Raises:
        ConfigError: There is no such folder, or no picture in it.
    """

    is_live = False
    can_reopen = True

    def __init__(
        self, folder: Path, *, loop: bool = False, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        if not folder.is_dir():
            raise ConfigError(folder, "there is no such folder")
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in CONTENT_TYPES)
        if not files:
            raise ConfigError(folder, f"holds no picture ({', '.join(CONTENT_TYPES)})")
        self.title = str(folder)
        self._files = cycle(files) if loop else iter(files)
        self._now_ns = now_ns

    def open(self) -> None:
        """Nothing to do: the files were listed when the source was made."""

    def skip(self) -> bool:
        """Leave one file out."""
        return next(self._files, None) is not None

    def read(self) -> Picture | None:
        """Read the next file."""
        file = next(self._files, None)
        if file is None:
            return None
        try:
            image = file.read_bytes()
        except OSError as failed:
            raise TransportError(f"{file}: cannot be read: {failed.strerror}") from failed
        return Picture(image, CONTENT_TYPES[file.suffix.lower()], self._now_ns(), _part_id(file))

    def interrupt(self) -> None:
        """Nothing to end: a file is read at once."""

    def close(self) -> None:
        """Nothing to let go of."""


class VideoSource:
    """A V4L2 device or a stream, through OpenCV; pictures are encoded as JPEG.

    Args:
        where: `/dev/video0`, a device's number, or the URL of an RTSP or MJPEG stream.
        quality: Of the JPEGs, 1..100.
        open_s: How long a stream may take to open.
        read_s: How long a stream may take for a picture. V4L2 has its own limit of 10 s.
        lag_ms: How old a picture is when it is read, as far as that was measured.
        now_ns: UTC clock.
    """

    is_live = True
    can_reopen = True

    def __init__(
        self,
        where: str,
        *,
        quality: int = 90,
        open_s: float = 10.0,
        read_s: float = 5.0,
        lag_ms: float = 0.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.title = _PASSWORD.sub(r"\1:***@", where)
        self._where = where
        self._is_stream = where.startswith(STREAMS)
        self._quality = quality
        self._open_ms, self._read_ms = int(open_s * 1_000), int(read_s * 1_000)
        self._lag_ns = int(lag_ms * 1e6)
        self._now_ns = now_ns
        self._capture: cv2.VideoCapture | None = None
        self._grabbed_at_ns = 0

    def open(self) -> None:
        """Open the device or connect to the stream."""
        self.close()
        if self._is_stream:
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", YOUNG_PICTURES)
            limits = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, self._open_ms,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, self._read_ms,
                cv2.CAP_PROP_N_THREADS, 1,  # a decoder of N threads keeps N-1 pictures back
            ]  # fmt: skip
            capture = cv2.VideoCapture(self._where, cv2.CAP_FFMPEG, limits)
        else:
            path = _device_path(self._where)
            if not path.exists():
                raise TransportError(f"there is no device {path} any more")
            # One buffer: an older picture is of no use. Devices that cannot do so ignore it.
            capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2, [cv2.CAP_PROP_BUFFERSIZE, 1])
        if not capture.isOpened():
            capture.release()
            raise TransportError(f"{self.title}: cannot be opened, or sends no video")
        self._capture = capture

    def skip(self) -> bool:
        """Take the next picture from the device, undecoded."""
        if self._capture is None or not self._capture.grab():
            raise TransportError(f"{self.title}: no picture comes any more")
        self._grabbed_at_ns = self._now_ns() - self._lag_ns
        return True

    def read(self) -> Picture | None:
        """Take the next picture and encode it."""
        self.skip()
        assert self._capture is not None
        taken, pixels = self._capture.retrieve()
        if not taken:
            raise TransportError(f"{self.title}: a picture could not be decoded")
        encoded, image = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not encoded:
            raise TransportError(f"{self.title}: a picture of {pixels.shape} cannot become a JPEG")
        return Picture(image.tobytes(), "image/jpeg", self._grabbed_at_ns)

    def interrupt(self) -> None:
        """Nothing to end: a read has its own limit."""

    def close(self) -> None:
        """Let go of the device or the connection."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def source_of(
    where: str,
    *,
    loop: bool = False,
    quality: int = 90,
    lag_ms: float = 0.0,
    max_bytes: int = 8 << 20,
    silence_s: float = math.inf,
) -> Source:
    """Tell from its name what a source is.

    Raises:
        ConfigError: It is none of those known, or is not there, with what is there instead.
    """
    if where.startswith("@"):
        where = _within(Path(where[1:]))
    if where == PIPE:
        return PipedSource(sys.stdin.buffer, max_bytes, silence_s)
    if where.startswith(STREAMS):
        return VideoSource(where, quality=quality, lag_ms=lag_ms)
    if _DEVICE.fullmatch(where):
        device = _device_path(where)
        if not device.exists():
            found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
            raise ConfigError(where, f"there is no device {device}", f"found: {found or 'none'}")
        return VideoSource(where, quality=quality, lag_ms=lag_ms)
    if "://" in where:
        known = ", ".join(STREAMS)
        raise ConfigError(
            _PASSWORD.sub(r"\1:***@", where), "is of no known kind", f"known: {known}"
        )
    return FolderSource(Path(where), loop=loop)


def _device_path(where: str) -> Path:
    return Path(f"/dev/video{where}" if where.isdecimal() else where)


def _part_id(file: Path) -> str:
    """Return a file's name as text, also where its bytes are of another time and code page."""
    return os.fsencode(file.stem).decode(errors="backslashreplace")


def _within(file: Path) -> str:
    """Read a source's name, and the password in it, from a file of one line."""
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as failed:
        why = failed.strerror if isinstance(failed, OSError) else "it is no text"
        raise ConfigError(file, f"the source's name cannot be read from it: {why}") from failed
    if not text or len(text.splitlines()) > 1:
        raise ConfigError(file, "expected one line, the source's name")
    return text
