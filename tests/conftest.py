"""Fixtures for all tests: the brokers (`tests/brokers.py`)."""

import logging
import signal
from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ("brokers",)

# A shell's background job inherits SIGINT ignored, and so would every process that a test starts
# and interrupts; with a handler here, exec gives a child the default again (signal(7)).
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """What a test or its command sets of the log ends with it: the next one may listen to it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
