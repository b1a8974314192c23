"""A worker that takes more memory than it may is replaced, and the line goes on."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from brokers import until
from daemons import DEPLOYMENT, TIMED_LAMP, Daemon, Line, line_to
from deployments import with_policy
from evil_guests import EVIL_LAMP, GOOD_LAMP, growing_policy
from memory_limits import MemoryLimit, memory_limit

from edge.daemon.worker_memory import MemoryWatch, resident_mib
from edge.mqtt.brokers import LocalBroker

GRANT_MIB = 640
STEP_MIB = 8
LIMIT_MIB = 400
"""What a worker of the reference deployment has resident is a third of this."""
OVERRIDES = ("status.interval_s=0.5", TIMED_LAMP, f"limits.worker_memory_mib={LIMIT_MIB}")
FRAMES = 80
JUDGED_S = 120.0


async def judged(line: Line) -> None:
    """Play frames until one is judged; a busy machine may be late for some, a start takes more."""
    end = time.monotonic() + JUDGED_S
    names: list[str] = []
    while "ok" not in line.reasons(names):
        if time.monotonic() > end:
            pytest.fail(f"no frame judged in {JUDGED_S:g} s: {dict(line.reasons(names))}")
        names += await line.play(2, interval_s=0.1)
        await line.all_verdicts(names)


def test_a_worker_that_grows_is_lost_and_the_next_judges(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    policy = growing_policy(GRANT_MIB, STEP_MIB)
    deployment = with_policy(
        DEPLOYMENT, tmp_path / "deployment", policy, call_ms=100, memory_mib=GRANT_MIB
    )

    async def scenario(daemon: Daemon) -> None:
        first = daemon.worker()

        def next_is_within_its_limit() -> bool:
            pids = [pid for pid in daemon.children() if pid != first]
            return len(pids) == 1 and 0 < resident_mib(pids[0]) <= LIMIT_MIB

        async with line_to(mosquitto) as line:
            line.lamp(GOOD_LAMP)
            await judged(line)
            line.lamp(EVIL_LAMP)
            # Page faults by the hundred thousand slow down the whole machine: each frame has its
            # one verdict, but this test does not hold its time.
            names = await line.play(FRAMES)
            await line.all_verdicts(names)
            assert {line.judgements(name) for name in names} == {1}
            daemon.logged("worker_lost")
            status = await line.status(
                lambda s: any(
                    "workers_lost" in name and "WorkerMemoryError" in name for name in s["counters"]
                ),
                "the loss is counted by its cause",
            )
            assert status["state"] == "online"
            (said, *_) = (entry["detail"] for entry in daemon.events("worker_lost"))
            assert f"limits.worker_memory_mib is {LIMIT_MIB}" in said
            assert "SIGKILL" in said
            line.lamp(GOOD_LAMP)
            await judged(line)
            # The first of the next may have grown too, by frames that came late: then it goes too.
            await until(next_is_within_its_limit, "the next worker is within its limit")

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=OVERRIDES) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_where_memory_runs_out_the_kernel_ends_the_worker_and_not_the_daemon(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    policy = growing_policy(GRANT_MIB, STEP_MIB)
    deployment = with_policy(
        DEPLOYMENT, tmp_path / "deployment", policy, call_ms=100, memory_mib=GRANT_MIB
    )
    # Ours is out of reach: what ends the worker is the kernel's own limit.
    overrides = ("status.interval_s=0.5", TIMED_LAMP, "limits.worker_memory_mib=4096")

    async def scenario(daemon: Daemon, limit: MemoryLimit) -> None:
        supervisor = daemon.pid
        async with line_to(mosquitto) as line:
            line.lamp(GOOD_LAMP)
            await judged(line)
            line.lamp(EVIL_LAMP)
            names: list[str] = []
            while not limit.kills:
                names += await line.play(10)
                assert len(names) <= 2 * FRAMES, "the kernel ends nothing"
            line.lamp(GOOD_LAMP)
            await line.all_verdicts(names)
            assert {line.judgements(name) for name in names} == {1}
            lost = await asyncio.to_thread(daemon.logged, "worker_lost")
            assert "SIGKILL" in lost["detail"]
            await judged(line)
            assert (daemon.alive, daemon.pid) == (True, supervisor)

    with memory_limit(LIMIT_MIB) as limit:
        daemon = Daemon(mosquitto, tmp_path, deployment=deployment, overrides=overrides)
        daemon._command = [*limit.words, *daemon._command]
        with daemon:
            asyncio.run(scenario(daemon.ready(), limit))


def test_the_watch_tells_once_and_only_what_is_over_its_limit() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "kept = b'1' * (64 << 20); input()"], stdin=subprocess.PIPE
    )

    async def scenario() -> None:
        try:
            await until(lambda: resident_mib(child.pid) > 64, "the child has its memory")
            told: list[int] = []
            patient = MemoryWatch(child.pid, 4_096, told.append)
            strict = MemoryWatch(child.pid, 32, told.append)
            await until(lambda: bool(told), "the strict watch has told")
            patient.stop()
            strict.stop()
            assert [found > 64 for found in told] == [True]
        finally:
            child.kill()
            child.communicate()

    asyncio.run(scenario())


def test_a_process_that_is_gone_has_no_memory() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert resident_mib(child.pid) == 0
