"""The other end of the records: what a collector hears, held to the chain."""

import json

from daemons import Line

from edge.ledger.record import GENESIS, next_head
from edge.mqtt.messages import Incoming


class Cloud:
    """Collects records on a line's session, and receipts them when asked.

    Attributes:
        bodies: By place.
        order: Places in the order in which they came, repetitions too.
    """

    def __init__(self, line: Line) -> None:
        self.bodies: dict[int, bytes] = {}
        self.order: list[int] = []
        self._session = line.session
        line.session.subscribe("edge/box1/records", 1, self._take)

    def _take(self, message: Incoming) -> None:
        record = json.loads(message.payload)
        assert self.bodies.setdefault(record["seq"], message.payload) == message.payload
        self.order.append(record["seq"])
        self._session.acknowledge(message)

    def head(self, seq: int) -> bytes:
        """The chain's head at a place, computed from what came."""
        head = GENESIS
        for number in range(1, seq + 1):
            assert json.loads(self.bodies[number])["prev"] == head.hex()
            head = next_head(head, self.bodies[number])
        return head

    def receipt(self, seq: int, head: bytes) -> None:
        """Say that all up to a place is held."""
        body = json.dumps({"seq": seq, "head": head.hex()}).encode()
        self._session.publish("edge/box1/receipts", body)
