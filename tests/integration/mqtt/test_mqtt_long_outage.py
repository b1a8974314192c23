"""A broker that is gone for a day, by a clock that leaves out the waiting; and is back, empty."""

import asyncio
import contextlib
import gc
import sys
from pathlib import Path

from brokers import Peer, connected, port_of_nobody, require_mosquitto, running, section, until
from long_days import DayLoop
from structlog.testing import capture_logs

from edge.mqtt.attempts import LONGEST_DELAY_S
from edge.mqtt.brokers import LocalBroker

DAY_S = 86_400
MINUTE_S = 60
KEPT = 100
"""Publications that the session may keep; one more comes each minute."""


def _resources() -> tuple[int, int]:
    """Blocks of memory that Python holds, and open files."""
    gc.collect()
    return sys.getallocatedblocks(), len(list(Path("/proc/self/fd").iterdir()))


def test_a_day_without_a_broker_costs_a_bounded_rate_of_everything_and_seconds_afterwards() -> None:
    require_mosquitto()
    mosquitto = LocalBroker(kind="mosquitto", port=port_of_nobody())
    filters = {"line/frame": 1, "line/reference/+": 1, "out": 1}
    peer = Peer(section(mosquitto, max_outgoing=KEPT), "box", filters)
    session = peer.session

    async def a_day() -> tuple[tuple[int, int], tuple[int, int]]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        after_an_hour = 0, 0
        for minute in range(1, DAY_S // MINUTE_S + 1):
            await asyncio.sleep(began + minute * MINUTE_S - loop.time())
            taken = session.publish("out", b"%d" % minute)
            assert taken == (minute <= KEPT)
            if minute == KEPT + 20:
                after_an_hour = _resources()
        return after_an_hour, _resources()

    async def scenario(loop: DayLoop) -> None:
        with capture_logs() as lines:
            async with contextlib.AsyncExitStack() as brokers, running(peer, wait=False):
                early, late = await a_day()
                assert loop.skipped_s > DAY_S - 600, "it was left out, not waited for"
                attempts = session.counters["connect_failures"]
                assert DAY_S / LONGEST_DELAY_S <= attempts <= 2 * DAY_S / LONGEST_DELAY_S + 10
                assert len(lines) <= 300, "a day's lines"
                assert {line["event"] for line in lines} == {"mqtt-unreachable"}
                # An attempt has some open; had each left one, there were thousands.
                assert late[1] <= early[1] + 10, "files"
                assert late[0] - early[0] < attempts / 2, "no attempt leaves a thing behind"
                dropped = DAY_S // MINUTE_S - KEPT
                assert session.counters["publish_dropped"] == dropped

                with loop.real_time():
                    await brokers.enter_async_context(mosquitto)
                    async with connected(mosquitto, "line") as line:
                        assert await line.publish("line/reference/1", b"picture", retain=True)
                back_at = loop.time()
                await until(lambda: session.connected, "it is connected")
                assert loop.time() - back_at <= LONGEST_DELAY_S + 60, "by the clock of that day"
                kept: dict[str, list[bytes]] = {}
                for _ in range(KEPT + 1):
                    message = await peer.next()
                    kept.setdefault(message.topic, []).append(message.payload)
                assert kept["line/reference/1"] == [b"picture"], "asked for anew"
                assert kept["out"] == [b"%d" % minute for minute in range(1, KEPT + 1)]
                with loop.real_time():
                    async with connected(mosquitto, "line") as line:
                        assert await line.publish("line/frame", b"frame")
                assert (await peer.next()).payload == b"frame", "the subscription is there again"
                assert peer.messages.empty()
                assert (session.unanswered, session.counters["publish_dropped"]) == (0, dropped)

    with asyncio.Runner(loop_factory=DayLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, DayLoop)
        runner.run(scenario(loop))
