"""Kept frames as a browser shows them: JPEG and PNG as they are, raw pixels as PNG. Pure."""

import struct
import zlib
from typing import Final, NamedTuple

from edge.contracts.frame import ContentType, Encoding, PixelFormat, parse_content_type
from edge.errors import DecodeError

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2  # PNG 1.2, 4.1.1: colour types
_QUICK: Final = 1
"""zlib's level: the picture crosses a network of the plant once."""


class Picture(NamedTuple):
    """Bytes for a browser, and what they are."""

    content: bytes
    media_type: str


def picture(content: bytes, content_type: str) -> Picture | None:
    """Return a kept frame as a browser can show it.

    A Bayer mosaic is shown as it lies, in grey.

    Args:
        content: The frame's bytes.
        content_type: As recorded; it came from outside, and is never handed on as it is.

    Returns:
        None where the bytes are not as many as their type says.
    """
    try:
        kind = parse_content_type(content_type)
    except DecodeError:
        return None
    if kind.encoding is Encoding.RAW:
        return _png(content, kind)
    return Picture(content, kind.encoding.value)


def _png(pixels: bytes, kind: ContentType) -> Picture | None:
    channels = kind.pixel_format.channels if kind.pixel_format else 1
    if len(pixels) != kind.width * kind.height * channels:
        return None
    if kind.pixel_format is PixelFormat.BGR:
        swapped = bytearray(pixels)
        swapped[0::3], swapped[2::3] = pixels[2::3], pixels[0::3]
        pixels = bytes(swapped)
    stride = kind.width * channels
    # Each row begins with its filter: none.
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))
    colour = _COLOUR if channels > 1 else _GREY
    header = struct.pack(">IIBBBBB", kind.width, kind.height, 8, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows, _QUICK)), (b"IEND", b"")
    return Picture(_SIGNATURE + b"".join(_chunk(*each) for each in chunks), Encoding.PNG.value)


def _chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
