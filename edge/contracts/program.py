"""What a wasi-nn program finds on standard input, and answers on standard output.

Standard input holds the frame as a binary portable anymap: `P5` for GRAY8, `P6` for RGB, 8 bits a
channel; where the pipeline has a reference, that follows as a second picture of the kind. Standard
output takes one `ProgramAnswer` as JSON, at most 64 KiB. `guests/PROGRAMS.md` explains it.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge.contracts.abi import MAX_DEFECTS
from edge.contracts.frame import PixelFormat

MAGIC: Final = {PixelFormat.GRAY8: "P5", PixelFormat.RGB: "P6"}
"""Formats in which a program can be handed a frame."""


class ProgramDefect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One finding.

    Attributes:
        label: Index into the model card's classes.
        score: 0..1.
        box: x0, y0, x1, y1 in pixels of the frame, half-open; it is clipped to the frame.
    """

    label: Annotated[int, Meta(ge=0, lt=2**31)]
    score: Annotated[float, Meta(ge=0, le=1)]
    box: tuple[float, float, float, float]


class ProgramAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All findings of one frame, in any order; none: an empty list."""

    defects: Annotated[list[ProgramDefect], Meta(max_length=MAX_DEFECTS)]


def header(pixel_format: PixelFormat, width: int, height: int) -> bytes:
    """What stands before the pixels."""
    return f"{MAGIC[pixel_format]}\n{width} {height}\n255\n".encode()
