"""Where pictures come from: a folder, a V4L2 device, an RTSP or HTTP stream.

Sources block, and live on one thread, which opens, reads and closes them. Each picture is stamped
with the UTC time at which it was read; that is as near to its capture as these interfaces tell.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final, Protocol

import cv2

from edge.errors import ConfigError, TransportError

CONTENT_TYPES: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
STREAMS: Final = ("rtsp://", "rtsps://", "http://", "https://")
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")
_DEVICE: Final = re.compile(r"[0-9]{1,3}|/dev/\S+")


@dataclass(frozen=True)
class Picture:
    """One encoded picture.

    Attributes:
        captured_at_ns: UTC, when it was read.
        name: Of its file, without suffix; empty for cameras.
    """

    image: bytes
    content_type: str
    captured_at_ns: int
    name: str = ""


class Source(Protocol):
    """Something that yields pictures, opened before the first and again after each failure.

    Attributes:
        title: For people; without passwords.
        is_live: Whether it runs on while nobody reads, so that only its newest picture counts.
    """

    title: str
    is_live: bool

    def open(self) -> None:
        """Make it ready to read.

        Raises:
            TransportError: It is not there, now; it may be later.
        """

    def skip(self) -> bool:
        """Take a picture from a live source without looking at it; False at the end.

        Raises:
            TransportError: It does not answer any more.
        """

    def read(self) -> Picture | None:
        """Read the next picture; None at the end.

        Raises:
            TransportError: It does not answer any more.
        """

    def close(self) -> None:
        """Let go of it; may be called twice."""


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
        return Picture(image, CONTENT_TYPES[file.suffix.lower()], self._now_ns(), file.stem)

    def close(self) -> None:
        """Nothing to let go of."""


class VideoSource:
    """A V4L2 device or a stream, through OpenCV; pictures are encoded as JPEG.

    Args:
        where: `/dev/video0`, a device's number, or the URL of an RTSP or MJPEG stream.
        quality: Of the JPEGs, 1..100.
        open_s: How long a stream may take to open.
        read_s: How long a stream may take for a picture. V4L2 has its own limit of 10 s.
        now_ns: UTC clock.
    """

    is_live = True

    def __init__(
        self,
        where: str,
        *,
        quality: int = 90,
        open_s: float = 10.0,
        read_s: float = 5.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.title = _PASSWORD.sub(r"\1:***@", where)
        self._where = where
        self._is_stream = where.startswith(STREAMS)
        self._quality = quality
        self._open_ms, self._read_ms = int(open_s * 1_000), int(read_s * 1_000)
        self._now_ns = now_ns
        self._capture: cv2.VideoCapture | None = None
        self._grabbed_at_ns = 0

    def open(self) -> None:
        """Open the device or connect to the stream."""
        self.close()
        if self._is_stream:
            limits = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, self._open_ms,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, self._read_ms,
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
        self._grabbed_at_ns = self._now_ns()
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

    def close(self) -> None:
        """Let go of the device or the connection."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def source_of(where: str, *, loop: bool = False, quality: int = 90) -> FolderSource | VideoSource:
    """Tell from its name what a source is.

    Raises:
        ConfigError: It is none of those known, or is not there, with what is there instead.
    """
    if where.startswith(STREAMS):
        return VideoSource(where, quality=quality)
    if _DEVICE.fullmatch(where):
        device = _device_path(where)
        if not device.exists():
            found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
            raise ConfigError(where, f"there is no device {device}", f"found: {found or 'none'}")
        return VideoSource(where, quality=quality)
    if "://" in where:
        known = ", ".join(STREAMS)
        raise ConfigError(
            _PASSWORD.sub(r"\1:***@", where), "is of no known kind", f"known: {known}"
        )
    return FolderSource(Path(where), loop=loop)


def _device_path(where: str) -> Path:
    return Path(f"/dev/video{where}" if where.isdecimal() else where)
