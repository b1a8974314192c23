"""Who receives what, and what the broker is still owed an acknowledgement for."""

from collections.abc import Callable

import msgspec
import structlog

from edge.mqtt.counting import is_milestone
from edge.mqtt.messages import Incoming
from edge.mqtt.topics import matches

_log = structlog.get_logger("edge.mqtt")


class Route(msgspec.Struct, frozen=True):
    """A subscription: a filter, and who receives what it takes."""

    topic_filter: str
    qos: int
    receive: Callable[[Incoming], None]


class Inbox:
    """Hands messages to receivers, and counts the acknowledgements that each message needs.

    A message that nobody takes is acknowledged here: else it would occupy the broker's window for
    ever. So is one whose receiver raised.

    Args:
        max_bytes: A larger payload is dropped. MQTT 5 brokers hold it back; 3.1.1 has no word for
            that, and the packet has then been read whole (at most 256 MiB, MQTT's own limit).
        counters: Where it counts.
        acknowledge: Sends the acknowledgement of a packet id, on the current connection.
    """

    def __init__(
        self, max_bytes: int, counters: dict[str, int], acknowledge: Callable[[int], None]
    ) -> None:
        self._max_bytes = max_bytes
        self._counters = counters
        self._acknowledge = acknowledge
        self._owed: dict[int, int] = {}
        self._connection = 0
        self.routes: list[Route] = []

    @property
    def unacknowledged(self) -> int:
        """QoS 1 messages of this connection that are not acknowledged yet."""
        return len(self._owed)

    def begin(self, connection: int) -> None:
        """A new connection: the broker sends again whatever is unacknowledged."""
        self._connection = connection
        self._owed.clear()

    def wanted(self) -> dict[str, int]:
        """Return the filters to subscribe to, each once, at the highest QoS that is wished."""
        filters: dict[str, int] = {}
        for route in self.routes:
            filters[route.topic_filter] = max(route.qos, filters.get(route.topic_filter, 0))
        return filters

    def take(self, message: Incoming) -> None:
        """Hand a message to each receiver whose filter takes it."""
        self._counters["received"] += 1
        self._counters["received_bytes"] += len(message.payload)
        self._counters["duplicates"] += message.duplicate
        takers = self._takers(message)
        if message.qos:
            # One more than the receivers: ours, given last, so that it leaves after all of them.
            self._owed[message.receipt.mid] = len(takers) + 1
        for route in takers:
            owed = self._owed.get(message.receipt.mid)
            try:
                route.receive(message)
            except Exception as broken:  # noqa: BLE001 - a receiver's bug stays its own
                self._counters["receiver_errors"] += 1
                if is_milestone(count := self._counters["receiver_errors"]):
                    _log.error(
                        "mqtt-receiver-broken", topic=message.topic, count=count, exc_info=broken
                    )
                if self._owed.get(message.receipt.mid) == owed:
                    self.acknowledge(message)
        self.acknowledge(message)

    def acknowledge(self, message: Incoming) -> None:
        """Count one acknowledgement; the last one that is owed goes to the broker."""
        if message.qos == 0:
            return
        mid = message.receipt.mid
        if message.receipt.connection != self._connection or mid not in self._owed:
            self._counters["stale_acknowledgements"] += 1
            return
        self._owed[mid] -= 1
        if self._owed[mid] == 0:
            del self._owed[mid]
            self._counters["acknowledged"] += 1
            self._acknowledge(mid)

    def _takers(self, message: Incoming) -> list[Route]:
        if len(message.payload) > self._max_bytes:
            self._dropped("too_large", message)
            return []
        takers = [route for route in self.routes if matches(route.topic_filter, message.topic)]
        if not takers:  # the broker's session may remember filters of an earlier configuration
            self._dropped("unrouted", message)
        return takers

    def _dropped(self, why: str, message: Incoming) -> None:
        self._counters[why] += 1
        if is_milestone(count := self._counters[why]):
            size = len(message.payload)
            _log.warning(
                "mqtt-dropped", why=why, topic=message.topic, payload_bytes=size, count=count
            )
