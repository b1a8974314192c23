"""What a person says of a verdict becomes a record, by the control socket of the running daemon."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from brokers import require_mosquitto, until
from daemons import Daemon, line_to

from edge.cli.main import main
from edge.daemon import control
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

QUICK = ("status.interval_s=0.5",)
WHO = ("--by", "line lead", "--reason", "a scratch on the lens, not on the board")


async def _said(*words: str) -> tuple[int, str]:
    """Run `edge ledger override` as a person would, and return its status and what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "edge.cli.main", "ledger", "override", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_an_override_is_recorded_sent_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mosquitto()
    state = str(tmp_path / "state")
    sent: list[dict[str, Any]] = []

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK):
                async with line_to(broker) as line:

                    def take(message: Incoming) -> None:
                        sent.append(json.loads(message.payload))
                        line.session.acknowledge(message)

                    line.session.subscribe("edge/box1/records", 1, take)
                    await line.verdict(line.inspect(1, defects=("open",), part_id="p-7"))
                    await line.status(lambda s: s["ledger"].get("committed") == 1, "it is recorded")
                    said = await _said(state, "--part", "p-7", "--verdict", "pass", *WHO)
                    assert said == (0, "recorded as 2\n")
                    assert (await _said(state, "--part", "p-8", "--verdict", "pass", *WHO)) == (
                        1,
                        "edge: refused: no verdict of part 'p-8' is kept here\n",
                    )
                    refused = await _said(state, "--seq", "2", "--verdict", "pass", *WHO)
                    assert refused[0] == 1
                    assert "record 2 is an override itself" in refused[1]
                    await until(lambda: any(r["type"] == "override" for r in sent), "it is sent")
                    await line.status(
                        lambda s: s["counters"].get("verdicts_overridden{kind=pass}") == 1,
                        "it is counted",
                    )

    asyncio.run(scenario())
    (record,) = (r for r in sent if r["type"] == "override")
    assert (record["of"], record["was"], record["verdict"]) == (1, "reject", "pass")
    assert record["by"] == "line lead"
    assert record["via"].startswith(f"uid {os.getuid()}")
    assert main(["ledger", "verify", state]) == 0
    assert main(["ledger", "show", state, "--part", "p-7"]) == 0
    shown = capsys.readouterr().out
    assert "said of record 1, a reject, by line lead" in shown


def test_only_the_daemons_user_may_speak_and_only_in_requests(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK) as daemon:
                async with line_to(broker):
                    place = tmp_path / "state" / control.SOCKET
                    assert stat.S_IMODE(place.stat().st_mode) == 0o600
                    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
                    for nonsense in (
                        b"\n",
                        b"[[[[\n",
                        b'{"verdict":"burn"}\n',
                        b"x" * 20_000 + b"\n",
                    ):
                        answer = await asyncio.to_thread(_raw, place, nonsense)
                        assert answer == b"" or json.loads(answer)["refusal"]
                    assert await asyncio.to_thread(daemon.end) == 0
                    assert not place.exists()

    asyncio.run(scenario())


def _raw(place: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(f"/proc/self/fd/{_folder(place)}/{place.name}")
        connection.sendall(request)
        try:
            return connection.recv(4_096)
        except ConnectionResetError:
            return b""


def _folder(place: Path) -> int:
    return os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK):
                async with line_to(broker):
                    # Open folders: it is the socket itself that keeps them out.
                    for folder in (tmp_path / "state", tmp_path, *tmp_path.parents):
                        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                            folder.chmod(folder.stat().st_mode | 0o055)
                    done = await asyncio.to_thread(
                        subprocess.run,
                        ["python3", "-c", _AS_NOBODY, str(tmp_path / "state")],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert done.stdout.strip() == "PermissionError", done.stderr

    asyncio.run(scenario())


_AS_NOBODY = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
folder = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
try:
    socket.socket(socket.AF_UNIX).connect(f"/proc/self/fd/{folder}/control.sock")
except OSError as refused:
    print(type(refused).__name__)
"""
