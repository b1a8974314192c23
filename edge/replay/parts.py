"""What is played: parts with their picture, their reference and, where known, their truth.

Values only; pictures are made when they are needed, not before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

JPEG: Final = "image/jpeg"
PNG: Final = "image/png"


@dataclass(frozen=True)
class Payload:
    """An encoded picture and its content type."""

    image: bytes
    content_type: str = JPEG


@dataclass(frozen=True)
class TrueBox:
    """A real defect: its class, and x0, y0, x1, y1 in pixels, half-open."""

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """What is known of a part.

    Attributes:
        is_good: Whether it should pass.
        boxes: Its defects; None where they are not known one by one.
        label: What kind of defect it has as a whole; empty where that is not known.
    """

    is_good: bool
    boxes: tuple[TrueBox, ...] | None = None
    label: str = ""


@dataclass(frozen=True)
class ReplayPart:
    """A part to be played.

    Attributes:
        part_id: Unique in its playlist, unless several frames show one part.
        truth: None where nothing is known.
        picture: Makes the picture, the same at each call; called off the event loop.
        reference_id: Of the reference image that it is compared with; empty: none.
        series: Of a time lapse: what it is a series of, whose frames come in order of time.
        grouped: Whether it is one of several frames of the part.
    """

    part_id: str
    truth: Truth | None
    picture: Callable[[], Payload]
    reference_id: str = ""
    series: str = ""
    grouped: bool = False


@dataclass(frozen=True)
class Playlist:
    """Parts in their order, and the reference images that they need, by reference id."""

    title: str
    parts: Sequence[ReplayPart]
    references: Mapping[str, Callable[[], Payload]] = field(default_factory=dict)
