"""Frames: one unit of camera input, and how its bytes are to be read.

The MQTT content types are parsed here, by rule; no pixel is touched.
"""

import re
import zlib
from enum import StrEnum
from typing import Final

import msgspec

from edge.errors import DecodeError


class PixelFormat(StrEnum):
    """Pixel layouts, by GStreamer's names. Channels are interleaved, 8 bits each."""

    GRAY8 = "GRAY8"
    BGR = "BGR"
    RGB = "RGB"
    BAYER_RG8 = "BayerRG8"

    @property
    def channels(self) -> int:
        """Bytes a pixel."""
        return 3 if self in (PixelFormat.BGR, PixelFormat.RGB) else 1


class Encoding(StrEnum):
    """How a payload carries its pixels."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    RAW = "image/x-raw"


class ContentType(msgspec.Struct, frozen=True):
    """A parsed MQTT content type.

    Attributes:
        encoding: JPEG, PNG or raw.
        pixel_format: Of raw payloads; `None` where the payload's own header says it.
        width: Pixels, raw payloads only, else 0.
        height: Pixels, raw payloads only, else 0.
    """

    encoding: Encoding = Encoding.JPEG
    pixel_format: PixelFormat | None = None
    width: int = 0
    height: int = 0

    def __str__(self) -> str:
        """As MQTT says it; `parse_content_type` reads it back."""
        if self.pixel_format is None:
            return self.encoding.value
        size = f"width={self.width};height={self.height}"
        return f"{self.encoding.value};format={self.pixel_format.value};{size}"


MAX_SIDE_PX: Final = 65_535  # the most that JPEG can say (ITU-T T.81, B.2.2)
_PARAMETER = re.compile(r"\s*([a-z]+)\s*=\s*\"?([A-Za-z0-9]+)\"?\s*")


def parse_content_type(text: str | None) -> ContentType:
    """Read an MQTT content type; absent or empty means JPEG.

    Raises:
        DecodeError: The type is not one of the contract's, or its parameters are not whole.
    """
    if not text:
        return ContentType()
    name, *parameters = text.split(";")
    try:
        encoding = Encoding(name.strip().lower())
    except ValueError:
        raise DecodeError(
            f"content type {text[:80]!r} is none of {', '.join(e.value for e in Encoding)}"
        ) from None
    if encoding is not Encoding.RAW:
        return ContentType(encoding)
    found: dict[str, str] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None:
            raise DecodeError(
                f"content type parameter {parameter[:40]!r} is not of the form key=value"
            )
        found[match[1]] = match[2]
    try:
        pixel_format = PixelFormat(found["format"])
        width, height = int(found["width"]), int(found["height"])
    except KeyError as missing:
        raise DecodeError(
            f"raw frames need format, width and height: {missing} is missing"
        ) from None
    except ValueError as wrong:
        raise DecodeError(f"content type {text[:80]!r}: {wrong}") from None
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise DecodeError(f"raw frame of {width}x{height}: sides must lie in 1..{MAX_SIDE_PX}")
    return ContentType(encoding, pixel_format, width, height)


def part_number(part_id: str) -> int:
    """Say in 32 bits which part a frame shows, so that a policy can tell parts apart.

    CRC-32 (ISO-HDLC): ids of equal length that differ within four bytes, such as serial numbers
    that count, never get the same number.

    Returns:
        1..2**32 - 1; 0 where there is no part id.
    """
    return (zlib.crc32(part_id.encode()) or 1) if part_id else 0
