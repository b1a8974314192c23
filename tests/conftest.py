"""Fixtures for all tests: the brokers (`tests/brokers.py`)."""

import signal

pytest_plugins = ("brokers",)

# A shell's background job inherits SIGINT ignored, and so would every process that a test starts
# and interrupts; with a handler here, exec gives a child the default again (signal(7)).
signal.signal(signal.SIGINT, signal.default_int_handler)
