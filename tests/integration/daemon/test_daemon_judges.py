"""Frames in, verdicts out: the whole path, with the real model, over a real broker."""

import asyncio

from daemons import BUDGET_MS, TRANSPORT_MS, Daemon, line_to

from edge.mqtt.brokers import LocalBroker


def test_a_good_board_passes_and_a_bad_one_is_rejected_where_it_is_bad(
    broker: LocalBroker, daemon: Daemon
) -> None:
    async def scenario() -> None:
        async with line_to(broker) as line:
            good = line.inspect(0, part_id="part-7")
            bad = line.inspect(1, defects=("short",))
            passed, rejected = await line.all_verdicts([good, bad])
            assert (passed["verdict"], passed["reason"], passed["defects"]) == ("pass", "ok", [])
            assert (passed["device"], passed["part_id"], passed["v"]) == ("box1", "part-7", 1)
            assert passed["provider"] == "cpu"
            assert passed["deployment"]["signed"] is False
            assert rejected["verdict"] == "reject"
            (x0, y0, x1, y1) = rejected["defects"][0]["box"]
            assert rejected["defects"][0]["class"] == "short"
            assert x0 < x1 <= 640
            assert y0 < y1 <= 640
            for name in (good, bad):
                assert line.latency_ms(name) <= BUDGET_MS + TRANSPORT_MS
                assert line.judgements(name) == 1

    asyncio.run(scenario())
