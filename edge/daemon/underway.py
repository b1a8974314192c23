"""Frames on their way, by id: owed one verdict, and no other frame comes in under their id.

One for each pipeline, whoever judges its frames: the active worker, or a canary's beside it.
"""

import asyncio
import itertools

from edge.daemon.intake import Frame


class Underway:
    """The frames of one pipeline that have no verdict yet."""

    def __init__(self) -> None:
        self._frames: dict[str, tuple[int, list[Frame]]] = {}
        self._tickets = itertools.count()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._frames)

    def fingerprint(self, frame_id: str) -> int | None:
        """Of the frame that is under way by this id; None: none is."""
        found = self._frames.get(frame_id)
        return found[0] if found else None

    def ticket(self) -> int:
        """A number that names one way of one frame to a worker, and that no other has."""
        return next(self._tickets)

    def begin(self, frame: Frame) -> None:
        """A frame is owed its verdict from here on; none is under way by its id."""
        self._frames[frame.frame_id] = (frame.fingerprint, [])
        self._idle.clear()

    def share(self, again: Frame) -> None:
        """A frame that is under way came again: one verdict serves both."""
        self._frames[again.frame_id][1].append(again)

    def end(self, frame_id: str) -> list[Frame]:
        """A frame has its verdict; return those that came again meanwhile."""
        _, repeats = self._frames.pop(frame_id)
        if not self._frames:
            self._idle.set()
        return repeats

    async def idle(self) -> None:
        """Return when none is under way."""
        await self._idle.wait()
