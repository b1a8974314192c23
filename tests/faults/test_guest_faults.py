"""A guest that loops, traps or scribbles costs its own frame, and no other frame anything."""

import asyncio
from pathlib import Path

import pytest
from daemons import DEPLOYMENT, TIMED_LAMP, Daemon, line_to
from deployments import copy_of, with_policy
from evil_guests import (
    DIG,
    ENDLESS,
    EVIL_LAMP,
    GOOD_LAMP,
    REACH_OUT,
    SCRIBBLE,
    policy,
    trapping_policy,
)

from edge.errors import DeploymentError
from edge.mqtt.brokers import LocalBroker

pytest_plugins = ("guest_fixtures",)
OVERRIDES = ("status.interval_s=0.5", TIMED_LAMP)


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        pytest.param(ENDLESS, "guest-budget", id="endless loop"),
        pytest.param(SCRIBBLE, "guest-trap", id="scribbles over all its memory"),
        pytest.param(REACH_OUT, "guest-trap", id="reaches out of its memory"),
        pytest.param(DIG, "guest-trap", id="recursion without end"),
    ],
)
def test_an_evil_call_costs_its_frame_and_the_worker_goes_on(
    mosquitto: LocalBroker, tmp_path: Path, evil: str, reason: str
) -> None:
    deployment = with_policy(DEPLOYMENT, tmp_path / "deployment", policy(evil))

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            pid = daemon.worker()
            for _ in range(2):
                line.lamp(GOOD_LAMP)
                assert await line.kept(await line.play(3)) == {"ok": 3}
                line.lamp(EVIL_LAMP)
                assert await line.kept(await line.play(3)) == {reason: 3}
            line.lamp(GOOD_LAMP)
            assert await line.kept(await line.play(3)) == {"ok": 3}
            assert daemon.worker() == pid
            await line.status(
                lambda s: s["counters"].get(f"frames_dropped{{reason={reason}}}") == 6,
                "the status counts what was dropped",
            )

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=OVERRIDES) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_a_loop_longer_than_the_frame_has_is_answered_by_the_supervisor(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    # The fail-safe goes out at 2.5 s at the latest; the loop alone may take 2.6 s.
    budget_ms, margin_ms = 3_000, 500
    plain = copy_of(
        DEPLOYMENT,
        tmp_path / "plain",
        (r"^call_ms = [24]0", "call_ms = 190"),
        (r"^budget_ms = 200", f"budget_ms = {budget_ms}"),
    )
    deployment = with_policy(plain, tmp_path / "deployment", policy(ENDLESS), call_ms=2_600)
    overrides = (
        *OVERRIDES,
        f"deadlines.margin_ms={margin_ms}",
        "deadlines.hang_ms=60000",  # what is late is not given up
    )

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, budget_ms=budget_ms) as line:
            pid = daemon.worker()
            line.lamp(GOOD_LAMP)
            await line.judges()
            line.lamp(EVIL_LAMP)
            evil = line.inspect(0)
            assert await line.kept([evil]) == {"overrun": 1}
            line.lamp(GOOD_LAMP)
            await line.judges()
            assert daemon.worker() == pid, "a late answer is not a hang"

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=overrides) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_guests_may_not_be_granted_more_time_than_a_frame_has(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="nothing is left for the model"):
        with_policy(DEPLOYMENT, tmp_path / "deployment", policy(ENDLESS), call_ms=2_000)


def test_a_guest_that_traps_on_every_third_frame_costs_every_third_frame(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    # The probe frame is a call too, but on an instance that is thrown away after it.
    deployment = with_policy(DEPLOYMENT, tmp_path / "deployment", trapping_policy(3))

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            names = await line.play(30, interval_s=0.04)
            await line.kept(names)
            reasons = [(await line.verdict(name))["reason"] for name in names]
            assert reasons == ["ok", "ok", "guest-trap"] * 10

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=OVERRIDES) as daemon:
        asyncio.run(scenario(daemon.ready()))
