"""What a person says of a verdict becomes a record, by a socket of the running daemon."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from brokers import require_mosquitto, until
from daemons import Daemon, line_to, spoken

from edge.cli.main import main
from edge.contracts.verdict import Kind
from edge.daemon import control
from edge.ledger.entry import Correction
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

QUICK = ("status.interval_s=0.5",)
WHO = ("--by", "line lead", "--reason", "a scratch on the lens, not on the board")


SOCKETS = (control.WORDS, control.CONTROL)


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
                    for place in places:
                        assert stat.S_IMODE(place.stat().st_mode) == 0o600
                        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
                        for nonsense in (
                            b"\n",
                            b"[[[[\n",
                            b'{"verdict":"burn"}\n',
                            b'{"type":"\xff"}\n',
                            b"x" * 20_000 + b"\n",
                        ):
                            answer = await asyncio.to_thread(spoken, place, nonsense)
                            if len(nonsense) > control.MAX_LINE_BYTES:
                                assert answer == b""
                            else:
                                assert json.loads(answer)["refusal"]
                    assert await asyncio.to_thread(daemon.end) == 0
                    assert not any(place.exists() for place in places)

    places = [tmp_path / "state" / name for name in SOCKETS]
    asyncio.run(scenario())


def test_each_socket_takes_its_own_kind_of_request_alone(tmp_path: Path) -> None:
    require_mosquitto()
    word = Correction(Kind.PASS, by="line lead", reason="a scratch", part_id="p-7")
    asked = {
        "word": msgspec.json.encode(control.Override(word)) + b"\n",
        "pin": msgspec.json.encode(control.Deployments("pin")) + b"\n",
    }
    said: dict[tuple[str, str], control.Said] = {}

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK):
                async with line_to(broker) as line:
                    await line.verdict(line.inspect(1, part_id="p-7"))
                    await line.status(lambda s: s["ledger"].get("committed") == 1, "it is recorded")
                    for name in SOCKETS:
                        for what, request in asked.items():
                            place = tmp_path / "state" / name
                            answer = await asyncio.to_thread(spoken, place, request)
                            said[name, what] = msgspec.json.decode(answer, type=control.Said)

    asyncio.run(scenario())
    assert said[control.WORDS, "word"] == control.Said(seq=2)
    assert "words.sock takes" in said[control.WORDS, "pin"].refusal
    # It has come to whom it was for: a local folder has nothing to pin.
    assert "a local folder runs here" in said[control.CONTROL, "pin"].refusal
    assert "control.sock takes" in said[control.CONTROL, "word"].refusal
    assert main(["ledger", "verify", str(tmp_path / "state"), "--json"]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=QUICK):
                async with line_to(broker):
                    # Open folders: it is the socket itself that keeps them out.
                    words = Path(places[0]).parent
                    for folder in (words, tmp_path / "state", tmp_path, *tmp_path.parents):
                        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                            folder.chmod(folder.stat().st_mode | 0o055)
                    done = await asyncio.to_thread(
                        subprocess.run,
                        ["python3", "-c", _AS_NOBODY, *places],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert done.stdout.split() == ["PermissionError"] * 2, done.stderr

    places = [str(tmp_path / "state" / name) for name in SOCKETS]
    asyncio.run(scenario())


_AS_NOBODY = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
for place in sys.argv[1:]:
    folder = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY)
    try:
        socket.socket(socket.AF_UNIX).connect(f"/proc/self/fd/{folder}/{os.path.basename(place)}")
    except OSError as refused:
        print(type(refused).__name__)
"""
