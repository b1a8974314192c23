"""Verdicts already given, by frame id: a frame that comes again gets the verdict that it had."""

from collections import OrderedDict


class Remembered:
    """The last verdicts in their published form, bounded by number; the oldest is forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._verdicts: OrderedDict[str, bytes] = OrderedDict()

    def find(self, frame_id: str) -> bytes | None:
        """Return the verdict's JSON as it was published, or None."""
        return self._verdicts.get(frame_id)

    def keep(self, frame_id: str, verdict: bytes) -> None:
        """Keep a verdict; the frame id must be new."""
        self._verdicts[frame_id] = verdict
        if len(self._verdicts) > self._capacity:
            self._verdicts.popitem(last=False)
