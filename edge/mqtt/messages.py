"""What comes in, what goes out, and what the broker says when we vanish. Plain values."""

from collections.abc import Callable
from typing import Final

import msgspec

from edge.mqtt.topics import topic_problem

MAX_STRING_BYTES: Final = 65_535  # MQTT 5, 1.5.4 and 1.5.6


class Receipt(msgspec.Struct, frozen=True):
    """Names a received message to the connection that brought it; opaque to everyone else."""

    mid: int
    connection: int


class Incoming(msgspec.Struct, frozen=True):
    """A message from the broker.

    Attributes:
        retain: It was kept by the broker, and is not news.
        duplicate: The broker has sent it before and got no acknowledgement.
        content_type: MQTT 5 only, as are the three below; None where absent.
        response_topic: Where an answer is wished; a topic that can be published to, or None.
        properties: User properties; of a name that occurs twice, the first value.
        arrived_ns: CLOCK_MONOTONIC, when the packet had been read whole.
        arrived_at_ns: UTC, at the same instant.
        waited_ns: How long at the most it had waited for us to read it, where the session has a
            pace.
        receipt: Owned by the session.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None
    properties: dict[str, str]
    arrived_ns: int
    arrived_at_ns: int
    receipt: Receipt
    waited_ns: int = 0


class Will(msgspec.Struct, frozen=True):
    """What the broker publishes for us, at QoS 1, when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = True


class Outgoing(msgspec.Struct, frozen=True):
    """A publication. Properties are left out on MQTT 3.1.1, which has none.

    Attributes:
        bulk: It gives way to all that are not, and leaves half of the window to them.
        on_done: Called once: True when the broker has it (QoS 0: when the kernel has it), False
            when it was refused or, at QoS 0, lost with the connection.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str | None = None
    correlation: bytes | None = None
    properties: dict[str, str] = {}
    on_done: Callable[[bool], None] | None = None
    bulk: bool = False

    def packet_bytes(self) -> int:
        """Return an upper bound of the PUBLISH packet's size."""
        texts = sum(len(k.encode()) + len(v.encode()) + 5 for k, v in self.properties.items())
        content_type = len((self.content_type or "").encode()) + 3
        correlation = len(self.correlation or b"") + 3
        # Fixed header 5, topic length 2, packet id 2, property length 4.
        return (
            13 + len(self.topic.encode()) + texts + content_type + correlation + len(self.payload)
        )

    def problem(self) -> str:
        """Say why no broker could take it; empty where one could."""
        if self.qos not in (0, 1):
            return f"QoS {self.qos} is not used here; 0 and 1 are"
        if problem := topic_problem(self.topic):
            return problem
        texts = [self.content_type or "", *self.properties, *self.properties.values()]
        for text in texts:
            try:
                too_long = len(text.encode()) > MAX_STRING_BYTES
            except UnicodeEncodeError:
                return f"property {text[:40]!r} is not Unicode"
            if too_long or "\x00" in text:
                return f"property {text[:40]!r} is too long or contains NUL"
        if len(self.correlation or b"") > MAX_STRING_BYTES:
            return "the correlation data is too long"
        return ""
