"""Fixtures for all tests: the brokers (`tests/brokers.py`)."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

pytest_plugins = ("brokers",)

# CI draws the same examples each time: what it refuses is the change, and not the day. Everywhere
# else they are drawn anew, and what they find is a finding.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")

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
