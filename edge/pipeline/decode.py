"""Decode: payload bytes to pixels in guest memory.

The header is read first, so that a small payload cannot ask for a large image. JPEG and raw
pixels land in guest memory without an intermediate image; PNG takes one copy, since OpenCV's
decoder has no destination argument in Python.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from edge.contracts.frame import ContentType, Encoding, PixelFormat
from edge.contracts.plan import ImagePlan
from edge.errors import DecodeError

_JPEG_MAGIC: Final = b"\xff\xd8\xff"
MAX_SCANS: Final = 32
"""Of one JPEG. Encoders write up to some 20; each takes its time over the whole image, whatever its
size: 10,000 of 12 bytes took 10 s at 640x640."""
_SCAN: Final = b"\xff\xda"
_FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""SOF0 to SOF15, among which DHT, JPG and DAC are none (ITU-T T.81, table B.1)."""
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
MAX_CHUNKS: Final = 16_384
"""Of one PNG: half a KiB each in the largest payload. Encoders write 8 KiB or more, or a row."""
_PNG_HEADER_BYTES: Final = 13
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type (PNG 1.2, 4.1.1)."""
_PNG_DEPTH: Final = 16
_PNG_SLACK_BYTES: Final = 4_096
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_COLOUR: Final = {
    PixelFormat.GRAY8: "GRAY",
    PixelFormat.BGR: "BGR",
    PixelFormat.RGB: "RGB",
}
_PNG_BESIDES: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT"})
"""Texts and further pictures: no pixel of ours hangs on them, and 4 KB of one may hold 4 MB."""
# OpenCV's conversion from raw to wanted format. GenICam's BayerRG8 starts with R G / G B.
_CONVERSIONS: Final[dict[tuple[PixelFormat, PixelFormat], int]] = {
    (PixelFormat.GRAY8, PixelFormat.BGR): cv2.COLOR_GRAY2BGR,
    (PixelFormat.GRAY8, PixelFormat.RGB): cv2.COLOR_GRAY2RGB,
    (PixelFormat.BGR, PixelFormat.GRAY8): cv2.COLOR_BGR2GRAY,
    (PixelFormat.BGR, PixelFormat.RGB): cv2.COLOR_BGR2RGB,
    (PixelFormat.RGB, PixelFormat.GRAY8): cv2.COLOR_RGB2GRAY,
    (PixelFormat.RGB, PixelFormat.BGR): cv2.COLOR_RGB2BGR,
    (PixelFormat.BAYER_RG8, PixelFormat.GRAY8): cv2.COLOR_BayerRGGB2GRAY,
    (PixelFormat.BAYER_RG8, PixelFormat.BGR): cv2.COLOR_BayerRGGB2BGR,
    (PixelFormat.BAYER_RG8, PixelFormat.RGB): cv2.COLOR_BayerRGGB2RGB,
}


def decode(
    payload: bytes | bytearray,
    content: ContentType,
    image: ImagePlan,
    pixels: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """Decode an image into guest memory.

    Args:
        payload: The encoded image.
        content: What the sender says it is.
        image: The wanted pixel format and the largest sides accepted.
        pixels: Flat view of at least `image.max_bytes` bytes; the image is written at its start,
            rows without gaps.

    Returns:
        Width and height in pixels.

    Raises:
        DecodeError: The payload is not what it says, is damaged, or is too large.
    """
    return _DECODERS[content.encoding](payload, content, image, pixels)


def _jpeg(
    payload: bytes | bytearray,
    _content: ContentType,
    image: ImagePlan,
    pixels: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    _expect_magic(payload, _JPEG_MAGIC, "JPEG")
    _expect_few_scans(payload)
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(payload)
        _expect_fitting(width, height, image)
        simplejpeg.decode_jpeg(
            payload,
            _JPEG_COLOUR[image.pixel_format],
            buffer=shaped(pixels, width, height, image.pixel_format),
        )
    except ValueError as damaged:
        raise DecodeError(f"JPEG of {len(payload)} bytes is damaged: {damaged}") from damaged
    return width, height


def _png(
    payload: bytes | bytearray,
    _content: ContentType,
    image: ImagePlan,
    pixels: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    _expect_magic(payload, _PNG_MAGIC, "PNG")
    (width, height), payload = bare_png(payload)
    _expect_fitting(width, height, image)
    gray = image.pixel_format is PixelFormat.GRAY8
    flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    try:
        decoded = cv2.imdecode(
            np.frombuffer(payload, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as damaged:
        raise DecodeError(f"PNG of {len(payload)} bytes is damaged: {damaged.err}") from damaged
    if decoded is None or decoded.shape[:2] != (height, width):
        raise DecodeError(f"PNG of {len(payload)} bytes is damaged: its pixels cannot be read")
    target = shaped(pixels, width, height, image.pixel_format)
    if image.pixel_format is PixelFormat.RGB:
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=target)
    else:
        np.copyto(target, decoded.reshape(target.shape))
    return width, height


def _raw(
    payload: bytes | bytearray,
    content: ContentType,
    image: ImagePlan,
    pixels: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    width, height, found = content.width, content.height, content.pixel_format
    if found is None:
        raise DecodeError("raw frame without a pixel format")
    _expect_fitting(width, height, image)
    expected = width * height * found.channels
    if len(payload) != expected:
        raise DecodeError(
            f"raw {found} frame of {width}x{height} has {expected} bytes, found {len(payload)}"
        )
    source = shaped(np.frombuffer(payload, np.uint8), width, height, found)
    target = shaped(pixels, width, height, image.pixel_format)
    if found is image.pixel_format:
        np.copyto(target, source)
        return width, height
    try:
        # OpenCV writes into `dst` when its shape and type fit, which they do by construction.
        written = cv2.cvtColor(source, _CONVERSIONS[found, image.pixel_format], dst=target)
    except cv2.error as refused:
        raise DecodeError(f"raw {found} frame of {width}x{height}: {refused.err}") from refused
    if written.ctypes.data != target.ctypes.data:
        np.copyto(target, written)
    return width, height


_Decoder = Callable[[Any, ContentType, ImagePlan, npt.NDArray[np.uint8]], tuple[int, int]]
_DECODERS: Final[dict[Encoding, _Decoder]] = {
    Encoding.JPEG: _jpeg,
    Encoding.PNG: _png,
    Encoding.RAW: _raw,
}


def _expect_magic(payload: bytes | bytearray, magic: bytes, name: str) -> None:
    if not payload.startswith(magic):
        found = bytes(payload[:8]).hex(" ") or "nothing"
        raise DecodeError(
            f"payload of {len(payload)} bytes is not {name}: it begins with {found}; "
            "set the MQTT content type to what the camera sends"
        )


def _expect_fitting(width: int, height: int, image: ImagePlan) -> None:
    if not (0 < width <= image.max_width and 0 < height <= image.max_height):
        raise DecodeError(
            f"image of {width}x{height} pixels; the pipeline takes up to "
            f"{image.max_width}x{image.max_height}"
        )


def _expect_few_scans(payload: bytes | bytearray) -> None:
    """Refuse an image that is sent over and over; its markers are followed up to the first scan.

    An image whose first scan has all of it ends there. Of all others the scans are counted: in a
    scan's data no marker can stand (ITU-T T.81, F.1.2.3), and a segment has one by rare chance.
    """
    at, parts, sequential = 2, 0, False
    while payload[at : at + 1] == b"\xff" and at + 10 <= len(payload):
        kind = payload[at + 1]
        if kind in _FRAME_HEADERS:
            parts, sequential = payload[at + 9], kind in _SEQUENTIAL
        elif kind == _SCAN[1]:
            if sequential and payload[at + 4] == parts:
                return
            break
        at += 2 + (payload[at + 2] << 8 | payload[at + 3])
    scans = payload.count(_SCAN)
    if scans > MAX_SCANS:
        raise DecodeError(f"JPEG of {scans} scans; at most {MAX_SCANS} are decoded")


def bare_png(payload: bytes | bytearray) -> tuple[tuple[int, int], bytes | bytearray]:
    """Check every chunk's bounds and CRC (PNG 1.2, section 3), and leave out what stands besides.

    OpenCV fills the rest of a truncated image with whatever it likes; a half-seen part must not
    be judged. And it unpacks every text, and what stands behind the last pixel (2.3 ms for each
    KB). How much that is, only unpacking tells, which costs half of a decode. So what is refused
    here is what can be no image; the rest ends where a worker that hangs is replaced.

    Returns:
        Width and height in pixels, and the image: the payload itself where nothing was left out.

    Raises:
        DecodeError: The PNG is not whole.
    """
    view = memoryview(payload)
    at = len(_PNG_MAGIC)
    size: tuple[int, int] | None = None
    kept, kept_to = [], 0
    packed_bytes = most_bytes = 0
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(view):
            raise DecodeError(f"PNG of {len(view)} bytes is truncated: its end chunk is missing")
        length, name = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if end > len(view):
            raise DecodeError(f"PNG ends inside its {name!r} chunk at byte {at}")
        (crc,) = struct.unpack_from(">I", view, end - 4)
        if zlib.crc32(view[at + 4 : end - 4]) != crc:
            raise DecodeError(f"PNG chunk {name!r} at byte {at} fails its checksum")
        if size is None:
            if name != b"IHDR" or length != _PNG_HEADER_BYTES:
                raise DecodeError("PNG does not begin with its header chunk")
            size = struct.unpack_from(">II", view, at + 8)
            most_bytes = _most_packed(*struct.unpack_from(">IIBB", view, at + 8))
        if name == b"IDAT":
            packed_bytes += length
            if packed_bytes > most_bytes:
                raise DecodeError(
                    f"PNG of {size[0]}x{size[1]} pixels needs no more than {most_bytes} bytes for "
                    f"them, and has more"
                )
        if name in _PNG_BESIDES:
            kept.append(view[kept_to:at])
            kept_to = end
        at = end
        if name == b"IEND":
            return size, b"".join([*kept, view[kept_to:at]]) if kept else payload
    raise DecodeError(f"PNG of more than {MAX_CHUNKS} chunks")


def _most_packed(width: int, height: int, depth: int, colour: int) -> int:
    """Return twice the bytes of an image's rows: deflate makes nothing so much larger."""
    bits = min(depth, _PNG_DEPTH) * _PNG_CHANNELS.get(colour, 1)
    return 2 * height * (1 + (width * bits + 7) // 8) + _PNG_SLACK_BYTES


def shaped(
    flat: npt.NDArray[np.uint8], width: int, height: int, pixel_format: PixelFormat
) -> npt.NDArray[np.uint8]:
    """Return the view of the image that lies, rows without gaps, at the start of `flat`."""
    channels = pixel_format.channels
    shape = (height, width) if channels == 1 else (height, width, channels)
    return flat[: width * height * channels].reshape(shape)
