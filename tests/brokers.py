"""Real brokers for tests, and a peer to talk to the code under test through them.

Fixtures: `mosquitto` and `embedded_broker` (started, on a free port), `any_broker` (both in
turn), and `broker`, one Mosquitto for a whole file.
Without Mosquitto its tests skip with that reason, and fail in CI.
"""

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.config import BrokerSection
from edge.mqtt.brokers import LocalBroker, find_mosquitto
from edge.mqtt.messages import Incoming, Will
from edge.mqtt.session import Session

DEADLINE_S = 60.0


def require_mosquitto() -> None:
    """Skip where Mosquitto is not installed; fail in CI, which must have it."""
    if find_mosquitto() is not None:
        return
    reason = "Mosquitto is not installed (Debian: apt-get install mosquitto)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def mosquitto() -> Iterator[LocalBroker]:
    """A running Mosquitto without persistence, open to anonymous clients."""
    require_mosquitto()
    with running_broker(kind="mosquitto") as started:
        yield started


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    """A Mosquitto for the whole file; tests that break it start their own."""
    require_mosquitto()
    with running_broker(kind="mosquitto") as started:
        yield started


@pytest.fixture
def embedded_broker() -> Iterator[LocalBroker]:
    """A running embedded broker (MQTT 3.1.1)."""
    with running_broker(kind="embedded") as started:
        yield started


@pytest.fixture(params=["mosquitto", "embedded"])
def any_broker(request: pytest.FixtureRequest) -> Iterator[LocalBroker]:
    """Both kinds in turn."""
    if request.param == "mosquitto":
        require_mosquitto()
    with running_broker(kind=request.param) as started:
        yield started


@contextlib.contextmanager
def running_broker(**settings: Any) -> Iterator[LocalBroker]:
    """A local broker for code that is not async."""
    with asyncio.Runner() as runner:
        broker = LocalBroker(**settings)
        runner.run(broker.__aenter__())
        try:
            yield broker
        finally:
            runner.run(broker.__aexit__())


def section(broker: LocalBroker, **changes: object) -> BrokerSection:
    """The config section that leads to a broker; MQTT 3.1.1 at once for the embedded one."""
    protocol = "auto" if broker.kind == "mosquitto" else "3.1.1"
    fields = {"host": broker.host, "port": broker.port, "protocol": protocol, **changes}
    return BrokerSection.model_validate(fields)


async def until(claim: Callable[[], bool], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    """Return when the claim holds; fail the test where it does not in time."""
    end = time.monotonic() + deadline_s
    while not claim():
        if time.monotonic() > end:
            pytest.fail(f"not in {deadline_s:g} s: {what or claim.__name__}")
        await asyncio.sleep(0.005)


def port_of_nobody() -> int:
    """A free port below those that the kernel gives out, as a broker's is.

    One of those would not stay free: the kernel takes it for somebody's outgoing connection in the
    end, or for an attempt to connect to it, which TCP then connects to itself.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(lowest - 10_000, lowest), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("a hundred ports are taken")


class Peer:
    """The other end of a test: a session whose messages wait in a queue.

    Attributes:
        session: For whatever the methods here do not cover.
        messages: What has arrived, oldest first.
        acknowledging: Whether QoS 1 messages are acknowledged as they come.
    """

    def __init__(
        self,
        broker: BrokerSection,
        client_id: str,
        filters: dict[str, int],
        *,
        will: Will | None = None,
        acknowledging: bool = True,
        packets_per_s: int = 0,
    ) -> None:
        self.messages: asyncio.Queue[Incoming] = asyncio.Queue()
        self.disconnects: list[str] = []
        self.acknowledging = acknowledging
        self.session = Session(
            broker,
            client_id,
            will=will,
            on_connected=lambda: None,
            on_disconnected=self.disconnects.append,
            packets_per_s=packets_per_s,
        )
        for topic_filter, qos in filters.items():
            self.session.subscribe(topic_filter, qos, self._receive)

    def _receive(self, message: Incoming) -> None:
        self.messages.put_nowait(message)
        if self.acknowledging:
            self.session.acknowledge(message)

    async def next(self, deadline_s: float = DEADLINE_S) -> Incoming:
        """Return the next message."""
        async with asyncio.timeout(deadline_s):
            return await self.messages.get()

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, **named: str
    ) -> bool:
        """Publish, wait for the broker's answer, and return it; `named`: user properties."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        assert self.session.publish(
            topic, payload, qos=qos, retain=retain, properties=named, on_done=answer.set_result
        )
        async with asyncio.timeout(DEADLINE_S):
            return await answer


@asynccontextmanager
async def running(peer: Peer, *, wait: bool = True, goodbye: bool = True) -> AsyncIterator[Peer]:
    """Run a peer's session; by default from connected to a clean goodbye."""
    task = asyncio.create_task(peer.session.run(), name="peer")
    try:
        if wait:
            await until(lambda: peer.session.connected or task.done(), "the peer is connected")
        yield peer
    finally:
        if goodbye:
            await peer.session.close(1.0)
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and (failed := task.exception()):
            raise failed


@asynccontextmanager
async def connected(
    broker: LocalBroker, client_id: str, *filters: str, **changes: object
) -> AsyncIterator[Peer]:
    """A peer that is connected and subscribed, at QoS 1, to the filters."""
    peer = Peer(section(broker, **changes), client_id, dict.fromkeys(filters, 1))
    async with running(peer):
        yield peer
