"""What the broker answers by hanging up: publications that it cannot bear. Pure, and bounded.

MQTT 3.1.1 has no other answer to one that is too large, or not allowed. It would be sent first on
each new connection, for ever, and nothing behind it would leave. Rules:

1. What was the oldest unanswered publication at `STRIKES` ends in a row is given up.
2. From then on its topic takes nothing that is nearly as large (`NEARLY`), for `FIRST_S`: the next
   status, or the same record again, would begin it anew. Each time that it happens again this
   doubles, up to `LAST_S`: what is left is a short loss of the connection now and then, and a
   broker that was mended is found.
3. On that topic, and on others for what is as large, `NEXT_STRIKES` are enough from then on.
4. One that is as large and is taken wipes its topic's slate. A network that flaps can condemn an
   innocent one, and that must not last.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from edge.mqtt.messages import Outgoing

STRIKES: Final = 5
NEXT_STRIKES: Final = 2
NEARLY: Final = 0.75
"""A status differs from the next by some bytes; steps of a quarter find the limit in a few."""
FIRST_S: Final = 60.0
LAST_S: Final = 3_600.0
MAX_TOPICS: Final = 64
"""Beyond these the topic that was condemned first is forgotten."""


class _Condemned(msgspec.Struct):
    """A topic's smallest publication that was given up, and what is not sent for it until when."""

    packet_bytes: int
    refused_from_bytes: int
    until_s: float
    for_s: float


class HangUps:
    """Ends of connections, and whom they are laid to.

    Args:
        now_s: The monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._suspect: Outgoing | None = None
        self._strikes = 0
        self._condemned: dict[str, _Condemned] = {}

    def ended(self, oldest: Outgoing | None) -> Outgoing | None:
        """A connection ended.

        Args:
            oldest: The oldest publication that was not answered; an end before anything was sent
                says nothing.

        Returns:
            The publication that is given up, if any.
        """
        if oldest is None:
            return None
        self._strikes = self._strikes + 1 if oldest is self._suspect else 1
        self._suspect = oldest
        size = oldest.packet_bytes()
        known = oldest.topic in self._condemned or any(
            each.packet_bytes <= size for each in self._condemned.values()
        )
        if self._strikes < (NEXT_STRIKES if known else STRIKES):
            return None
        self._suspect, self._strikes = None, 0
        self._condemn(oldest.topic, size)
        return oldest

    def refuses(self, publication: Outgoing) -> bool:
        """Whether the broker hung up on one like this, and not long ago."""
        known = self._condemned.get(publication.topic)
        return (
            known is not None
            and publication.packet_bytes() >= known.refused_from_bytes
            and self._now_s() < known.until_s
        )

    def taken(self, publication: Outgoing) -> None:
        """The broker has taken a publication."""
        known = self._condemned.get(publication.topic)
        if known is None:
            return
        size = publication.packet_bytes()
        if size >= known.packet_bytes:
            del self._condemned[publication.topic]
        else:
            known.refused_from_bytes = max(known.refused_from_bytes, size + 1)

    def _condemn(self, topic: str, size: int) -> None:
        for_s = FIRST_S
        before = self._condemned.pop(topic, None)
        if before is not None:
            size = min(size, before.packet_bytes)
            for_s = min(2 * before.for_s, LAST_S)
        until_s = self._now_s() + for_s
        self._condemned[topic] = _Condemned(size, int(NEARLY * size), until_s, for_s)
        if len(self._condemned) > MAX_TOPICS:
            del self._condemned[next(iter(self._condemned))]
