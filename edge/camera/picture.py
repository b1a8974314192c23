"""A picture, and what a source of pictures is: the words that this room shares."""

from dataclasses import dataclass
from typing import Final, Protocol

MAX_ID_CHARS: Final = 128
"""Of a part's, frame's or reference's id; the daemon takes no longer one."""


@dataclass(frozen=True)
class Picture:
    """One encoded picture.

    Attributes:
        captured_at_ns: UTC.
        part_id: The name of its file, without suffix, or what its bridge says; empty: unknown.
        frame_id: What its bridge says; empty: it is numbered here.
        reference_id: What its bridge says; empty: that of the run.
    """

    image: bytes
    content_type: str
    captured_at_ns: int
    part_id: str = ""
    frame_id: str = ""
    reference_id: str = ""


class Source(Protocol):
    """Something that yields pictures, opened before the first and again after each failure.

    Attributes:
        title: For people; without passwords.
        is_live: Whether it runs on while nobody reads, so that only its newest picture counts.
        can_reopen: Whether it can be opened again after it was lost.
    """

    title: str
    is_live: bool
    can_reopen: bool

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

    def interrupt(self) -> None:
        """End a read that may wait without limit; from any thread."""

    def close(self) -> None:
        """Let go of it; may be called twice."""
