"""A worker that stops, dies or never comes back costs its frames the fail-safe, in time."""

import asyncio
import os
import signal
from pathlib import Path

import cv2
import numpy as np
from brokers import until
from daemons import BUDGET_MS, DEPLOYMENT, Daemon, line_to
from deployments import copy_of, with_stuck_model

from edge.mqtt.brokers import LocalBroker

FAST_STATUS = ("status.interval_s=0.5",)
RECOVERY_S = 120.0
"""Starting a worker takes a second on an idle machine; the tests run on a busy one."""

# These are about time: the reference deployment's own budget holds, and the verdicts are held to it
# but for what the machine withheld. A busy one makes good frames late as well, and each has its
# fail-safe then: so the tests wait for a frame that is judged, and count on none.


async def recovered(daemon: Daemon, lost_pid: int) -> int:
    """Wait until another worker is ready, and return its process id."""
    seen = len(daemon.events("pipeline_ready"))

    def another() -> bool:
        pids = [entry["worker_pid"] for entry in daemon.events("pipeline_ready")]
        return bool(pids) and pids[-1] != lost_pid

    await until(another, f"another worker than {lost_pid} ({seen} so far)", RECOVERY_S)
    return int(daemon.events("pipeline_ready")[-1]["worker_pid"])


def test_a_stopped_worker_costs_a_dozen_frames_the_fail_safe_and_is_replaced(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=BUDGET_MS) as line:
            pid = daemon.worker()

            def stop(number: int) -> None:
                if number == 10:
                    os.kill(pid, signal.SIGSTOP)

            names = await line.play(80, during=stop)
            reasons = await line.kept(names)
            assert set(reasons) <= {"ok", "overrun", "worker-lost", "overload"}
            assert reasons["overrun"] >= 1
            assert await recovered(daemon, pid) != pid
            await line.judges()
            status = await line.status(
                lambda s: s["counters"].get("workers_started{pipeline=pcb}", 0) >= 2,
                "the status counts another worker",
            )
            assert status["pipelines"]["pcb"]["worker_pid"] != pid
            assert daemon.events("worker_hangs")

    with Daemon(mosquitto, tmp_path, overrides=FAST_STATUS, budget_ms=0) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_a_killed_worker_costs_the_frames_that_were_with_it_and_is_replaced(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=BUDGET_MS) as line:
            for _ in range(2):
                pid = daemon.worker()

                def kill(number: int, pid: int = pid) -> None:
                    if number == 5:
                        os.kill(pid, signal.SIGKILL)

                reasons = await line.kept(await line.play(20, during=kill))
                # A frame that the next worker takes over may find its time all but over.
                assert set(reasons) <= {"ok", "worker-lost", "overrun", "overload"}
                assert reasons["worker-lost"] >= 1
                await recovered(daemon, pid)
                await line.judges()
            lost = [entry["detail"] for entry in daemon.events("worker_lost")]
            assert lost.count("its channel closed: killed by SIGKILL") == 2

    with Daemon(mosquitto, tmp_path, overrides=FAST_STATUS, budget_ms=0) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_a_model_that_never_ends_costs_its_frame_and_the_worker_only(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    deployment = with_stuck_model(DEPLOYMENT, tmp_path / "deployment")
    black = cv2.imencode(".jpg", np.zeros((640, 640), np.uint8))[1].tobytes()

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=BUDGET_MS) as line:
            pid = daemon.worker()
            await line.judges()
            stuck = line.send(black, reference="board-0003")
            others = await line.play(4)
            assert await line.kept([stuck]) == {"overrun": 1}
            await line.kept(others)
            await recovered(daemon, pid)
            await line.judges()
            # The frame is not tried again: it comes again and has its verdict.
            line.send(black, reference="board-0003", frame_id=stuck)
            await until(lambda: len(line.verdicts["pcb", stuck]) == 2, "the verdict comes again")
            assert line.judgements(stuck) == 1

    with Daemon(
        mosquitto, tmp_path, deployment=deployment, overrides=FAST_STATUS, budget_ms=0
    ) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_control_a_deadline_set_wrong_is_found_by_the_same_check(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    deployment = copy_of(
        DEPLOYMENT, tmp_path / "deployment", (r"^budget_ms = 200", "budget_ms = 5000")
    )

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=BUDGET_MS) as line:
            os.kill(daemon.worker(), signal.SIGSTOP)
            name = line.inspect(0)
            await line.verdict(name)
            assert "late" in line.broken_promises([name])[0]

    with Daemon(mosquitto, tmp_path, deployment=deployment) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_control_without_hang_detection_a_stopped_worker_is_not_replaced(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=BUDGET_MS) as line:
            pid = daemon.worker()
            os.kill(pid, signal.SIGSTOP)
            names = await line.play(40)
            assert set(await line.kept(names)) <= {"overrun", "overload"}
            assert daemon.worker() == pid

    with Daemon(mosquitto, tmp_path, overrides=("deadlines.hang_ms=60000",), budget_ms=0) as daemon:
        asyncio.run(scenario(daemon.ready()))
