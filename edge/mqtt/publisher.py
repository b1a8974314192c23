"""Sends publications over whatever connection there is, and tells their fate to whoever asked."""

import time
from collections import Counter
from typing import Final

import structlog

from edge.mqtt.callbacks import call
from edge.mqtt.connection import Connection
from edge.mqtt.counting import is_milestone
from edge.mqtt.events import Opened
from edge.mqtt.hang_ups import HangUps
from edge.mqtt.messages import Outgoing
from edge.mqtt.outgoing import OutgoingQueue

MAX_TOPICS: Final = 64
"""Topics whose refusals are counted apart, for the log; beyond these all are counted anew."""
_TOO_LARGE: Final = "raise the broker's limit (Mosquitto: max_packet_size, message_size_limit)"
_DENIED: Final = "grant the topic in the broker's access list"
_EITHER: Final = f"{_TOO_LARGE}, or {_DENIED}"

_log = structlog.get_logger("edge.mqtt")


class Publisher:
    """The outgoing half of a session, as the inbox is the incoming one.

    Args:
        limit: The most publications on their way; one more is refused.
        counters: Where it counts.

    Attributes:
        unheard: Publications that the broker took, and that nobody subscribes to, as far as it
            says so.
    """

    def __init__(self, limit: int, counters: dict[str, int]) -> None:
        self._hang_ups = HangUps(time.monotonic)
        self._queue = OutgoingQueue(limit, self._hang_ups)
        self._refusals: Counter[str] = Counter()  # by topic
        self._counters = counters
        self._connection: Connection | None = None
        self._max_packet_bytes = 0
        self._pumping = False
        self.unheard = 0

    def __len__(self) -> int:
        """Return how many publications the broker has not answered yet."""
        return len(self._queue)

    def begin(self, connection: Connection, opened: Opened) -> None:
        """Send over this connection from now on, and what has waited for it at once."""
        self._connection = connection
        self._max_packet_bytes = opened.max_packet_bytes
        self._queue.window = opened.window
        self._pump()

    def end(self) -> None:
        """The connection is gone: what it left unanswered goes first over the next one."""
        self._connection = None
        lost, condemned = self._queue.disconnected()
        for publication in lost:
            self._counters["publish_dropped"] += 1
            self._done(publication, accepted=False)
        if condemned is not None:
            self._refused(condemned, "the broker hung up each time it was sent", _EITHER)

    def publish(self, publication: Outgoing) -> bool:
        """Send a publication, or queue it; False where there is no room, or QoS 0 offline."""
        if publication.qos == 0 and self._connection is None:
            return False
        if not self._queue.add(publication):
            return False
        self._pump()
        return True

    def answered(self, mid: int, refusal: str, *, unheard: bool = False) -> None:
        """The broker has answered; an empty refusal is an acceptance."""
        publication = self._queue.answered(mid)
        if publication is None:
            return
        if refusal:
            too_large = refusal == "Packet too large"
            self._refused(publication, refusal, _TOO_LARGE if too_large else _DENIED)
        else:
            self._hang_ups.taken(publication)
            self.unheard += unheard
            self._counters["published"] += 1
            self._counters["published_bytes"] += len(publication.payload)
            self._done(publication, accepted=True)
        self._pump()

    def _pump(self) -> None:
        # Not re-entrant: what is asked for meanwhile, the outer call sends.
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._connection is not None and (publication := self._queue.peek()) is not None:
                if not self._send(self._connection, publication):
                    return
        finally:
            self._pumping = False

    def _send(self, connection: Connection, publication: Outgoing) -> bool:
        if 0 < self._max_packet_bytes < publication.packet_bytes():
            self._queue.discard(publication)
            why = f"the broker takes packets of {self._max_packet_bytes} bytes at most"
            self._refused(publication, why, _TOO_LARGE)
            return True
        if self._hang_ups.refuses(publication):
            self._queue.discard(publication)
            self._refused(publication, "the broker hung up on one as large before", _EITHER)
            return True
        mid = connection.publish(publication)
        if mid is None:  # the socket has just gone: it leaves on the next one
            return False
        self._queue.sent(publication, mid)
        connection.flush()
        return True

    def _refused(self, publication: Outgoing, reason: str, remedy: str) -> None:
        self._counters["publish_refused"] += 1
        topic = publication.topic
        if topic not in self._refusals and len(self._refusals) >= MAX_TOPICS:
            self._refusals.clear()
        self._refusals[topic] += 1
        if is_milestone(count := self._refusals[topic]):
            _log.warning(
                "mqtt-publish-refused",
                topic=topic,
                packet_bytes=publication.packet_bytes(),
                reason=reason,
                remedy=remedy,
                count=count,
            )
        self._done(publication, accepted=False)

    def _done(self, publication: Outgoing, *, accepted: bool) -> None:
        if publication.on_done is not None:
            call(self._counters, "on_done", publication.on_done, accepted)
