"""Our own broker: it starts, says why when it cannot, and never outlives us."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import connected, require_mosquitto, until

from edge.errors import TransportError
from edge.mqtt.brokers import LocalBroker


def test_it_names_its_kind_version_and_port_and_leaves_nothing_behind(
    any_broker: LocalBroker,
) -> None:
    assert any_broker.kind in ("mosquitto", "embedded")
    assert any_broker.version[0].isdigit()
    assert 0 < any_broker.port < 65_536

    async def scenario() -> None:
        async with LocalBroker(kind=any_broker.kind) as broker:
            pid, folder = broker.pid, broker.folder
            assert folder.exists()
        assert not _alive(pid)
        assert not folder.exists()

    asyncio.run(scenario())


def test_it_is_stopped_when_the_block_raises() -> None:
    async def scenario() -> None:
        pids: list[int] = []

        async def block() -> None:
            async with LocalBroker() as broker:
                pids.append(broker.pid)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await block()
        assert pids
        assert not _alive(pids[0])

    asyncio.run(scenario())


def test_it_keeps_its_port_over_a_restart(any_broker: LocalBroker) -> None:
    async def scenario() -> None:
        port = any_broker.port
        for end in (any_broker.stop, any_broker.kill):
            await end()
            await any_broker.start()
            assert any_broker.port == port
            async with connected(any_broker, "a", "t") as peer:
                assert await peer.publish("t", b"1")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_a_port_that_is_taken_is_told(kind: str) -> None:
    if kind == "mosquitto":
        require_mosquitto()

    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(TransportError, match="in use"):
                async with LocalBroker(kind=kind, port=port):  # type: ignore[arg-type]
                    pass

    asyncio.run(scenario())


def test_a_wrong_setting_is_told_in_mosquittos_own_words() -> None:
    require_mosquitto()

    async def scenario() -> None:
        with pytest.raises(TransportError, match="no_such_setting"):
            async with LocalBroker(kind="mosquitto", settings=["no_such_setting 1"]):
                pass

    asyncio.run(scenario())


_PARENT = """
import asyncio, os, sys
from edge.mqtt.brokers import LocalBroker

async def main():
    async with LocalBroker(kind=sys.argv[1]) as broker:
        print(broker.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is the Linux kernel's")
@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_it_dies_with_a_parent_that_is_killed(kind: str) -> None:
    if kind == "mosquitto":
        require_mosquitto()
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert _alive(pid)
        finally:
            parent.kill()

    asyncio.run(until(lambda: not _alive(pid), "the broker is gone"))


def _alive(pid: int) -> bool:
    """Whether the process runs: a zombie that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")  # noqa: PTH110
