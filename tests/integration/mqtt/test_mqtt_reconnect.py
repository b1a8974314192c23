"""Connections end; sessions do not."""

import asyncio
import os
import signal
import sys
import threading
import time

import pytest
from brokers import Peer, connected, require_mosquitto, running, section, until
from structlog.testing import capture_logs

from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Will


def test_a_killed_broker_that_comes_back_finds_us_and_gets_what_was_published_meanwhile(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t") as peer:
            for _ in range(2):
                await mosquitto.kill()
                await until(lambda: not peer.session.connected)
                assert peer.session.protocol == ""
                assert peer.session.last_error
                assert peer.session.publish("t", b"meanwhile")
                await mosquitto.start()
                assert (await peer.next()).payload == b"meanwhile"
                await until(lambda: peer.session.connected)
            assert len(peer.disconnects) == 2
            assert peer.session.counters["connects"] == 3
            await until(lambda: peer.session.unanswered == 0)

    asyncio.run(scenario())


def test_a_connection_that_ends_after_an_hour_does_not_make_its_session_look_stuck(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t") as peer:
            session, seen = peer.session, []
            session._came_round_at -= 3_600
            session._on_disconnected = lambda _reason: seen.append(session.came_round_at)
            began = time.monotonic()
            await mosquitto.kill()
            await until(lambda: bool(seen))
            assert seen[0] >= began
            await mosquitto.start()
            await until(lambda: session.connected)

    asyncio.run(scenario())


def test_a_kept_session_gets_what_was_published_while_it_was_away_after_a_broker_kill() -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto", persist=True) as broker:
            away = Peer(section(broker), "away", {"line/away/frame": 1})
            async with running(away, goodbye=False):
                pass
            stored = broker.folder / "mosquitto.db"
            await until(lambda: stored.exists() and b"line/away/frame" in stored.read_bytes())
            await broker.kill()
            await broker.start()
            async with connected(broker, "writer") as writer:
                for number in range(3):
                    assert await writer.publish("line/away/frame", b"%d" % number)
            async with running(away):
                payloads = [(await away.next()).payload for _ in range(3)]
            assert payloads == [b"0", b"1", b"2"]

    asyncio.run(scenario())


def test_without_an_expiry_the_broker_keeps_nothing_for_us(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:  # the negative control of the test above
        for protocol in ("5", "3.1.1"):
            away = Peer(section(mosquitto, session_expiry_s=0, protocol=protocol), "x", {"t": 1})
            async with running(away):
                pass
            fresh = Peer(section(mosquitto, session_expiry_s=0, protocol=protocol), "x", {"t": 1})
            async with connected(mosquitto, "writer") as writer:
                assert await writer.publish("t", b"lost")
                async with running(fresh):
                    assert await writer.publish("t", b"seen")
                    assert (await fresh.next()).payload == b"seen"

    asyncio.run(scenario())


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        for protocol in ("5", "3.1.1"):
            peer = Peer(section(mosquitto, protocol=protocol), "a", {"t": 1}, acknowledging=False)
            async with running(peer, goodbye=False):
                assert await peer.publish("t", b"acknowledged")
                assert await peer.publish("t", b"forgotten")
                first, second = await peer.next(), await peer.next()
                peer.session.acknowledge(first)
                assert not second.duplicate
                # A round trip behind the acknowledgement: the broker has read it.
                assert await peer.publish("elsewhere", b"")
            async with running(peer):
                again = await peer.next()
                assert (again.payload, again.duplicate) == (b"forgotten", True)
                # An acknowledgement of the lost connection is harmless, and does not count.
                peer.session.acknowledge(second)
                assert peer.session.counters["stale_acknowledgements"] == 1
                assert peer.session.unacknowledged == 1
                peer.session.acknowledge(again)
                assert peer.session.unacknowledged == 0
                assert await peer.publish("t", b"last")
                last = await peer.next()
                assert last.payload == b"last"
                peer.session.acknowledge(last)
                assert await peer.publish("elsewhere", b"")
            fresh = Peer(section(mosquitto, protocol=protocol), "a", {"t": 1})
            async with running(fresh):
                assert await fresh.publish("t", b"new")
                assert (await fresh.next()).payload == b"new"

    asyncio.run(scenario())


def test_more_unacknowledged_messages_than_the_window_come_again_in_order(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        peer = Peer(section(mosquitto), "a", {"t": 1}, acknowledging=False)
        async with running(peer, goodbye=False):
            for number in range(150):
                assert await peer.publish("t", b"%d" % number)
            await until(lambda: peer.messages.qsize() == 64)  # our Receive Maximum
        while not peer.messages.empty():
            peer.messages.get_nowait()
        peer.acknowledging = True
        async with running(peer):
            numbers = [int((await peer.next()).payload) for _ in range(150)]
        assert numbers == list(range(150))

    asyncio.run(scenario())


def test_a_broker_that_appears_later_is_found(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        await mosquitto.stop()
        peer = Peer(section(mosquitto), "a", {"t": 1})
        with capture_logs() as events:
            async with running(peer, wait=False):
                await until(lambda: peer.session.counters["connect_failures"] >= 2)
                assert "refused" in peer.session.last_error.lower()
                assert peer.session.publish("t", b"early")
                await mosquitto.start()
                assert (await peer.next()).payload == b"early"
                assert not peer.disconnects
        reasons = [event["reason"] for event in events if event["event"] == "mqtt-unreachable"]
        assert len(reasons) == 1  # the same failure again is not logged each time
        assert f"127.0.0.1:{mosquitto.port}" in reasons[0]

    asyncio.run(scenario())


_MORTAL = """
import asyncio, sys
from edge.config import BrokerSection
from edge.mqtt.messages import Will
from edge.mqtt.session import Session

async def main():
    broker = BrokerSection(port=int(sys.argv[1]))
    will = Will("status/mortal", b"offline", retain=True)
    connected = lambda: session.publish("status/mortal", b"online", retain=True)
    session = Session(broker, "mortal", will=will, on_connected=connected)
    await session.run()

asyncio.run(main())
"""


def test_a_system_without_a_thread_left_is_a_reason_to_try_again(
    mosquitto: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoneLeft(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        peer = Peer(section(mosquitto), "a", {})
        with monkeypatch.context() as patched:
            patched.setattr(threading, "Thread", NoneLeft)
            running = asyncio.create_task(peer.session.run())
            await until(lambda: "new thread" in peer.session.last_error or running.done())
        await until(lambda: peer.session.connected or running.done())
        assert peer.session.connected
        running.cancel()
        await asyncio.wait((running,))

    asyncio.run(scenario())


def test_the_broker_publishes_the_will_of_a_killed_process(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "reader", "status/+") as reader:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _MORTAL, str(mosquitto.port)
            )
            try:
                assert (await reader.next()).payload == b"online"
            finally:
                process.send_signal(signal.SIGKILL)
                await process.wait()
            assert (await reader.next()).payload == b"offline"
        async with connected(mosquitto, "late", "status/+") as late:
            kept = await late.next()
            assert (kept.payload, kept.retain) == (b"offline", True)

    asyncio.run(scenario())


def test_a_cancelled_run_leaves_the_will_and_a_goodbye_does_not(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "reader", "will/#") as reader:
            polite = Peer(section(mosquitto), "polite", {}, will=Will("will/polite", b"gone"))
            async with running(polite):
                pass
            cut = Peer(section(mosquitto), "cut", {}, will=Will("will/cut", b"gone", retain=False))
            async with running(cut, goodbye=False):
                pass
            # The polite one left first: had there been a will, it would come first.
            assert (await reader.next()).topic == "will/cut"

    asyncio.run(scenario())


def test_a_broker_that_falls_silent_is_left_after_the_keepalive(mosquitto: LocalBroker) -> None:
    async def scenario() -> None:
        async with connected(mosquitto, "a", "t", keepalive_s=5) as peer:
            os.kill(mosquitto.pid, signal.SIGSTOP)
            began = time.monotonic()
            try:
                await until(lambda: not peer.session.connected, "the silence is noticed")
            finally:
                os.kill(mosquitto.pid, signal.SIGCONT)
            assert time.monotonic() - began > 5
            await until(lambda: peer.session.connected)
            assert await peer.publish("t", b"1")

    asyncio.run(scenario())


def test_a_publication_that_makes_the_broker_hang_up_is_given_up_and_the_next_one_leaves() -> None:
    require_mosquitto()

    async def scenario() -> None:
        # To MQTT 3.1.1 Mosquitto cannot say that a packet is too large: it ends the connection.
        async with (
            LocalBroker(kind="mosquitto", settings=["max_packet_size 2000"]) as broker,
            connected(broker, "a", "t", protocol="3.1.1") as peer,
        ):
            refused: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            assert peer.session.publish("t", b"x" * 5_000, on_done=refused.set_result)
            assert peer.session.publish("t", b"fits")
            assert (await peer.next()).payload == b"fits"
            assert not await refused
            assert peer.session.counters["publish_refused"] == 1
            assert peer.session.counters["connects"] >= 5

    asyncio.run(scenario())
