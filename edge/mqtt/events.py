"""What a connection reports, as values: the session decides what follows from them."""

import msgspec

from edge.mqtt.messages import Incoming


class Opened(msgspec.Struct, frozen=True):
    """The broker's answer to CONNECT: what it allows.

    Attributes:
        session_present: It still held our session.
        window: QoS 1 publications that may be in flight.
        max_packet_bytes: The largest packet it takes; 0: it named no limit.
    """

    session_present: bool
    window: int
    max_packet_bytes: int


class Arrived(msgspec.Struct, frozen=True):
    """A message has been read."""

    message: Incoming


class Unusable(msgspec.Struct, frozen=True):
    """A message has been read that is against the rules of MQTT."""

    mid: int
    qos: int
    problem: str


class Answered(msgspec.Struct, frozen=True):
    """A publication was acknowledged; `refusal` says why not, empty where it was accepted.

    `unheard`: nobody subscribes to its topic. MQTT 5 brokers may say so, and need not.
    """

    mid: int
    refusal: str
    unheard: bool = False


class Subscribed(msgspec.Struct, frozen=True):
    """Filters were answered, in their order; empty strings are acceptances."""

    mid: int
    refusals: tuple[str, ...]


class Paused(msgspec.Struct, frozen=True):
    """More came than may be read in a slice of time: the rest waits."""


class Closed(msgspec.Struct, frozen=True):
    """The connection has ended, and why."""

    reason: str


Event = Arrived | Unusable | Answered | Subscribed | Paused | Closed
