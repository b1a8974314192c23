"""What a deployment grants, in the running daemon: actions that end, log lines, signals, states."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import running_broker, until
from daemons import DEPLOYMENT, TIMED_LAMP, Daemon, Line, line_to
from deployments import copy_of, with_policy
from evil_guests import (
    EVIL_LAMP,
    counting_policy,
    forgetful_policy,
    logging_policy,
    prying_policy,
)

from edge.mqtt.brokers import LocalBroker

GATE = "line/top/reject"
SECRET = 1234.567890123
FAST_STATUS = ("status.interval_s=1",)


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    with running_broker() as started:
        yield started


def reverting(folder: Path, ttl_ms: int) -> Path:
    """The reference deployment whose reject action ends at 0 by itself."""
    return copy_of(
        DEPLOYMENT,
        folder / "deployment",
        (r"^max_ttl_ms = 5000$", "max_ttl_ms = 60000\nrevert = 0.0"),
        (r"ttl_ms = 2000 \}", f"ttl_ms = {ttl_ms} }}"),
    )


def changed(folder: Path, wasm: bytes, *edits: tuple[str, str]) -> Path:
    """The reference deployment with another policy."""
    source = with_policy(DEPLOYMENT, folder / "source", wasm, call_ms=100)
    return copy_of(source, folder / "deployment", *edits)


def asked(line: Line) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in line.heard.get(GATE, [])]


def causes(line: Line) -> list[str]:
    return [action["cause"] for action in asked(line)]


async def turned_on(line: Line) -> None:
    """A bad part was seen, and the gate was asked."""
    await line.verdict(line.inspect(1, defects=("short",), part_id="p-1"))
    await until(lambda: "wish" in causes(line), "the gate is asked")


# Actions


def test_an_action_ends_when_its_time_is_over(broker: LocalBroker, tmp_path: Path) -> None:
    async def scenario(line: Line) -> None:
        began = time.monotonic()
        await turned_on(line)
        await until(lambda: "ttl" in causes(line), "it is reverted")
        assert time.monotonic() - began >= 0.4
        on, off = asked(line)
        assert (on["value"], on["ttl_ms"], on["cause"]) == (1, 400, "wish")
        assert (off["value"], off["ttl_ms"], off["cause"]) == (0, 0, "ttl")
        assert {k: on[k] for k in ("action", "frame_id", "part_id")} == {
            k: off[k] for k in ("action", "frame_id", "part_id")
        }
        counter = "actions_reverted{action=action.reject,cause=ttl}"
        status = await line.status(lambda s: s["counters"].get(counter) == 1, "it is counted")
        assert status["actions_held"] == []

    deployment = reverting(tmp_path, 400)
    with Daemon(broker, tmp_path, deployment=deployment, overrides=FAST_STATUS) as daemon:
        daemon.ready()
        play(broker, scenario)
        assert daemon.end() == 0
    assert json.loads((tmp_path / "state" / "actions.json").read_text()) == []


def test_a_wish_that_is_repeated_holds_on_and_is_reverted_once(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(line: Line) -> None:
        names = [line.inspect(part, defects=("short",)) for part in range(4)]
        await line.all_verdicts(names)
        await until(lambda: "ttl" in causes(line), "it is reverted")
        assert causes(line) == ["wish"] * 4 + ["ttl"]
        assert asked(line)[-1]["frame_id"] == names[-1]

    with Daemon(broker, tmp_path, deployment=reverting(tmp_path, 4_000)) as daemon:
        daemon.ready()
        play(broker, scenario)


def test_what_a_killed_daemon_left_on_is_reverted_by_the_next(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(line: Line) -> None:
        await turned_on(line)
        daemon.kill()
        assert causes(line) == ["wish"]
        (lease,) = json.loads((tmp_path / "state" / "actions.json").read_text())
        assert (lease["action"], lease["topic"], lease["revert"]) == ("action.reject", GATE, 0)
        daemon.start()
        await until(lambda: "restart" in causes(line), "it is reverted")
        assert causes(line) == ["wish", "restart"]
        assert asked(line)[-1]["value"] == 0

    with Daemon(broker, tmp_path, deployment=reverting(tmp_path, 50_000)) as daemon:
        daemon.ready()
        play(broker, scenario)
        assert daemon.events("action_left_on")[-1]["action"] == "action.reject"


def test_without_a_value_to_revert_to_a_killed_daemon_reverts_nothing(
    broker: LocalBroker, tmp_path: Path
) -> None:
    """The control: it is the grant that makes the daemon revert."""

    async def scenario(line: Line) -> None:
        await turned_on(line)
        daemon.kill()
        assert not (tmp_path / "state" / "actions.json").exists()
        daemon.start()
        await line.box_ready()
        await line.verdict(line.inspect(0))
        assert causes(line) == ["wish"]

    with Daemon(broker, tmp_path) as daemon:
        daemon.ready()
        play(broker, scenario)


def test_a_daemon_that_is_stopped_leaves_nothing_on(broker: LocalBroker, tmp_path: Path) -> None:
    async def scenario(line: Line) -> None:
        await turned_on(line)
        assert await asyncio.to_thread(daemon.end, signal.SIGTERM) == 0
        await until(lambda: "stop" in causes(line), "it is reverted")
        assert causes(line) == ["wish", "stop"]
        assert json.loads((tmp_path / "state" / "actions.json").read_text()) == []

    with Daemon(broker, tmp_path, deployment=reverting(tmp_path, 50_000)) as daemon:
        daemon.ready()
        play(broker, scenario)


# Log lines


@pytest.mark.parametrize("granted", [0, 3])
def test_a_guest_logs_within_its_grant_and_no_more(
    broker: LocalBroker, tmp_path: Path, granted: int
) -> None:
    deployment = changed(
        tmp_path,
        logging_policy("warm\\1b[2J"),
        (r"^memory_mib = 4$", f"memory_mib = 4\nlog_lines_per_minute = {granted}"),
    )

    async def scenario(line: Line) -> None:
        await line.all_verdicts([line.inspect(part) for part in range(5)])
        denied = "guest_lines_denied{pipeline=pcb,role=decide}"
        # The probe frame's line is the first.
        await line.status(
            lambda s: s["counters"].get(denied) == 6 - granted, "the others are counted"
        )

    with Daemon(broker, tmp_path, deployment=deployment, overrides=FAST_STATUS) as daemon:
        daemon.ready()
        play(broker, scenario)
        lines = daemon.events("guest_log")
        assert [(line["guest"], line["text"]) for line in lines] == [
            ("policy.wasm", "warm\\x1b[2J")
        ] * granted
        assert daemon.logged("guest_line_denied")["role"] == "decide"


# Signals


@pytest.mark.parametrize("granted", [True, False])
def test_a_guest_sees_a_signal_that_it_is_granted_and_no_other(
    broker: LocalBroker, tmp_path: Path, granted: bool
) -> None:
    """The policy looks for the signal's value in all of its memory."""
    oven = '\n[[pipelines.pcb.signals]]\nname = "signal.oven"\nmax_age_ms = 60000\n'
    deployment = changed(
        tmp_path,
        prying_policy(SECRET),
        (r"\n\[\[pipelines.pcb.actions\]\]", (oven if granted else "\n") + r"\g<0>"),
    )

    async def scenario(line: Line) -> None:
        line.session.publish("line/oven", str(SECRET).encode())
        await until(lambda: line.session.unanswered == 0, "the oven has spoken")
        verdict = await line.verdict(line.inspect(0))
        assert verdict["verdict"] == ("reject" if granted else "pass")

    overrides = ('bindings.signal.oven="line/oven"',)
    with Daemon(broker, tmp_path, deployment=deployment, overrides=overrides) as daemon:
        daemon.ready()
        play(broker, scenario)


