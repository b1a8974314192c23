"""A camera's message as a session hands it on."""

from typing import Any, Final

import msgspec

from edge.mqtt.messages import Incoming, Receipt

MESSAGE: Final = Incoming(
    topic="line/top/frame",
    payload=b"jpeg",
    qos=1,
    retain=False,
    duplicate=False,
    content_type=None,
    response_topic=None,
    correlation=None,
    properties={},
    arrived_ns=5_000_000_000_000,
    arrived_at_ns=1_790_000_000_000_000_000,
    receipt=Receipt(1, 1),
)


def incoming(**changes: Any) -> Incoming:
    """Return it with some fields changed."""
    return msgspec.structs.replace(MESSAGE, **changes)
