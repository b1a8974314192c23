"""Publications on their way: waiting, or sent and not yet answered. Pure, and bounded.

It outlives connections: what a lost one left unanswered is sent again, first and in order, on the
next. Rule of overflow: a new publication is refused when `limit` are on their way.

Those that are `bulk` give way: all others go before them, and have half of the window and half of
the room to themselves. However much there is to catch up on, and however far the broker is, a
verdict waits for none of it.
"""

from collections import deque

from edge.mqtt.hang_ups import HangUps
from edge.mqtt.messages import Outgoing


class OutgoingQueue:
    """Publications between `Session.publish` and the broker's answer.

    Args:
        limit: The most publications on their way, waiting and in flight together.
        hang_ups: Told of each end, and judges whether one is given up for it.

    Attributes:
        window: The most QoS 1 publications in flight; the broker says it at each connect.
    """

    def __init__(self, limit: int, hang_ups: HangUps) -> None:
        self._limit = limit
        self._hang_ups = hang_ups
        self._waiting: deque[Outgoing] = deque()
        self._bulk: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._bulk_in_flight = 0
        self.window = 1

    def __len__(self) -> int:
        """Return how many are on their way."""
        return len(self._waiting) + len(self._bulk) + len(self._in_flight)

    def add(self, publication: Outgoing) -> bool:
        """Take a publication to be sent; False where there is no room for it."""
        if len(self) >= (self._limit // 2 if publication.bulk else self._limit):
            return False
        self._queue_of(publication).append(publication)
        return True

    def peek(self) -> Outgoing | None:
        """Return the publication to be sent next; None where none waits or the window is full."""
        if len(self._in_flight) >= self.window:
            return None
        if self._waiting:
            return self._waiting[0]
        if self._bulk and self._bulk_in_flight < max(1, self.window // 2):
            return self._bulk[0]
        return None

    def sent(self, publication: Outgoing, mid: int) -> None:
        """The publication that `peek` returned is in flight, under this packet id."""
        self.discard(publication)
        self._in_flight[mid] = publication
        self._bulk_in_flight += publication.bulk

    def discard(self, publication: Outgoing) -> None:
        """Take away the publication that `peek` returned."""
        taken = self._queue_of(publication).popleft()
        assert taken is publication, "only what peek returned is taken away"

    def answered(self, mid: int) -> Outgoing | None:
        """The broker has answered; return the publication, None where the id is unknown."""
        publication = self._in_flight.pop(mid, None)
        if publication is not None:
            self._bulk_in_flight -= publication.bulk
        return publication

    def disconnected(self) -> tuple[list[Outgoing], Outgoing | None]:
        """Line up again what is unanswered.

        Returns:
            The QoS 0 ones, which are lost, and the one that is given up, if any.
        """
        unanswered = list(self._in_flight.values())
        self._in_flight.clear()
        self._bulk_in_flight = 0
        condemned = self._hang_ups.ended(next((sent for sent in unanswered if sent.qos), None))
        again = [*unanswered, *self._waiting, *self._bulk]
        self._waiting.clear()
        self._bulk.clear()
        for kept in again:
            if kept.qos and kept is not condemned:
                self._queue_of(kept).append(kept)
        return [lost for lost in again if not lost.qos], condemned

    def _queue_of(self, publication: Outgoing) -> deque[Outgoing]:
        return self._bulk if publication.bulk else self._waiting