# State


def test_a_window_survives_the_kill_of_its_worker(broker: LocalBroker, tmp_path: Path) -> None:
    async def scenario(line: Line) -> None:
        judged = 0
        for _ in range(3):
            for name in [line.inspect(part) for part in range(3)]:
                verdict = await line.verdict(name)
                judged += 1
                assert (verdict["reason"], verdict["score"]) == ("ok", judged / 100)
            worker = daemon.worker()
            os.kill(worker, signal.SIGKILL)
            await line.status(stands_beside(worker), "another worker stands")
        verdict = await line.verdict(line.inspect(0))
        assert (verdict["reason"], verdict["score"]) == ("ok", 0.1)

    deployment = changed(tmp_path, counting_policy())
    with Daemon(broker, tmp_path, deployment=deployment, overrides=FAST_STATUS) as daemon:
        daemon.ready()
        play(broker, scenario)
        assert not daemon.events("policy_state_refused")


def test_a_state_that_cannot_be_read_is_logged_counted_and_told(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(line: Line) -> None:
        await line.all_verdicts([line.inspect(part) for part in range(2)])
        line.lamp(EVIL_LAMP)
        await line.verdict(line.inspect(0))
        line.lamp(1.0)
        await line.all_verdicts([line.inspect(part) for part in range(2)])
        counter = "policy_states_refused{pipeline=pcb}"
        status = await line.status(lambda s: s["counters"].get(counter, 0) >= 1, "it is counted")
        policy = status["pipelines"]["pcb"]["policy"]
        assert "edge_state_restore" in policy["state_refused"]

    deployment = changed(tmp_path, forgetful_policy())
    overrides = (*FAST_STATUS, TIMED_LAMP)
    with Daemon(broker, tmp_path, deployment=deployment, overrides=overrides) as daemon:
        daemon.ready()
        play(broker, scenario)
        assert "started empty" in daemon.logged("policy_state_refused")["detail"]


def stands_beside(gone: int) -> Callable[[dict[str, Any]], bool]:
    """The claim that a worker stands that is not this one."""

    def claim(status: dict[str, Any]) -> bool:
        pipeline = status["pipelines"].get("pcb", {"worker_pid": 0})
        return bool(status.get("ready")) and pipeline["worker_pid"] not in (0, gone)

    return claim


def play(broker: LocalBroker, scenario: Any) -> None:
    async def run() -> None:
        async with line_to(broker) as line:
            await scenario(line)

    asyncio.run(run())
