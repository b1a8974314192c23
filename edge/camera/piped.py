"""Pictures through a pipe, `bridge | edge camera -`: what any program can write.

The stream is pictures one after the other, each of them one of

- a JPEG or a PNG as it is: whatever writes MJPEG to its standard output is a camera already;
- a part as of `multipart/x-mixed-replace`: a line `--anything`, header lines, an empty line, and
  `Content-Length` bytes. Its headers may say what the pipe would lose: `Content-Type`,
  `Captured-At`, `Frame-Id`, `Part-Id`, `Reference-Id`, as the properties of a frame (docs/mqtt.md).

Each picture is one frame; none is left out unless a rate was asked for. Pictures are not decoded
here: their bytes go on untouched. A pipe loses nothing, so what is no picture is a fault of the
program at its other end and ends the command; whoever started both starts both again.
"""

import math
import os
import re
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Final

from edge.camera.picture import MAX_ID_CHARS, Picture
from edge.errors import ConfigError, TransportError
from edge.mqtt.topics import unfit_for_a_level

MAX_HEAD_BYTES: Final = 8 << 10
_CHUNK_BYTES: Final = 256 << 10
_BETWEEN: Final = re.compile(rb"[\r\n\0]*")
"""Line ends of parts; zeros, because V4L2 devices may pad their JPEGs."""
_LOOK_MS: Final = 100
_JPEG: Final = b"\xff\xd8"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PART: Final = b"--"
_STARTS: Final = (_JPEG, _PNG, _PART)
# ITU-T T.81, B.1.1.5 and E.1.4: in coded data 0xFF is followed by 0, a restart marker, or fill.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_WITHOUT_LENGTH: Final = (0x01, *range(0xD0, 0xD8))
_HEADER: Final = re.compile(r"([!-9;-~]+):[ \t]*([ -~]*?)[ \t]*")
_DECIMAL: Final = re.compile(r"[0-9]{1,20}")
_CLOSING: Final = re.compile(rb"--[ -~]*[\r\n]*")  # FFmpeg ends without the last two dashes


class PictureSplitter:
    """Cuts a stream of bytes into pictures. Pure.

    Args:
        max_bytes: The largest picture.

    Attributes:
        is_empty: Whether all that was fed has been taken out.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._taken = 0
        self._scanned = 0
        self._in_scan = False

    @property
    def is_empty(self) -> bool:
        """Between two pictures, with nothing held but what closes a multipart."""
        return not self._held or _CLOSING.fullmatch(self._held) is not None

    def feed(self, data: bytes) -> None:
        """Take bytes in; `next_picture` is asked until it has no more."""
        self._held += data

    def next_picture(self, began_ns: int) -> Picture | None:
        """Return the next whole picture; None: more bytes are needed.

        Args:
            began_ns: UTC, when its first byte came; its capture, unless its head says better.

        Raises:
            TransportError: What comes is no stream of pictures.
        """
        held = self._held
        if (between := _BETWEEN.match(held)) is not None:
            self._drop(between.end())
        if held.startswith(_JPEG):
            return self._whole(self._jpeg_bytes(), 0, {}, began_ns, "image/jpeg")
        if held.startswith(_PNG):
            return self._whole(self._png_bytes(), 0, {}, began_ns, "image/png")
        if held.startswith(_PART):
            return self._part(began_ns)
        if any(start.startswith(held) for start in _STARTS):
            return None  # the beginning of any, or nothing
        raise self._fault(f"found {bytes(held[:8])!r}")

    def _drop(self, count: int) -> None:
        if not count:
            return
        del self._held[:count]
        self._taken += count
        self._scanned, self._in_scan = 0, False

    def _fault(self, problem: str) -> TransportError:
        return TransportError(
            f"standard input, byte {self._taken}: expected a JPEG, a PNG or a part (--); {problem}"
        )

    def _whole(
        self,
        end: int | None,
        begin: int,
        headers: Mapping[str, str],
        began_ns: int,
        content_type: str,
    ) -> Picture | None:
        """Take a picture out, if its end is known and there."""
        if (len(self._held) if end is None else end) - begin > self._max_bytes:
            raise self._fault(f"found a picture of more than {self._max_bytes} bytes")
        if end is None or len(self._held) < end:
            return None
        image = bytes(memoryview(self._held)[begin:end])
        self._drop(end)
        return Picture(
            image,
            headers.get("content-type", content_type),
            int(headers.get("captured-at", began_ns)),
            part_id=headers.get("part-id", ""),
            frame_id=headers.get("frame-id", ""),
            reference_id=headers.get("reference-id", ""),
        )

    def _jpeg_bytes(self) -> int | None:
        """Find a JPEG's end by its segments: a preview within one has an end of its own."""
        held, at = self._held, self._scanned or len(_JPEG)
        while True:
            if self._in_scan:
                found = _MARKER.search(held, at)
                if found is None:
                    self._scanned = max(at, len(held) - 1)
                    return None
                at, self._in_scan = found.start(), False
            self._scanned = at
            if len(held) < at + 4:
                return at + 2 if held[at : at + 2] == bytes((0xFF, _END_OF_IMAGE)) else None
            marker = held[at + 1]
            if held[at] != 0xFF:  # noqa: PLR2004 - begins each marker
                raise self._fault(f"found a JPEG that is damaged at its byte {at}")
            if marker == _END_OF_IMAGE:
                return at + 2
            if marker in _WITHOUT_LENGTH:
                at += 2
            elif marker == 0xFF:  # noqa: PLR2004 - fill
                at += 1
            else:
                at += 2 + max(2, int.from_bytes(held[at + 2 : at + 4]))
                self._in_scan = marker == _START_OF_SCAN

    def _png_bytes(self) -> int | None:
        """Find a PNG's end by its chunks."""
        held, at = self._held, self._scanned or len(_PNG)
        while len(held) >= at + 8:
            self._scanned = at
            length, kind = int.from_bytes(held[at : at + 4]), held[at + 4 : at + 8]
            at += 12 + length
            if kind == b"IEND" or at > self._max_bytes:
                return at
        return None

    def _part(self, began_ns: int) -> Picture | None:
        end = self._head_end()
        if end is None:
            return None
        headers = self._headers(end)
        if not _DECIMAL.fullmatch(length := headers.get("content-length", "")):
            raise self._fault(f"found a part without Content-Length ({length[:80]!r})")
        return self._whole(end + int(length), end, headers, began_ns, "image/jpeg")

    def _head_end(self) -> int | None:
        """Find the end of the empty line that ends a head."""
        ends = [
            found + len(mark)
            for mark in (b"\r\n\r\n", b"\n\n")
            if (found := self._held.find(mark, 0, MAX_HEAD_BYTES)) >= 0
        ]
        if not ends and len(self._held) >= MAX_HEAD_BYTES:
            raise self._fault(f"found a head of more than {MAX_HEAD_BYTES} bytes")
        return min(ends, default=None)

    def _headers(self, end: int) -> dict[str, str]:
        headers = {}
        for line in self._held[:end].decode("latin-1").splitlines()[1:]:
            matched = _HEADER.fullmatch(line)
            if line and matched is None:
                raise self._fault(f"found {line[:80]!r} where a header should be")
            if matched is not None:
                headers[matched[1].lower()] = matched[2]
        captured = headers.get("captured-at")
        if captured is not None and not _DECIMAL.fullmatch(captured):
            raise self._fault(f"Captured-At is UTC in nanoseconds, found {captured[:80]!r}")
        for name in ("frame-id", "part-id", "reference-id"):
            given = headers.get(name)
            if given is not None and (len(given) > MAX_ID_CHARS or unfit_for_a_level(given)):
                raise self._fault(
                    f"{name.title()} is 1 to {MAX_ID_CHARS} characters without / + #, "
                    f"found {given[:80]!r}"
                )
        return headers


