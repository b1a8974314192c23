"""A broker that breaks the rules, scripted byte by byte: the session bears it."""

import asyncio
import contextlib
import socket
import time
from collections import Counter

import pytest
from brokers import Peer, running, section, until
from scripted_broker import CONNACK_3, CONNACK_5, ScriptedBroker
from structlog.testing import capture_logs

from edge.config import BrokerSection
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.session import ENDS_LOGGED, REPEATS_UNLOGGED, STEADY_S


def test_silence_is_answered_by_the_other_version_and_the_loop_is_never_blocked() -> None:
    async def scenario() -> None:
        async with ScriptedBroker(answer=None) as broker:
            peer = Peer(broker.section(connect_timeout_s=1.0), "a", {})
            turns = 0
            async with running(peer, wait=False):
                while len(broker.connects) < 3:
                    await asyncio.sleep(0.001)
                    turns += 1
            assert broker.connects[:3] == [5, 4, 5]
            assert turns > 30  # a loop that waits for the broker turns a few times an attempt
            assert "no answer" in peer.session.last_error

    asyncio.run(scenario())


def test_a_fixed_version_is_kept_whatever_the_broker_says() -> None:
    async def scenario() -> None:
        async with ScriptedBroker(answer=b"\x20\x02\x00\x01", hang_up=True) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {})
            async with running(peer, wait=False):
                await until(lambda: len(broker.connects) >= 3)
            assert set(broker.connects) == {5}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "refusal",
    [b"\x20\x03\x00\x84\x00", b"\x20\x02\x00\x01"],
    ids=["MQTT 5 reason 0x84", "the return code 1 of a 3.1.1 broker"],
)
def test_an_unsupported_version_is_answered_by_3_1_1_at_once(refusal: bytes) -> None:
    async def scenario() -> None:
        async with ScriptedBroker(answer=refusal, hang_up=True) as broker:
            peer = Peer(broker.section(), "a", {})
            async with running(peer, wait=False):
                await until(lambda: len(broker.connects) >= 1)
                broker.answer, broker.hang_up = CONNACK_3, False
                await until(lambda: peer.session.connected)
            assert broker.connects[-1] == 4
            assert peer.session.counters["connects"] == 1

    asyncio.run(scenario())


GARBAGE = {
    "an unknown packet type": b"\xf7\x00",
    "a publish whose topic is longer than the packet": b"\x32\x05\x00\xffabc",
    "a remaining length of five bytes": b"\x30\xff\xff\xff\xff\xff",
    "properties that end nowhere": b"\x30\x05\x00\x01t\xff\xff",
    "an unknown property": b"\x30\x06\x00\x01t\x02\x7e\x00",
    "a second connack": CONNACK_5,
    "a connack cut short": b"\x20\x01\x00",
    "a disconnect with an unknown reason": b"\xe0\x02\xfe\x00",
    "a publish of QoS 3": b"\x36\x06\x00\x01t\x00\x01\x00",
    "a suback without codes": b"\x90\x03\x00\x01\x00",
    "a puback of an unknown id": b"\x40\x02\x12\x34",
    "a puback with an unknown reason": b"\x40\x04\x00\x02\xfe\x00",
    "a pubrel out of nowhere": b"\x62\x02\x00\x09",
    "an empty publish": b"\x30\x00",
    "a pingreq, which only clients send": b"\xc0\x00",
    "text of another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_from_the_broker_ends_at_most_the_connection(garbage: bytes) -> None:
    async def scenario() -> None:
        async with ScriptedBroker(behind=garbage) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"t": 1})
            async with running(peer, wait=False):
                await until(lambda: len(broker.connects) >= 1)
                broker.behind = b""
                # Whatever it did to the connection, the session stands, or stands again.
                await until(lambda: peer.session.connected)
                assert peer.session.publish("t", b"1", qos=0)
                await until(lambda: any(p[0] == 0x30 for p in broker.packets))

    asyncio.run(scenario())


def test_a_topic_that_is_not_utf_8_is_acknowledged_and_dropped() -> None:
    bad = b"\x32\x08\x00\x02\xff\xfe\x00\x07\x00!"
    good = b"\x32\x07\x00\x01t\x00\x08\x00!"

    async def scenario() -> None:
        async with ScriptedBroker(behind=bad + good) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"t": 1})
            async with running(peer):
                assert (await peer.next()).topic == "t"
                assert peer.session.counters["unusable"] == 1
                wanted = {b"\x40\x02\x00\x07", b"\x40\x02\x00\x08"}
                await until(lambda: wanted <= set(broker.packets))
                assert not peer.disconnects

    asyncio.run(scenario())


def test_properties_that_nobody_should_trust_are_left_out() -> None:
    wish = b"\x08\x00\x03a/#"  # a response topic with a wildcard
    twice = b"\x26\x00\x01k\x00\x011" + b"\x26\x00\x01k\x00\x012"
    properties = wish + twice
    body = b"\x00\x01t" + bytes([len(properties)]) + properties + b"payload"

    async def scenario() -> None:
        publish = b"\x30" + bytes([len(body)]) + body
        async with ScriptedBroker(behind=publish) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"t": 0})
            async with running(peer):
                got = await peer.next()
                assert got.response_topic is None
                assert got.properties == {"k": "1"}  # the first of two wins
                assert got.payload == b"payload"

    asyncio.run(scenario())


