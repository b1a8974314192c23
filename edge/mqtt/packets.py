"""Between paho's words and ours: messages, properties, reasons. Pure."""

from typing import Any, Final

from paho.mqtt.client import DisconnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.config import BrokerSection
from edge.mqtt.events import Arrived, Closed, Opened, Unusable
from edge.mqtt.messages import Incoming, Outgoing, Receipt
from edge.mqtt.topics import topic_problem

RECEIVE_MAXIMUM: Final = 64
"""QoS 1 messages that the broker may send ahead of our acknowledgements (MQTT 5), as a rule."""
SEND_MAXIMUM: Final = 64
"""Publications that we send ahead of the broker's answers; the broker may ask for less."""


def connect_properties(broker: BrokerSection, receive_maximum: int) -> Properties:
    """Return what an MQTT 5 CONNECT says about us: how long to keep us, and what we can take."""
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = broker.session_expiry_s
    properties.ReceiveMaximum = receive_maximum
    properties.MaximumPacketSize = broker.max_packet_bytes
    made: Properties = properties
    return made


def publish_properties(publication: Outgoing) -> Properties | None:
    """Return the properties of an MQTT 5 PUBLISH; None where there are none to tell."""
    if not (publication.content_type or publication.correlation or publication.properties):
        return None
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if publication.content_type:
        properties.ContentType = publication.content_type
    if publication.correlation:
        properties.CorrelationData = publication.correlation
    if publication.properties:
        properties.UserProperty = list(publication.properties.items())
    made: Properties = properties
    return made


def opened(session_present: bool, properties: Properties | None) -> Opened:
    """Read what an accepting CONNACK allows."""
    window = int(getattr(properties, "ReceiveMaximum", SEND_MAXIMUM))
    return Opened(
        session_present,
        max(1, min(window, SEND_MAXIMUM)),
        int(getattr(properties, "MaximumPacketSize", 0)),
    )


def arrived(
    message: MQTTMessage,
    connection: int,
    arrived_ns: int,
    arrived_at_ns: int,
    waited_ns: int = 0,
) -> Arrived | Unusable:
    """Read a PUBLISH. A response topic that cannot be published to is left out."""
    try:
        topic = message.topic
    except UnicodeDecodeError:
        return Unusable(message.mid, message.qos, "its topic is not UTF-8")
    if problem := topic_problem(topic):
        return Unusable(message.mid, message.qos, f"topic {topic[:80]!r}: {problem}")
    properties = message.properties
    response_topic = getattr(properties, "ResponseTopic", None)
    if response_topic is not None and topic_problem(response_topic):
        response_topic = None
    named: dict[str, str] = {}
    for key, value in getattr(properties, "UserProperty", ()):
        named.setdefault(key, value)
    return Arrived(
        Incoming(
            topic=topic,
            payload=bytes(message.payload),  # bytes already: the same object
            qos=message.qos,
            retain=message.retain,
            duplicate=message.dup,
            content_type=getattr(properties, "ContentType", None),
            response_topic=response_topic,
            correlation=getattr(properties, "CorrelationData", None),
            properties=named,
            arrived_ns=arrived_ns,
            arrived_at_ns=arrived_at_ns,
            receipt=Receipt(message.mid, connection),
            waited_ns=waited_ns,
        )
    )


LOST: Final = "connection lost"
"""As which an end is told of which paho knows no more: the broker, the network, or a namesake."""


def closed(flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None) -> Closed:
    """Say why a connection ended: who ended it, and what was said."""
    if flags.is_disconnect_packet_from_server:
        text = said(reason, properties)
        if reason == "Session taken over":
            text += " (another client connected with the same client id: each needs its own)"
        return Closed(f"the broker ended it: {text}")
    if not reason.is_failure:
        return Closed("goodbye")
    if reason == "Keep alive timeout":
        return Closed("no sign of life from the broker within the keepalive")
    return Closed(LOST)


def said(reason: ReasonCode, properties: Properties | None) -> str:
    """Return a reason by name, with the broker's own words where it gave some."""
    words = getattr(properties, "ReasonString", "")
    return f"{reason}: {words}" if words else str(reason)
