"""Calling what others gave us: their bugs are logged and counted, and stay their own."""

from collections.abc import Callable
from typing import Any

import structlog

from edge.mqtt.counting import is_milestone

_log = structlog.get_logger("edge.mqtt")


def call(
    counters: dict[str, int], name: str, callback: Callable[..., None], *arguments: Any
) -> None:
    """Call a callback; an exception counts as `callback_errors` and goes no further."""
    try:
        callback(*arguments)
    except Exception as broken:  # noqa: BLE001 - a caller's bug stays its own
        counters["callback_errors"] += 1
        if is_milestone(count := counters["callback_errors"]):
            _log.error("mqtt-callback-broken", callback=name, count=count, exc_info=broken)
