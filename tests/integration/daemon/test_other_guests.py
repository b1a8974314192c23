"""A policy in Python and a wasi-nn program in the real daemon, by the pages' own commands."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import until
from daemons import DEPLOYMENT, ROOT, Daemon, line_to
from programs import BOARDS, with_program

from edge.mqtt.brokers import LocalBroker
from edge.sdk.languages import TABLE, ToolchainMissingError

READY_S = 150.0
"""A Python interpreter is compiled first: 11 s of an idle core."""


def follow(section: str, folder: Path) -> str:
    """Run the `sh` blocks of a section of docs/guests.md; what they said."""
    text = (ROOT / "docs/guests.md").read_text().partition(f"\n### {section}\n")[2]
    script = "\n".join(
        re.findall(r"^```sh\n(.*?)^```", text.partition("\n### ")[0], re.MULTILINE | re.DOTALL)
    )
    assert script
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(500)
def test_ten_minutes_in_python_change_the_verdicts_of_a_running_daemon(
    broker: LocalBroker, tmp_path: Path
) -> None:
    try:
        TABLE["python"].find()
    except ToolchainMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    for name in ("models/pcb/deployment", "device_configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    said = follow("Python", tmp_path)
    assert "0 failed" in said
    assert "gentle/gentle.wasm: usable" in said
    assert "pcb revision 10" in said

    async def scenario() -> None:
        async with line_to(broker) as line:
            good, bad = line.inspect(0), line.inspect(1, defects=("short",))
            passed, asked = await line.all_verdicts([good, bad])
            assert (passed["verdict"], passed["reason"]) == ("pass", "ok")
            assert (asked["verdict"], asked["reason"]) == ("review", "defect")
            assert asked["deployment"]["revision"] == 10
            for reason in ("defect", "series", "series"):  # its state goes from frame to frame
                again = line.inspect(1, defects=("short",))
                (found,) = await line.all_verdicts([again])
                assert (found["verdict"], found["reason"]) == ("review", reason)

    folder = tmp_path / "box"
    folder.mkdir()
    with Daemon(broker, folder, deployment=tmp_path / "gentle-line") as daemon:
        daemon.logged("ready", deadline_s=READY_S)
        asyncio.run(scenario())


def test_a_wasi_nn_program_rejects_bad_boards_and_asks_for_the_gate(
    broker: LocalBroker, tmp_path: Path
) -> None:
    deployment = with_program(DEPLOYMENT, tmp_path / "nn", BOARDS.read_bytes())

    async def scenario() -> None:
        async with line_to(broker) as line:
            good, bad = line.inspect(0), line.inspect(1, defects=("short",))
            passed, rejected = await line.all_verdicts([good, bad])
            assert (passed["verdict"], passed["reason"]) == ("pass", "ok")
            assert (rejected["verdict"], rejected["reason"]) == ("reject", "defect")
            assert rejected["defects"][0]["class"] == "short"
            assert {"decode", "program", "decide"} < rejected["latency_ms"].keys()
            await until(lambda: "line/top/reject" in line.heard, "the gate is asked")
            lost = line.send(b"no picture", reference="board-0003")
            (failed,) = await line.all_verdicts([lost])
            assert (failed["verdict"], failed["reason"]) == ("review", "decode-error")

    folder = tmp_path / "box"
    folder.mkdir()
    with Daemon(broker, folder, deployment=deployment) as daemon:
        daemon.ready()
        asyncio.run(scenario())
