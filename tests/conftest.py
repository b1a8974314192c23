"""Fixtures for all tests: the brokers (`tests/brokers.py`)."""

pytest_plugins = ("brokers",)
