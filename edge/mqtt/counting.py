"""What a session counts, and which counts are worth a line in the log."""

from typing import Final

COUNTERS: Final = (
    "connects",  # accepted by the broker
    "connect_failures",
    "disconnects",  # of a connection that was reported
    "received",
    "received_bytes",  # payloads
    "duplicates",  # redelivered by the broker
    "unrouted",  # no receiver: a filter of an earlier configuration
    "unusable",  # against the rules of MQTT
    "too_large",  # beyond max_packet_bytes, MQTT 3.1.1
    "pauses",  # more came than may be read in a fiftieth of a second, or what was long to read
    "receiver_errors",
    "acknowledged",
    "stale_acknowledgements",  # of another connection, or twice
    "published",  # answered by the broker
    "published_bytes",  # payloads
    "publish_refused",
    "publish_dropped",  # queue full, closing, or QoS 0 without a connection
    "callback_errors",
)


def is_milestone(count: int) -> bool:
    """Say whether a count is 1, 2, 4, 8, ...: a flood is logged now and then, never line by line.

    One traceback costs the loop tens of milliseconds; a frame has 200.
    """
    return count & (count - 1) == 0
