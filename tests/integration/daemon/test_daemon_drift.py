"""A lamp that ages and a lens that fouls, before the real daemon: it warns, and goes on judging."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ageing import LEARN, WINDOW, blurred, darker, play, watched_closely
from brokers import require_mosquitto, until
from daemons import CONFIG, Daemon, Line, line_to

from edge.daemon.drifting import FILE
from edge.mqtt.brokers import LocalBroker

QUICK: Final = ("status.interval_s=0.5",)


def drift(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status["pipelines"]["pcb"]["drift"]
    return found


def drifting(status: dict[str, Any]) -> set[str]:
    return {finding["measure"] for finding in drift(status)["findings"]}


async def said(*words: str) -> tuple[int, str]:
    """Run `edge` as a person would, and return its status and what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "edge.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def watched(line: Line, claim: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """Wait for a status that says it, of a daemon that runs."""
    return await line.status(lambda s: bool(s["pipelines"]) and claim(s), what)


async def learn_anew(at: Sequence[str]) -> None:
    """Do what a person does after a repair; first they forget to say why."""
    learn = ("drift", "learn", *at, "--by", "maintenance", "--reason")
    refused = await said(*learn, " ")
    assert refused == (2, "edge: reason: expected 1 to 500 printable characters\n")
    done = await said(*learn, "another lens")
    assert done == (0, "what is usual is learnt from now on: edge status\n")


def test_pictures_that_change_are_found_named_and_survive_a_restart(tmp_path: Path) -> None:
    require_mosquitto()
    deployment = watched_closely(tmp_path / "deployment")
    state = tmp_path / "state"

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            at = ("--config", str(CONFIG), "--set", f"storage.path={state}")
            textfile = tmp_path / "edge.prom"
            told = (*QUICK, f"metrics.textfile={str(textfile)!r}", "metrics.interval_s=1")
            with Daemon(broker, tmp_path, deployment=deployment, overrides=told) as daemon:
                async with line_to(broker) as line:
                    await play(line, LEARN)
                    assert daemon.logged("drift_learnt")["usual"]["brightness"] > 150
                    # Unchanged boards, more of them than a change needs to be found.
                    await play(line, 2 * WINDOW)
                    status = await watched(line, lambda s: bool(drift(s)["measures"]), "compared")
                    assert drift(status)["state"] == "watching"
                    assert not daemon.events("drift_began")

                    await play(line, WINDOW, darker)
                    status = await watched(line, lambda s: "brightness" in drifting(s), "found")
                    assert "sharpness" not in drifting(status)  # a dim lamp is no bad lens
                    text = next(
                        f["detail"]
                        for f in drift(status)["findings"]
                        if f["measure"] == "brightness"
                    )
                    assert text.startswith(
                        "camera.top is darker than when the reference was learnt"
                    )
                    assert "clean the lens, check the lamp" in text
                    shown = await said("status", *at, "--set", f"broker.port={broker.port}")
                    assert "is darker than when the reference was learnt" in shown[1]
                    await until(
                        lambda: (
                            'edge_drifting{pipeline="pcb",measure="brightness"} 1'
                            in textfile.read_text()
                        ),
                        "the metrics say it",
                    )

                    await play(line, WINDOW + WINDOW // 2, blurred)
                    status = await watched(line, lambda s: "sharpness" in drifting(s), "found")
                    await watched(
                        line, lambda s: "brightness" not in drifting(s), "the lamp is well"
                    )

                    daemon.end()
                    daemon.start()
                    daemon.logged("ready", times=2)
                    status = await watched(line, lambda s: drift(s)["state"] == "drifting", "again")
                    assert "sharpness" in drifting(status)
                    assert len(daemon.events("drift_learnt")) == 1

                    await learn_anew(at)
                    status = await watched(line, lambda s: not drift(s)["findings"], "forgotten")
                    assert drift(status)["state"] == "learning"
                    asked = daemon.logged("drift_learnt_anew")
                    assert (asked["by"], asked["detail"]) == ("maintenance", "another lens")
                    assert asked["drifted"]
                    assert asked["via"].startswith("uid ")
                    await play(line, 3)
                    daemon.end()
            shown = await said("drift", "show", *at)
            assert "board-0003 │ learning, frames: 3" in shown[1]
            assert "another lens" in shown[1]

    asyncio.run(scenario())
    assert set(json.loads((state / FILE).read_text())) == {"pcb"}
