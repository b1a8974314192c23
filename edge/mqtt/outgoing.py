"""Publications on their way: waiting, or sent and not yet answered. Pure, and bounded.

It outlives connections: what a lost one left unanswered is sent again, first and in order, on the
next. Rule of overflow: a new publication is refused when `limit` are on their way.
"""

from collections import deque

from edge.mqtt.messages import Outgoing


class OutgoingQueue:
    """Publications between `Session.publish` and the broker's answer.

    Args:
        limit: The most publications on their way, waiting and in flight together.

    Attributes:
        window: The most QoS 1 publications in flight; the broker says it at each connect.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self.window = 1

    def __len__(self) -> int:
        """Return how many are on their way."""
        return len(self._waiting) + len(self._in_flight)

    def add(self, publication: Outgoing) -> bool:
        """Take a publication to be sent; False where there is no room for it."""
        if len(self) >= self._limit:
            return False
        self._waiting.append(publication)
        return True

    def peek(self) -> Outgoing | None:
        """Return the publication to be sent next; None where none waits or the window is full."""
        if not self._waiting or len(self._in_flight) >= self.window:
            return None
        return self._waiting[0]

    def sent(self, mid: int) -> None:
        """The publication that `peek` returned is in flight, under this packet id."""
        self._in_flight[mid] = self._waiting.popleft()

    def discard(self) -> Outgoing:
        """Take away the publication that `peek` returned: it will never be sent."""
        return self._waiting.popleft()

    def answered(self, mid: int) -> Outgoing | None:
        """The broker has answered; return the publication, None where the id is unknown."""
        return self._in_flight.pop(mid, None)

    def disconnected(self) -> list[Outgoing]:
        """Line up again what is unanswered; return the QoS 0 ones, which are lost."""
        unanswered = list(self._in_flight.values())
        self._in_flight.clear()
        lost = [*unanswered, *self._waiting]
        self._waiting = deque(publication for publication in lost if publication.qos)
        return [publication for publication in lost if not publication.qos]