class PipedSource:
    """Pictures from a pipe, as they come.

    Args:
        stream: Its file descriptor is read; the stream itself is not.
        max_bytes: The largest picture.
        silence_s: How long nothing may come; infinite: a camera waits for its trigger.
        now_ns: UTC clock.

    Raises:
        ConfigError: The stream is a terminal.
    """

    is_live = True
    can_reopen = False
    title = "standard input"

    def __init__(
        self,
        stream: IO[bytes],
        max_bytes: int,
        silence_s: float = math.inf,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if stream.isatty():
            raise ConfigError("-", "standard input is a terminal", "BRIDGE | edge camera -")
        self._stream = stream  # held: its descriptor closes with it
        self._fd = stream.fileno()
        self._splitter = PictureSplitter(max_bytes)
        self._silence_s = silence_s
        self._now_ns = now_ns
        self._began_ns = self._read_ns = now_ns()
        self._interrupted = threading.Event()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def open(self) -> None:
        """Nothing to do: whoever started us has opened it."""

    def skip(self) -> bool:
        """Take a picture out and forget it."""
        return self.read() is not None

    def read(self) -> Picture | None:
        """Wait for the next picture; None at the end, and once interrupted."""
        heard_at = time.monotonic()
        while (picture := self._splitter.next_picture(self._began_ns)) is None:
            while not self._poll.poll(_LOOK_MS):
                if self._interrupted.is_set():
                    return None
                if time.monotonic() - heard_at > self._silence_s:
                    raise TransportError(f"{self.title}: nothing came for {self._silence_s:g} s")
            data = os.read(self._fd, _CHUNK_BYTES)
            heard_at = time.monotonic()
            self._read_ns = self._now_ns()
            if self._splitter.is_empty:
                self._began_ns = self._read_ns
            if not data:
                if self._splitter.is_empty:
                    return None
                raise TransportError(f"{self.title} ended in the midst of a picture")
            self._splitter.feed(data)
        self._began_ns = self._read_ns  # of what is held beyond it
        return picture

    def interrupt(self) -> None:
        """End a read that waits."""
        self._interrupted.set()

    def close(self) -> None:
        """Nothing to let go of: the pipe is not ours."""
