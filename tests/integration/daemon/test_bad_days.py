"""Days on which what the daemon stands on is wrong: the clock, the names, the file it was given."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from brokers import until
from daemons import CONFIG, Daemon, line_to

from edge.mqtt.brokers import LocalBroker


@contextmanager
def daemon_with_clock(broker: LocalBroker, folder: Path, offset: str) -> Iterator[Daemon]:
    """A daemon whose wall clock is off; the monotonic one is left alone.

    Not ahead: under libfaketime the guests' compile process then fails with EINVAL at times.
    """
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        if os.environ.get("CI") == "true":
            pytest.fail("faketime is not installed (scripts/setup_tests.sh does it)")
        pytest.skip("faketime is not installed")
    daemon = Daemon(broker, folder)
    # Not by the program `faketime`, which stays between us and the daemon and takes its signals.
    changed = (f"LD_PRELOAD={libraries[0]}", f"FAKETIME={offset}", "FAKETIME_DONT_FAKE_MONOTONIC=1")
    daemon._command = ["env", *changed, *daemon._command]
    with daemon:
        yield daemon


def test_a_clock_that_jumps_by_decades_both_ways_costs_no_verdict(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def verdict_of(client: str, part: int) -> str:
        async with line_to(mosquitto, client) as line:
            name = line.inspect(part)
            await line.verdict(name)
            assert line.judgements(name) == 1
            return name

    async def scenario() -> None:
        with Daemon(mosquitto, tmp_path) as right:
            await verdict_of("before", 0)
            assert right.end() == 0
        with daemon_with_clock(mosquitto, tmp_path, "-30y") as behind:  # its battery was empty
            await verdict_of("behind", 1)
            assert behind.end() == 0
        with Daemon(mosquitto, tmp_path) as right_again:
            await verdict_of("after", 2)
            assert right_again.end() == 0

    asyncio.run(scenario())


def test_a_broker_whose_name_does_not_resolve_is_waited_for(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    overrides = ("broker.host=nobody.invalid",)
    with Daemon(mosquitto, tmp_path, overrides=overrides) as daemon:
        said = daemon.logged("mqtt-unreachable")
        assert "nobody.invalid" in said["reason"]
        daemon.logged("pipeline_ready", deadline_s=40)
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
