"""The page beside a real daemon: what it hears, shows and says, and that it holds nobody up."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from brokers import Peer, running, section, until
from consoles import Console
from daemons import Daemon, line_to

from edge.console.live import MAX_STATUS_BYTES, MAX_VERDICT_BYTES
from edge.mqtt.brokers import LocalBroker


def _now(console: Console) -> dict[str, Any]:
    now: dict[str, Any] = console.visitor.get("/api/live")
    return now


def _lines(console: Console, part: str) -> list[dict[str, Any]]:
    answer = console.visitor.ask(f"/api/records?part={part}")
    # Before its first record a box has no ledger, and the page says so.
    return answer.json["lines"] if answer.status == 200 else []


def test_a_board_is_seen_live_found_shown_and_corrected(
    broker: LocalBroker, daemon: Daemon
) -> None:
    folder = daemon.log_file.parent

    async def scenario(console: Console) -> None:
        async with line_to(broker, "page-line") as line:
            await until(lambda: _now(console)["status"] is not None, "the page has the status")
            name = line.inspect(1, defects=("open",), part_id="p-7")
            verdict = await line.verdict(name)
            await until(lambda: bool(_now(console)["verdicts"]), "the page has the verdict")
            now = _now(console)
            assert (now["broker"], now["outdated_s"]) == ("", 0.0)
            assert now["status"]["pipelines"]["pcb"]["ready"] is True
            heard = now["verdicts"][0]
            assert (heard["frame_id"], heard["verdict"]) == (name, verdict["verdict"])
            await until(lambda: bool(_lines(console, "p-7")), "the page finds the part")
            seq = _lines(console, "p-7")[0]["seq"]
            await until(
                lambda: console.visitor.get(f"/api/records/{seq}")["images"]["frame"] == "",
                "its frame is kept",
            )
            picture = console.visitor.ask(f"/api/records/{seq}/frame")
            assert picture.body.startswith(b"\xff\xd8\xff")

            word = {"seq": seq, "verdict": "pass", "by": "quality", "reason": "a reflex"}
            answer = console.visitor.post("/api/override", word)
            assert answer.status == 200, answer
            about = console.visitor.get(f"/api/records/{seq}")
            assert [said["verdict"] for said in about["words"]] == ["pass"]
            assert about["words"][0]["via"].startswith("uid ")

    with Console(broker.port, folder) as console:
        asyncio.run(scenario(console))
        assert console.end() == 0
    assert daemon.alive


def test_a_daemon_that_went_is_told_and_its_records_stay(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon, console: Console) -> None:
        async with line_to(broker, "other-line", "box2") as line:
            await line.verdict(line.inspect(1, part_id="p-8"))
            await until(lambda: _now(console)["status"] is not None, "the page has the status")
            # The verdict goes out at once; its record is committed a moment later.
            await until(lambda: bool(_lines(console, "p-8")), "its record is there")
            daemon.kill()
            await until(
                lambda: _now(console)["status"]["state"] == "offline", "the page says offline"
            )
            word = {"seq": 1, "verdict": "pass", "by": "quality", "reason": "a reflex"}
            answer = console.visitor.post("/api/override", word)
            assert (answer.status, "no daemon runs" in answer.json["error"]) == (409, True)
            assert _lines(console, "p-8")

    box2 = ("device.id=box2", "status.interval_s=0.5")
    words = tuple(word for override in box2 for word in ("--set", override))
    with (
        Daemon(broker, tmp_path, overrides=box2) as daemon,
        Console(broker.port, tmp_path, *words) as console,
    ):
        asyncio.run(scenario(daemon.ready(), console))


def test_what_is_no_verdict_or_no_status_is_counted_and_left(
    broker: LocalBroker, tmp_path: Path
) -> None:
    sound = {
        "pipeline": "pcb",
        "frame_id": "f-1",
        "part_id": "<img src=x>",
        "verdict": "pass",
        "reason": "ok",
        "captured_at_ns": 1,
        "of a newer daemon": [],
    }
    unfit = (
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(sound | {"verdict": "maybe"}).encode(),
        json.dumps(sound | {"reason": "x" * MAX_VERDICT_BYTES}).encode(),
    )
    statuses = (b"null", b"[]", json.dumps({"x": "y" * MAX_STATUS_BYTES}).encode())
    late = {"state": "online", "ready": True, "time_ns": time.time_ns() - 3_600 * 10**9}

    async def scenario(console: Console) -> None:
        async with running(Peer(section(broker), "stranger", {})) as stranger:
            await until(lambda: _now(console)["broker"] == "", "the page is connected")
            for payload in statuses:
                await stranger.publish("edge/box9/status", payload)
            for payload in unfit:
                await stranger.publish("edge/box9/pcb/verdict", payload)
            await stranger.publish("edge/box9/pcb/verdict", json.dumps(sound).encode())
            await stranger.publish("edge/box9/status", json.dumps(late).encode())
            await until(lambda: _now(console)["status"] is not None, "the status is heard")
            await until(lambda: bool(_now(console)["verdicts"]), "the verdict is heard")
            now = _now(console)
            assert now["unread"] == len(unfit) + len(statuses)
            assert [each["part_id"] for each in now["verdicts"]] == ["<img src=x>"]
            # A daemon that spoke an hour ago is not taken for one that runs.
            assert 3_500 < now["outdated_s"] < 3_700

    with Console(broker.port, tmp_path, "--set", "device.id=box9") as console:
        asyncio.run(scenario(console))


def test_the_daemon_carries_nothing_of_the_page() -> None:
    code = (
        "import sys, edge.cli.main, edge.cli.run; "
        "print([m for m in sys.modules if m.split('.')[0] in ('starlette', 'uvicorn', 'h11')"
        " or m.startswith('edge.console')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
