"""`edge status` against a real daemon behind a real Mosquitto, and where there is neither."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import connected, require_mosquitto, running_broker, until
from daemons import CONFIG, Daemon, line_to

from edge.cli.main import main
from edge.mqtt.brokers import LocalBroker

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def daemon(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("box")
    with Daemon(broker, folder, overrides=("status.interval_s=0.5",)) as started:
        yield started.ready()


def command(broker: LocalBroker, *more: str) -> list[str]:
    port = f"broker.port={broker.port}"
    return ["status", "--config", str(CONFIG), "--set", port, *more]


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.usefixtures("daemon")
def test_a_ready_daemon_is_shown_with_all_that_matters(
    broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    async def one_frame() -> None:
        async with line_to(broker) as line:
            frame_id = line.send(b"no image at all", reference="board-0003")
            await line.verdict(frame_id)
            heard = len(line.statuses)
            await until(lambda: len(line.statuses) >= heard + 2)  # these count the verdict

    asyncio.run(one_frame())
    assert main(command(broker)) == 0
    said = flat(capsys.readouterr().out)
    assert "box1 ready edge" in said
    assert "MQTT 5" in said
    assert re.search(r"deployment pcb revision \d+ \([0-9a-f]{12}, UNSIGNED\)", said)
    assert re.search(r"provider cpu, worker process [1-9]\d*", said)
    assert re.search(r"latency p50 [\d.]+, .* of 20000; 0 of 1 over", said)
    assert re.search(r"rate [\d.]+ frames/s", said)
    assert re.search(r"verdicts \w+ decode-error 1", said)
    assert "frames_dropped{reason=decode-error} 1" in said


@pytest.mark.usefixtures("daemon")
def test_json_is_the_status_message_itself(
    broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(broker, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ready"] is True
    assert document["pipelines"]["pcb"]["provider"] == "cpu"


@pytest.mark.usefixtures("daemon")
def test_watch_shows_each_status_until_it_is_interrupted(broker: LocalBroker) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.main", *command(broker, "--watch", "--json")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        times = [json.loads(process.stdout.readline())["time_ns"] for _ in range(3)]
        assert times == sorted(set(times))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("daemon")
def test_watch_redraws_a_terminal(broker: LocalBroker) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.main", *command(broker, "--watch")],
        stdout=theirs,
        stdin=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = b""
    try:
        end = time.monotonic() + DEADLINE_S
        while seen.count(b"revision") < 3 and time.monotonic() < end:
            seen += os.read(ours, 65_536)
        assert seen.count(b"revision") >= 3
        assert b"\x1b[" in seen  # moves the cursor back up
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)
        os.close(ours)


def test_a_stopped_daemon_is_offline_and_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mosquitto()
    with running_broker(kind="mosquitto") as own:
        with Daemon(own, tmp_path) as daemon:
            daemon.ready()
            assert daemon.end() == 0
        assert main(command(own)) == 1
        assert "offline the daemon was stopped" in flat(capsys.readouterr().out)


def publish_status(broker: LocalBroker, **changes: Any) -> None:
    status: dict[str, Any] = {
        "v": 1,
        "state": "online",
        "ready": True,
        "device": "box1",
        "version": "9",
        "time_ns": time.time_ns(),
        "pipelines": {},
    }
    payload = changes.pop("payload", None) or json.dumps({**status, **changes}).encode()

    async def scenario() -> None:
        async with connected(broker, "box") as box:
            assert await box.publish("edge/box1/status", payload, retain=True)

    asyncio.run(scenario())


@pytest.fixture
def empty_broker() -> Iterator[LocalBroker]:
    """A broker of the test's own, which retains nothing of others."""
    require_mosquitto()
    with running_broker(kind="mosquitto") as started:
        yield started


def test_no_status_in_time_is_said_with_the_remedy(
    empty_broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(empty_broker, "--wait", "3")) == 1
    said = capsys.readouterr().err
    assert "no status of box1 on edge/box1/status" in said
    assert "has `edge run` been started there" in said


def test_a_broker_that_is_away_is_said(
    empty_broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    with asyncio.Runner() as runner:
        runner.run(empty_broker.kill())
    assert main(command(empty_broker, "--wait", "0.5")) == 1
    said = capsys.readouterr().err
    assert f"127.0.0.1:{empty_broker.port}" in said
    assert "edge doctor" in said


def test_a_daemon_that_is_not_ready_is_a_finding_with_its_trouble(
    empty_broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble = {
        "ready": False,
        "budget_ms": 200,
        "deployment": {"name": "pcb", "revision": 3, "digest": "ab" * 32, "signed": True},
        "trouble": "model [red]\x1b[2J gone",
    }
    publish_status(empty_broker, ready=False, pipelines={"pcb": trouble})
    assert main(command(empty_broker)) == 1
    said = capsys.readouterr().out
    assert "not ready" in said
    assert "model [red]\\x1b[2J gone" in said  # neither markup nor a cursor movement
    assert "revision 3 (abababababab, signed)" in said


def test_a_status_that_is_not_renewed_is_outdated_and_a_finding(
    empty_broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a broker kept of a box whose power went, broker and box alike: no last will came."""
    publish_status(empty_broker, time_ns=time.time_ns() - 3_600 * 10**9)
    assert main(command(empty_broker, "--wait", "3")) == 1
    assert "outdated: it last spoke 36" in flat(capsys.readouterr().out)


def test_what_is_no_status_is_said(
    empty_broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = b'{"state":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    for payload in (b"\xff", b"[]", b'{"state": 1, "ready": true}', deep):
        publish_status(empty_broker, payload=payload)
        assert main(command(empty_broker)) == 1
        assert "cannot be read" in capsys.readouterr().err


def test_a_user_who_may_not_read_the_status_is_told_of_rights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mosquitto()
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite somewhere/else\n")
    with running_broker(kind="mosquitto", settings=[f"acl_file {rules}"]) as denying:
        assert main(command(denying, "--wait", "3")) == 1
    assert "may this user read the topic" in capsys.readouterr().err
