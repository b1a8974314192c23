"""What the supervisor does while its broker is away, and when it ends."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from brokers import until

from edge.config import DeviceConfig, parse
from edge.daemon import leases
from edge.daemon.leases import Lease
from edge.daemon.running import supervise
from edge.daemon.supervisor import Supervisor
from edge.errors import ConfigError
from edge.observability.systemd import Notifier


def device(folder: Path) -> DeviceConfig:
    return parse(
        {"broker": {"port": 1, "max_outgoing": 10}, "storage": {"path": str(folder)}}, "test"
    )


def test_statuses_do_not_pile_up_before_the_verdicts_while_the_broker_is_away(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(device(tmp_path), (), Notifier())
        for _ in range(20):
            supervisor._say_status()
        assert supervisor.session.unanswered == 0
        # Control: what is published without a broker does wait.
        assert supervisor.session.publish("edge/box1/pcb/verdict", b"{}")
        assert supervisor.session.unanswered == 1

    asyncio.run(scenario())


def test_a_stop_turns_off_what_is_on_whatever_the_disk_takes(tmp_path: Path) -> None:
    until_ns = time.time_ns() + 600 * 10**9
    on = Lease("action.reject", "line/top/reject", "pcb", "f-1", "p-1", 0.0, 600_000, until_ns)
    (tmp_path / leases.FILE).write_bytes(msgspec.json.encode([on]))

    async def scenario() -> None:
        supervisor = Supervisor(device(tmp_path), (), Notifier())
        await supervisor.prepare()
        recording, moving = supervisor._recording, asyncio.Event()
        assert recording is not None
        close = recording.close

        async def hang(grace_s: float) -> int:
            await moving.wait()
            return await close(grace_s)

        recording.close = hang  # type: ignore[method-assign]
        draining = asyncio.create_task(supervisor.drain())
        await until(lambda: supervisor.session.unanswered == 1, "its revert is on the way")
        assert not draining.done()
        moving.set()
        await draining

    asyncio.run(scenario())


def test_a_storage_folder_that_is_taken_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        await supervise(device(tmp_path / "file" / "state"), (), Notifier())

    with pytest.raises(ConfigError, match=r"storage\.path"):
        asyncio.run(scenario())
