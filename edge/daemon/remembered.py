"""Verdicts already given, by frame id: a frame that comes again gets the verdict that it had."""

from collections import OrderedDict
from typing import Final

import msgspec

MAX_BYTES: Final = 64 << 20
"""Verdicts of ordinary size have 600 bytes; with 300 defects, 30 KiB."""


class Given(msgspec.Struct, frozen=True):
    """A verdict as it was published.

    Attributes:
        verdict: Its JSON.
        fingerprint: Of the frame's bytes (`Frame.fingerprint`): another one under the same id means
            a camera that counts anew.
    """

    verdict: bytes
    fingerprint: int


def refusal_key(frame_id: str, fingerprint: int) -> str:
    """Return under which key a refusal of other pixels is kept; no frame id has a line break."""
    return f"{frame_id}\n{fingerprint:x}"


class Remembered:
    """The last verdicts, bounded by number and by bytes; the oldest is forgotten.

    Args:
        capacity: The most frames remembered.
        max_bytes: The most bytes of JSON.
    """

    def __init__(self, capacity: int, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._given: OrderedDict[str, Given] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._given)

    def find(self, frame_id: str) -> Given | None:
        """Return what the frame was given, or None."""
        return self._given.get(frame_id)

    def keep(self, frame_id: str, given: Given) -> None:
        """Keep a verdict; it takes the place of one that was kept by the same id."""
        replaced = self._given.pop(frame_id, None)
        if replaced is not None:
            self.bytes -= len(replaced.verdict)
        self._given[frame_id] = given
        self.bytes += len(given.verdict)
        while len(self._given) > self._capacity or self.bytes > self._max_bytes:
            _, forgotten = self._given.popitem(last=False)
            self.bytes -= len(forgotten.verdict)
