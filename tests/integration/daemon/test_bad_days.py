"""Days on which what the daemon stands on is wrong: the clock, the names, the file it was given."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from brokers import until
from clocks import YEAR_S, WallClock
from daemons import CONFIG, DEPLOYMENT, READY_S, Daemon, Line, line_to
from deployments import copy_of

from edge.cli.main import main
from edge.mqtt.brokers import LocalBroker


def test_a_clock_that_jumps_by_decades_both_ways_costs_no_verdict_and_no_record(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    clock = WallClock(tmp_path)
    daemon = Daemon(mosquitto, tmp_path, overrides=("status.interval_s=0.3",))
    daemon._command = [*clock.words, *daemon._command]
    told: list[int] = []

    async def judged(line: Line) -> None:
        """Frames at this clock: a verdict each, and a status that shows that it is this one."""
        frames = [line.inspect(part) for part in range(4)]
        await line.all_verdicts(frames)
        assert [line.judgements(name) for name in frames] == [1, 1, 1, 1]
        assert "stale" not in line.reasons(frames), "their age is not told by this clock"
        line.statuses.clear()
        told.append((await line.status(lambda s: "time_ns" in s, "a status"))["time_ns"])

    async def scenario() -> None:
        async with line_to(mosquitto) as line:
            for years in (-50, 0, 50):
                clock.jump_to(years)
                await judged(line)
            assert await asyncio.to_thread(daemon.end) == 0
            daemon.start()
            await line.status(lambda s: s["state"] == "offline", "it is gone")
            await line.box_ready()
            for years in (50, -50, 0):
                clock.jump_to(years)
                await judged(line)
            assert await asyncio.to_thread(daemon.end) == 0

    clock.jump_to(-50)  # the battery of the clock is empty
    with daemon:
        asyncio.run(scenario())
    years = [round((ns - told[1]) / 1e9 / YEAR_S) for ns in told]
    assert years == [-50, 0, 50, 50, -50, 0]  # control: these were the daemon's clocks
    assert main(["ledger", "verify", str(tmp_path / "state")]) == 0


def test_a_sensor_that_was_dead_before_the_clock_was_set_back_looks_no_fresher(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    # Under a lamp that is dark by a fresh value each frame is reviewed; a stale one is passed over.
    deployment = copy_of(
        DEPLOYMENT, tmp_path / "deployment", (r"^max_age_ms = 10000", "max_age_ms = 1000")
    )
    clock = WallClock(tmp_path)
    lamp = 'bindings.signal.lamp={topic="line/lamp", pointer="/v", time_pointer="/t"}'
    daemon = Daemon(
        mosquitto, tmp_path, deployment=deployment, overrides=("status.interval_s=0.3", lamp)
    )
    daemon._command = [*clock.words, *daemon._command]

    def dark(times_ns: Iterable[int]) -> bytes:
        return json.dumps([{"t": time_ns, "v": 0.1} for time_ns in times_ns]).encode()

    async def scenario() -> None:
        async with line_to(mosquitto) as line:
            now_ns = time.time_ns()
            line.session.publish("line/lamp", dark(now_ns - n * 10**9 for n in range(600)))
            for number in range(20):  # control: a value that comes now is fresh
                line.session.publish("line/lamp", dark([time.time_ns()]))
                verdict = await line.verdict(line.inspect(number))
                if verdict["reason"] == "lamp-failure":
                    break
            assert verdict["reason"] == "lamp-failure"
            dead_since = time.monotonic()
            await until(lambda: time.monotonic() > dead_since + 1.1, "its last value is stale")
            assert (await line.verdict(line.inspect(20)))["reason"] == "ok"
            clock.jump_to(-300 / YEAR_S)
            assert (await line.verdict(line.inspect(21)))["reason"] == "ok"

    with daemon:
        asyncio.run(scenario())


def test_a_broker_whose_name_does_not_resolve_is_waited_for(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    overrides = ("broker.host=nobody.invalid",)
    with Daemon(mosquitto, tmp_path, overrides=overrides) as daemon:
        said = daemon.logged("mqtt-unreachable")
        assert "nobody.invalid" in said["reason"]
        daemon.logged("pipeline_ready", deadline_s=READY_S)
        assert daemon.alive
        assert daemon.end() == 0


def test_a_reload_of_a_broken_file_leaves_the_running_one_running(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    config = tmp_path / "edge.toml"
    shutil.copyfile(CONFIG, config)

    async def scenario() -> None:
        with Daemon(mosquitto, tmp_path, config=config) as daemon:
            async with line_to(mosquitto) as line:
                config.write_text("[storaje]\n")
                os.kill(daemon.pid, signal.SIGHUP)
                await until(lambda: bool(daemon.events("reload_refused")), "it says so")
                assert (await line.verdict(line.inspect(0)))["reason"] == "ok"
                assert daemon.end() == 0
                daemon.start()  # control: the file is broken indeed
                assert await asyncio.to_thread(daemon.ended) == 78

    asyncio.run(scenario())
