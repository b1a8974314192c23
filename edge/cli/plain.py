"""Text from outside, as a terminal may have it: bounded, without control characters or markup."""

from typing import Final

from rich.markup import escape

MAX_TEXT: Final = 300


def plain(text: str, longest: int = MAX_TEXT) -> str:
    """Return text as rich may print it: what it says steers neither rich nor the terminal."""
    cut = text[:longest]
    return escape(cut if cut.isprintable() else ascii(cut)[1:-1])
