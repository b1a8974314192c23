"""The shipped access list: a daemon works under it, and whoever asks for more is denied."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Peer, require_mosquitto, running, running_broker, section, until
from consoles import Console
from daemons import ROOT, Daemon, part_jpeg, reference_jpeg

from edge.mqtt.brokers import LocalBroker

USERS = ("box1", "box2", "camera-top", "plc", "recipes", "collector", "rollouts", "operator")
IDENTITY: dict[str, Any] = {"frame-id": "f1", "reference-id": "board-0003"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalBroker, Path]]:
    """A Mosquitto with the shipped access list and a password for each user."""
    require_mosquitto()
    folder = tmp_path_factory.mktemp("access")
    passwords, rules = folder / "passwords", folder / "edge.acl"
    rules.write_bytes((ROOT / "systemd" / "edge.acl").read_bytes())
    passwords.touch(mode=0o600)
    for user in USERS:
        command = ["mosquitto_passwd", "-b", str(passwords), user, f"of-{user}"]
        subprocess.run(command, check=True, timeout=30)
        (folder / user).write_text(f"of-{user}\n")
    settings = [f"password_file {passwords}", f"acl_file {rules}"]
    with running_broker(kind="mosquitto", anonymous=False, settings=settings) as broker:
        yield broker, folder


def peer(guarded: tuple[LocalBroker, Path], user: str, *filters: str) -> Peer:
    """A client as one of the users."""
    broker, folder = guarded
    named = {"username": user, "password_file": folder / user, "session_expiry_s": 0}
    return Peer(section(broker, **named), f"as-{user}", dict.fromkeys(filters, 1))


def test_a_line_works_under_the_access_list(
    guarded: tuple[LocalBroker, Path], tmp_path: Path
) -> None:
    broker, folder = guarded
    overrides = (
        "status.interval_s=0.5",
        'broker.username="box1"',
        f"broker.password_file={str(folder / 'box1')!r}",
    )

    operator = (
        *("--set", 'broker.username="operator"'),
        *("--set", f"broker.password_file={str(folder / 'operator')!r}"),
    )

    async def scenario(daemon: Daemon, console: Console) -> None:
        async with (
            running(peer(guarded, "recipes")) as recipes,
            running(peer(guarded, "camera-top")) as camera,
            running(peer(guarded, "plc", "edge/box1/+/verdict", "line/top/reject")) as plc,
            running(peer(guarded, "collector", "edge/+/records", "edge/+/status")) as cloud,
        ):
            taught = await recipes.publish(
                "line/top/reference/board-0003", reference_jpeg(3), retain=True
            )
            assert taught
            await until(lambda: bool(daemon.events("ready")), "the daemon is ready")
            await until(
                lambda: console.visitor.get("/api/live")["status"] is not None,
                "the page hears the status",
            )
            assert await camera.publish(
                "line/top/frame",
                part_jpeg(3, 1, ("short",)),
                **IDENTITY,
            )
            heard = {(await plc.next()).topic for _ in range(2)}
            assert heard == {"edge/box1/pcb/verdict", "line/top/reject"}
            topics: set[str] = set()
            while not {"edge/box1/records", "edge/box1/status"} <= topics:
                topics.add((await cloud.next()).topic)
            await until(
                lambda: bool(console.visitor.get("/api/live")["verdicts"]),
                "the page hears the verdict",
            )
        denied = [e for e in daemon.events() if e["event"] == "mqtt-publish-refused"]
        assert not denied

    with (
        Daemon(broker, tmp_path, overrides=overrides) as daemon,
        Console(broker.port, tmp_path, *operator) as console,
    ):
        asyncio.run(scenario(daemon, console))
        # The first look on a box, and the image's health, by the daemon's own config and user.
        sets = (f"broker.port={broker.port}", *overrides)
        command = [sys.executable, "-m", "edge.cli.main", "status", "--json"]
        command += ["--config", str(ROOT / "device_configs" / "x86-cpu.toml")]
        command += [word for each in sets for word in ("--set", each)]
        look = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (look.returncode, json.loads(look.stdout)["ready"]) == (0, True), look
        assert daemon.end() == 0


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("camera-top", "line/top/reference/board-0003"),  # would make any part pass
        ("camera-top", "edge/box1/pcb/verdict"),  # would be the gate's orders
        ("camera-top", "line/top/reject"),
        ("plc", "line/top/frame"),
        ("box2", "edge/box1/status"),
        ("box2", "edge/box1/records"),
        ("box1", "edge/box1/receipts"),  # would drop records that the cloud has not
        ("operator", "edge/box1/receipts"),
        ("operator", "edge/box1/deployment/desired"),
        ("rollouts", "edge/box1/receipts"),
        ("collector", "line/top/frame"),
    ],
)
def test_more_than_is_granted_is_denied(
    guarded: tuple[LocalBroker, Path], user: str, topic: str
) -> None:
    async def scenario() -> None:
        async with running(peer(guarded, user)) as asking:
            assert not await asking.publish(topic, b"x")

    asyncio.run(scenario())


def test_nobody_hears_what_is_not_meant_for_them(guarded: tuple[LocalBroker, Path]) -> None:
    async def scenario() -> None:
        async with (
            running(peer(guarded, "camera-top", "#")) as camera,
            running(peer(guarded, "box2", "edge/box1/receipts", "line/top/frame")) as other,
            running(peer(guarded, "box1", "edge/box1/receipts")) as box,
            running(peer(guarded, "collector")) as cloud,
        ):
            assert await cloud.publish("edge/box1/receipts", b"1")
            assert (await box.next()).payload == b"1"
            # What box1 may hear it has heard; a later message of their own ends the waiting.
            assert await other.publish("edge/box2/doctor", b"own")
            assert camera.messages.empty()
            assert other.messages.empty()

    asyncio.run(scenario())


def test_nobody_is_let_in_without_a_name(guarded: tuple[LocalBroker, Path]) -> None:
    async def scenario() -> None:
        stranger = Peer(section(guarded[0]), "stranger", {})
        async with running(stranger, wait=False):
            await until(lambda: stranger.session.last_error != "", "it is refused")
            assert stranger.session.counters["connects"] == 0

    asyncio.run(scenario())
