"""Messages there and back, through real brokers."""

import asyncio
import time

from brokers import DEADLINE_S, Peer, connected, require_mosquitto, running, section, until
from structlog.testing import capture_logs

from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming


def test_mqtt_5_carries_every_property_there_and_back(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "line/+/frame") as peer:
            began_ns, began_at_ns = time.monotonic_ns(), time.time_ns()
            assert peer.session.publish(
                "line/top/frame",
                b"\xff\xd8 pixels",
                content_type="image/jpeg",
                correlation=b"\x00\x01",
                properties={"frame-id": "f1", "part-id": "Bauteil 7 µ"},
            )
            got = await peer.next()
            assert peer.session.protocol == "5"
            assert (got.topic, got.payload, got.qos) == ("line/top/frame", b"\xff\xd8 pixels", 1)
            assert (got.retain, got.duplicate) == (False, False)
            assert (got.content_type, got.correlation) == ("image/jpeg", b"\x00\x01")
            assert got.properties == {"frame-id": "f1", "part-id": "Bauteil 7 µ"}
            assert began_ns <= got.arrived_ns <= time.monotonic_ns()
            assert began_at_ns <= got.arrived_at_ns <= time.time_ns()

    asyncio.run(scenario())


def test_mqtt_3_1_1_carries_the_payload_and_leaves_properties_out(any_broker: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(any_broker, "a", "t", protocol="3.1.1") as peer:
            assert await peer.publish("t", b"x" * 200_000, part="7")
            got = await peer.next()
            assert peer.session.protocol == "3.1.1"
            assert (len(got.payload), got.properties, got.content_type) == (200_000, {}, None)

    asyncio.run(scenario())


def test_a_broker_that_answers_nothing_to_mqtt_5_is_spoken_to_in_3_1_1(
    embedded_broker: LocalBroker,
) -> None:
    async def scenario() -> None:
        changes = {"protocol": "auto", "connect_timeout_s": 2.0}
        peer = Peer(section(embedded_broker, **changes), "a", {"t": 1})
        began = time.monotonic()
        async with running(peer):
            assert peer.session.protocol == "3.1.1"
            assert time.monotonic() - began >= 2.0  # it has waited for an answer to 5
            assert await peer.publish("t", b"1")
            assert (await peer.next()).payload == b"1"
            with capture_logs() as events:
                await embedded_broker.kill()
                await until(lambda: not peer.session.connected)
                await embedded_broker.start()
                await until(lambda: peer.session.connected)
            assert peer.session.protocol == "3.1.1"
            # What worked is remembered: MQTT 5 was not tried again.
            assert not [event for event in events if "MQTT 5" in str(event.get("reason"))]

    asyncio.run(scenario())


def test_qos_0_goes_there_and_back_and_needs_no_acknowledgement(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t") as peer:
            assert await peer.publish("t", b"1", qos=0)
            got = await peer.next()
            assert got.qos == 0
            assert peer.session.counters["acknowledged"] == 0
            assert peer.session.counters["stale_acknowledgements"] == 0

    asyncio.run(scenario())


def test_a_retained_message_says_that_it_is_no_news(any_broker: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(any_broker, "a") as writer:
            assert await writer.publish("kept", b"old", retain=True)
            async with connected(any_broker, "b", "kept") as reader:
                assert (await reader.next()).retain
                assert await writer.publish("kept", b"new", retain=True)
                assert not (await reader.next()).retain

    asyncio.run(scenario())


def test_a_thousand_publications_arrive_in_order_through_a_window_of_64(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t", max_outgoing=1_000) as peer:
            accepted: list[bool] = []
            for number in range(1_000):
                assert peer.session.publish("t", b"%d" % number, on_done=accepted.append)
            numbers = [int((await peer.next()).payload) for _ in range(1_000)]
            assert numbers == list(range(1_000))
            await until(lambda: len(accepted) == 1_000)
            assert all(accepted)

    asyncio.run(scenario())


def test_what_is_sent_together_leaves_at_the_end_and_in_order(any_broker: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(any_broker, "a", "t") as peer:
            connection = peer.session._connection
            assert connection is not None
            with peer.session.together():
                for number in range(200):
                    assert peer.session.publish("t", b"%d" % number)
                with peer.session.together():
                    assert peer.session.publish("t", b"200")
                assert connection._client.want_write(), "nothing has left yet"
            payloads = [(await peer.next()).payload for _ in range(201)]
            assert payloads == [b"%d" % number for number in range(201)]
            await until(lambda: peer.session.unanswered == 0)

    asyncio.run(scenario())


def test_a_connection_that_is_lost_while_much_is_held_back_loses_nothing(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t") as peer:
            await mosquitto.kill()
            with peer.session.together():
                for number in range(100):
                    assert peer.session.publish("t", b"%d" % number)
            with peer.session.together():
                assert peer.session.publish("t", b"100")
            await mosquitto.start()
            heard: set[bytes] = set()
            while len(heard) < 101:
                heard.add((await peer.next()).payload)
            await until(lambda: peer.session.unanswered == 0)

    asyncio.run(scenario())


def test_a_verdict_overtakes_five_hundred_records(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t") as peer:
            for number in range(500):
                assert peer.session.publish("t", b"%d" % number, bulk=True)
            assert peer.session.publish("t", b"verdict")
            heard = [(await peer.next()).payload for _ in range(501)]
            place = heard.index(b"verdict")
            assert place <= 32, "only what was on its way already is before it"
            del heard[place]
            assert heard == [b"%d" % number for number in range(500)]

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_counts(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        peer = Peer(section(mosquitto, max_outgoing=10), "a", {"t": 1})
        answers = [peer.session.publish("t", b"%d" % n) for n in range(12)]
        assert answers == [True] * 10 + [False] * 2
        assert not peer.session.publish("t", b"", qos=0)  # offline: dropped at once
        assert peer.session.counters["publish_dropped"] == 3
        async with running(peer):  # what was queued goes out when there is a connection
            assert [(await peer.next()).payload for _ in range(10)] == [
                b"%d" % n for n in range(10)
            ]

    asyncio.run(scenario())


def test_a_receiver_that_raises_stops_nothing(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "fine") as peer:

            def broken(_message: Incoming) -> None:
                raise RuntimeError("a receiver's bug")

            peer.session.subscribe("broken", 1, broken)
            for _ in range(100):  # more than the broker's window: none of them may block it
                assert await peer.publish("broken", b"")
            assert await peer.publish("fine", b"1")
            assert (await peer.next()).payload == b"1"
            assert peer.session.counters["receiver_errors"] == 100
            assert peer.session.unacknowledged == 0
            assert not peer.disconnects

    asyncio.run(scenario())


def test_a_callback_that_raises_stops_nothing(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t") as peer:

            def broken(_accepted: bool) -> None:
                raise RuntimeError("a caller's bug")

            assert peer.session.publish("t", b"1", on_done=broken)
            assert (await peer.next()).payload == b"1"
            await until(lambda: peer.session.counters["callback_errors"] == 1)
            assert await peer.publish("t", b"2")

    asyncio.run(scenario())


def test_publishing_from_within_a_receiver_and_within_an_answer_works(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "pong", "third") as peer:

            def go_on(_accepted: bool) -> None:
                peer.session.publish("third", b"")

            def answer(message: Incoming) -> None:
                for qos in (0, 1):
                    peer.session.publish("pong", message.payload, qos=qos, on_done=go_on)
                peer.session.acknowledge(message)

            peer.session.subscribe("ping", 1, answer)
            assert await peer.publish("ping", b"1")
            topics = sorted([(await peer.next()).topic for _ in range(4)])
            assert topics == ["pong", "pong", "third", "third"]

    asyncio.run(scenario())


def test_overlapping_filters_give_each_receiver_the_message_and_need_each_acknowledgement(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        # One filter only on the broker, two receivers behind it.
        peer = Peer(section(mosquitto), "a", {"t": 1}, acknowledging=False)
        other: list[Incoming] = []
        peer.session.subscribe("t", 1, other.append)
        async with running(peer):
            assert await peer.publish("t", b"1")
            mine = await peer.next()
            await until(lambda: len(other) == 1)
            peer.session.acknowledge(mine)
            assert peer.session.counters["acknowledged"] == 0
            peer.session.acknowledge(other[0])
            assert peer.session.counters["acknowledged"] == 1
            peer.session.acknowledge(mine)
            assert peer.session.counters["stale_acknowledgements"] == 1

    asyncio.run(scenario())


def test_a_shared_subscription_splits_the_messages_between_two_sessions(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        shared = "$share/line/top/+"
        async with (
            connected(mosquitto, "a", shared) as one,
            connected(mosquitto, "b", shared) as two,
            connected(mosquitto, "c") as camera,
        ):
            for number in range(100):
                assert await camera.publish("top/frame", b"%d" % number)
            await until(lambda: one.messages.qsize() + two.messages.qsize() == 100)
            assert one.messages.qsize() > 0
            assert two.messages.qsize() > 0
            numbers = {
                int((await peer.next()).payload)
                for peer in (one, two)
                for _ in range(peer.messages.qsize())
            }
            assert numbers == set(range(100))

    asyncio.run(scenario())


def test_mqtt_5_holds_back_what_is_larger_than_we_take(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with (
            connected(mosquitto, "small", "t", max_packet_bytes=2_000) as small,
            connected(mosquitto, "large") as large,
        ):
            assert await large.publish("t", b"x" * 5_000)
            assert await large.publish("t", b"fits")
            assert (await small.next()).payload == b"fits"
            assert small.session.counters["received"] == 1
            assert not small.disconnects

    asyncio.run(scenario())


def test_mqtt_3_1_1_drops_and_acknowledges_what_is_larger_than_we_take(
    any_broker: LocalBroker,
) -> None:
    async def scenario() -> None:
        changes = {"protocol": "3.1.1", "max_packet_bytes": 2_000}
        async with (
            connected(any_broker, "small", "t", **changes) as small,
            connected(any_broker, "large") as large,
        ):
            assert await large.publish("t", b"x" * 5_000)
            assert await large.publish("t", b"fits")
            assert (await small.next()).payload == b"fits"
            assert small.session.counters["too_large"] == 1
            assert small.session.counters["acknowledged"] == 2

    asyncio.run(scenario())


def test_what_the_broker_finds_too_large_is_refused_and_the_connection_stands() -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with (
            LocalBroker(kind="mosquitto", settings=["max_packet_size 2000"]) as broker,
            connected(broker, "a", "t") as peer,
        ):
            assert not await peer.publish("t", b"x" * 5_000)
            assert await peer.publish("t", b"fits")
            assert (await peer.next()).payload == b"fits"
            assert peer.session.counters["publish_refused"] == 1
            assert not peer.disconnects

    asyncio.run(scenario())


def test_a_goodbye_flushes_and_leaves_no_will(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "reader", "t") as reader:
            async with connected(mosquitto, "writer") as writer:
                for number in range(200):
                    assert writer.session.publish("t", b"%d" % number)
                await writer.session.close(DEADLINE_S)
                assert writer.session.unanswered == 0
                assert not writer.session.publish("t", b"late")
            assert [int((await reader.next()).payload) for _ in range(200)] == list(range(200))

    asyncio.run(scenario())


def test_no_properties_of_a_message_end_the_connection_or_are_all_read(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        receiver = Peer(section(mosquitto, protocol="5"), "receiver", {"t": 1})
        sender = Peer(section(mosquitto, protocol="5"), "sender", {})
        async with running(receiver), running(sender):
            for properties in (
                {"part-id": "a \ufeff in it"},
                {"frame-id": "f1", **{f"n{n}": "" for n in range(3_000)}},
                {"frame-id": "f2"},
            ):
                assert sender.session.publish("t", b"x", properties=properties)
            got = [(await receiver.next()).properties for _ in range(3)]
            assert got[0] == {"part-id": "a \ufeff in it"}
            assert (len(got[1]), got[1]["frame-id"]) == (64, "f1")
            assert got[2] == {"frame-id": "f2"}
            assert not receiver.disconnects

    asyncio.run(scenario())