def test_a_message_right_behind_the_connack_can_be_acknowledged() -> None:
    kept = b"\x3a\x07\x00\x01t\x00\x05\x00!"  # QoS 1, sent before: a kept session's first words

    async def scenario() -> None:
        async with ScriptedBroker(answer=b"\x20\x03\x01\x00\x00", behind=kept) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"t": 1})
            async with running(peer):
                assert (await peer.next()).duplicate
                await until(lambda: b"\x40\x02\x00\x05" in broker.packets)
                assert peer.session.counters["stale_acknowledgements"] == 0

    asyncio.run(scenario())


def test_a_session_that_was_taken_over_says_what_to_look_for() -> None:
    async def scenario() -> None:
        # Scripted: Mosquitto hangs up on the first of two clients with one id, and says nothing.
        async with ScriptedBroker(after_suback=b"\xe0\x01\x8e") as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"t": 1})
            async with running(peer, wait=False):
                await until(lambda: "Session taken over" in peer.session.last_error)
                await until(lambda: "same client id" in peer.session.last_error)

    asyncio.run(scenario())


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_clients_of_one_id_say_so_though_the_broker_does_not(
    mosquitto: LocalBroker, protocol: str
) -> None:
    async def scenario() -> None:
        settings = section(mosquitto, protocol=protocol)
        one, other = (Peer(settings, "the-same", {"t": 1}) for _ in range(2))
        with capture_logs() as lines:
            async with running(one, wait=False), running(other, wait=False):
                await until(lambda: any("'the-same'" in each.get("reason", "") for each in lines))
        said = [each["reason"] for each in lines if each["event"] == "mqtt-disconnected"]
        assert said[0] == "connection lost", "control: once says nothing"
        assert "another client connects with the same client id" in said[-1]

    asyncio.run(scenario())


def test_connections_that_end_all_the_time_fill_no_log_until_one_was_steady() -> None:
    async def scenario() -> None:
        async with ScriptedBroker() as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"t": 1})
            session = peer.session
            session._backoff.next_s = lambda: 0.0  # type: ignore[method-assign] # hours in a second

            async def ended() -> None:
                ends = session.counters["disconnects"]
                broker.cut()
                await until(lambda: session.counters["disconnects"] > ends and session.connected)

            with capture_logs() as lines:
                async with running(peer):
                    for _ in range(3 * REPEATS_UNLOGGED):
                        await ended()
                    told = Counter(line["event"] for line in lines)
                    assert told["mqtt-disconnected"] == ENDS_LOGGED + 3
                    assert told["mqtt-connected"] == 1 + ENDS_LOGGED + 3
                    assert lines[-2]["before"] == 3 * REPEATS_UNLOGGED - 1
                    await ended()
                    assert len(lines) == sum(told.values()), "control: this one is not told"
                    session._reported_at -= STEADY_S + 1
                    await ended()
                    ends = [line["event"] for line in lines[-2:]]
                    assert ends == ["mqtt-disconnected", "mqtt-connected"]

    asyncio.run(scenario())


def test_no_more_is_in_flight_than_the_broker_allows() -> None:
    receive_maximum_3 = b"\x20\x06\x00\x00\x03\x21\x00\x03"

    async def scenario() -> None:
        async with ScriptedBroker(answer=receive_maximum_3) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {})
            async with running(peer, goodbye=False):
                for _ in range(10):
                    assert peer.session.publish("t", b"1")
                await peer.session.close(0.2)  # unanswered: the flush ends without them
                await until(lambda: broker.packets[-1:] == [b"\xe0\x00"])
            assert [packet[0] for packet in broker.packets] == [0x32, 0x32, 0x32, 0xE0]
            assert peer.session.unanswered == 10

    asyncio.run(scenario())


def test_an_unanswered_subscription_is_no_connection() -> None:
    async def scenario() -> None:
        async with ScriptedBroker(suback=None) as broker:
            peer = Peer(broker.section(protocol="5", connect_timeout_s=1.0), "a", {"t": 1})
            async with running(peer, wait=False):
                await until(lambda: "subscriptions" in peer.session.last_error)
                assert not peer.session.connected
                broker.suback = b"\x01"
                await until(lambda: peer.session.connected)

    asyncio.run(scenario())


def test_closing_does_not_wait_for_a_broker_that_takes_no_connection() -> None:
    async def scenario() -> None:
        # A listener whose backlog is full: TCP connects hang.
        with contextlib.ExitStack() as sockets:
            full = sockets.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            broker = BrokerSection(port=full.getsockname()[1], connect_timeout_s=60)
            peer = Peer(broker, "a", {})
            began = time.monotonic()
            async with running(peer, wait=False):
                await asyncio.sleep(0)  # let it begin
            assert time.monotonic() - began < 40

    asyncio.run(scenario())
