"""What the supervisor does while its broker is away."""

import asyncio
from pathlib import Path

import pytest

from edge.config import DeviceConfig, parse
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


def test_a_storage_folder_that_is_taken_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        await supervise(device(tmp_path / "file" / "state"), (), Notifier())

    with pytest.raises(ConfigError, match=r"storage\.path"):
        asyncio.run(scenario())
