"""One Mosquitto and one daemon for each test file; tests that break them start their own."""

from collections.abc import Iterator

import pytest
from daemons import TIMED_LAMP, Daemon

from edge.mqtt.brokers import LocalBroker


@pytest.fixture(scope="module")
def daemon(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A ready daemon with the reference deployment, for the whole file."""
    folder = tmp_path_factory.mktemp("box")
    with Daemon(broker, folder, overrides=("status.interval_s=0.5", TIMED_LAMP)) as started:
        yield started.ready()
