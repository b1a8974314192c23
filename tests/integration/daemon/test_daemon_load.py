"""More than one worker can judge: what yields has its verdict, and the rest keep theirs."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from brokers import until
from daemons import DEPLOYMENT, Daemon, Line, line_to
from deployments import copy_of, twice

from edge.mqtt.brokers import LocalBroker

QUICK = ("status.interval_s=0.5",)


async def burst(line: Line, daemon: Daemon, frames: int) -> list[str]:
    """Send frames while the worker stands still, and let it go on when the first has yielded."""
    await line.kept([line.inspect(0)])
    worker = daemon.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        names = [line.inspect(n % 8) for n in range(frames)]
        await until(lambda: bool(line.reasons(names)["overload"]), "a frame has yielded")
    finally:
        os.kill(worker, signal.SIGCONT)
    await line.kept(names)
    return [(await line.verdict(name))["reason"] for name in names]


@pytest.mark.parametrize("overflow", ["latest", "queue"])
def test_in_a_burst_the_declared_frames_yield_and_every_frame_is_answered(
    mosquitto: LocalBroker, tmp_path: Path, overflow: str
) -> None:
    deployment = copy_of(
        DEPLOYMENT,
        tmp_path / "deployment",
        (r'^overflow = "queue"', f'overflow = "{overflow}"'),
        (r"^queue_frames = 4", "queue_frames = 2"),
    )

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            reasons = await burst(line, daemon, 10)
            # Two are with the worker, two wait; which of the rest yields is the deployment's word.
            kept = [0, 1, 8, 9] if overflow == "latest" else [0, 1, 2, 3]
            for number, reason in enumerate(reasons):
                assert (reason == "overload") == (number not in kept), reasons

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=QUICK) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_two_pipelines_on_one_camera_judge_every_frame_each(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    deployment = twice(DEPLOYMENT, tmp_path / "deployment", "second")
    budget_ms = 2_000  # as long as a stopped worker's frames are waited for

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=budget_ms) as line:
            status = await line.box_ready()
            assert set(status["pipelines"]) == {"pcb", "second"}
            names = await line.play(10, interval_s=0.1)
            for pipeline in ("pcb", "second"):
                assert await line.kept(names, pipeline) == {"ok": 10}
            # One is stopped: its frames get the fail-safe, the other's nothing but their due.
            stopped = status["pipelines"]["pcb"]["worker_pid"]
            os.kill(stopped, signal.SIGSTOP)
            names = await line.play(5, interval_s=0.1)
            assert "ok" not in await line.kept(names, "pcb")
            assert await line.kept(names, "second") == {"ok": 5}

    with Daemon(
        mosquitto, tmp_path, deployment=deployment, overrides=QUICK, budget_ms=budget_ms
    ) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_actions_are_bounded_in_rate_and_duration_and_verdicts_are_not(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    deployment = copy_of(
        DEPLOYMENT,
        tmp_path / "deployment",
        (r"^max_per_minute = 120", "max_per_minute = 3"),
        (r"^max_ttl_ms = 5000", "max_ttl_ms = 100"),
    )

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            names = []
            for _ in range(6):
                names.append(line.inspect(1, defects=("short",)))
                assert (await line.verdict(names[-1]))["verdict"] == "reject"
            await line.status(
                lambda s: s["counters"].get("actions_denied{action=action.reject}") == 3,
                "three were denied",
            )
            asked = line.heard["line/top/reject"]
            assert len(asked) == 3
            assert all(b'"ttl_ms":100' in message.payload for message in asked)

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=QUICK) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_control_a_frame_beyond_what_is_remembered_is_found_to_be_judged_twice(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            name = line.inspect(0)
            await line.verdict(name)
            others = [line.send(b"no image", reference="board-0003") for _ in range(100)]
            await line.all_verdicts(others)
            line.inspect(0, frame_id=name)
            await until(lambda: line.judgements(name) == 2, "the bound has forgotten it")
            assert line.broken_promises([name]) == ["frame 0 has 2 verdicts"]

    overrides = ("limits.remembered_frames=100",)
    with Daemon(mosquitto, tmp_path, overrides=overrides) as daemon:
        asyncio.run(scenario(daemon.ready()))
