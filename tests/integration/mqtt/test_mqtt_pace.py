"""A session with a pace reads no faster, loses nothing for it, and says how old it may be."""

import asyncio
import time

from brokers import DEADLINE_S, Peer, connected, running, section, until
from structlog.testing import capture_logs

from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

MANY = 300


def at_pace(broker: LocalBroker, packets_per_s: int) -> Peer:
    """A peer that reads so many packets a second."""
    return Peer(section(broker), "slow", {"many": 1}, packets_per_s=packets_per_s)


def test_beyond_the_pace_messages_come_later_in_order_and_all(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        slow = at_pace(mosquitto, 500)
        waited_ns: list[int] = []

        def note(message: Incoming) -> None:
            waited_ns.append(message.waited_ns)
            slow.session.acknowledge(message)

        slow.session.subscribe("many", 1, note)
        async with connected(mosquitto, "sender") as sender, running(slow):
            with capture_logs() as events:
                began_ns = time.time_ns()
                for number in range(MANY):
                    sender.session.publish("many", str(number).encode())
                await until(lambda: slow.messages.qsize() == MANY, "all have come")
                took_ns = time.time_ns() - began_ns
            messages = [slow.messages.get_nowait() for _ in range(MANY)]
            assert [int(each.payload) for each in messages] == list(range(MANY))
            # Ten in each fiftieth of a second, the first one included.
            assert took_ns >= (MANY / 500 - 0.04) * 1e9
            assert slow.session.counters["pauses"] > 0
            assert [each for each in events if each["event"] == "mqtt-flooded"]
            assert max(waited_ns) > 1_000_000, "what waited out a pause says so"

    asyncio.run(scenario())


def test_within_the_pace_nothing_pauses(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        slow = at_pace(mosquitto, 1_000_000)
        async with connected(mosquitto, "sender") as sender, running(slow):
            for number in range(MANY):
                sender.session.publish("many", str(number).encode())
            await until(lambda: slow.messages.qsize() == MANY, "all have come")
            assert slow.session.counters["pauses"] == 0

    asyncio.run(scenario())


def test_who_looks_need_not_wait_for_the_loop(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        slow = at_pace(mosquitto, 5_000)
        async with connected(mosquitto, "sender") as sender, running(slow):
            sender.session.publish("many", b"1")
            end = time.monotonic() + DEADLINE_S
            while slow.messages.empty() and time.monotonic() < end:  # no await: the loop stands
                slow.session.look()
            assert slow.messages.get_nowait().payload == b"1"

    asyncio.run(scenario())


def test_without_a_connection_there_is_nothing_to_look_at(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        slow = at_pace(mosquitto, 5_000)
        slow.session.look()
        async with running(slow):
            await mosquitto.kill()
            await until(lambda: not slow.session.connected, "the end is noticed")
            slow.session.look()
            assert slow.messages.empty()

    asyncio.run(scenario())
