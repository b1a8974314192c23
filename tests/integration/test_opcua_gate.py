"""docs/examples/opcua_gate.py between a real daemon and an OPC UA client: `make opcua` runs this.

Skipped where asyncua is not installed (group `opcua` of pyproject.toml): CI has none. The rules of
the gate are held by test_gate.py.
"""

import asyncio
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import port_of_nobody, require_mosquitto
from daemons import ROOT, Daemon, line_to

from edge.mqtt.brokers import LocalBroker

EXAMPLE = ROOT / "docs" / "examples" / "opcua_gate.py"

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("asyncua") is None, reason="asyncua is not installed"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


async def sees(node: Any, claim: Callable[[list[int]], bool], what: str) -> list[int]:
    """Read the block until the claim holds."""
    end = time.monotonic() + 120
    while not claim(block := await node.read_value()):
        if time.monotonic() > end:
            pytest.fail(f"the client does not see that {what}: {block}")
        await asyncio.sleep(0.005)  # between two looks, until the deadline
    return list(block)


def of_part(name: str) -> Callable[[list[int]], bool]:
    return lambda block: block[4] == int.from_bytes(name.encode()[:2])


def test_an_opcua_client_sees_verdicts_and_may_not_write(tmp_path: Path) -> None:
    from asyncua import Client, ua

    require_mosquitto()
    endpoint = f"opc.tcp://127.0.0.1:{port_of_nobody()}/edge"

    async def scene(broker: LocalBroker, daemon: Daemon, node: Any) -> None:
        async with line_to(broker) as line:
            await sees(node, lambda block: block[1] == 1, "the box is ready")
            line.inspect(0, part_id="good")
            shown = await sees(node, of_part("good"), "a verdict is shown")
            assert shown[1:4] == [1, 1, 1]
            line.inspect(1, part_id="bad", defects=("open",))
            shown = await sees(node, of_part("bad"), "a verdict is shown")
            assert shown[1:4] == [1, 2, 2]
            with pytest.raises(ua.UaStatusCodeError):
                await node.write_value(ua.Variant([1] * 20, ua.VariantType.UInt16))
            daemon.kill()
            await sees(node, lambda block: block[1] == 0, "the box has gone")

    async def stand() -> int:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=("status.interval_s=0.2",)) as daemon:
                daemon.ready()
                bridge = await asyncio.create_subprocess_exec(
                    *(sys.executable, EXAMPLE, "--endpoint", endpoint, "--hold-ms", "2000"),
                    *(
                        "--broker-port",
                        str(broker.port),
                        "--max-age-ms",
                        "5000",
                        "--status-within-s",
                        "3600",
                    ),
                )
                try:
                    node = await connected(endpoint)
                    async with node[0]:
                        await scene(broker, daemon, node[1])
                finally:
                    bridge.terminate()
                return await bridge.wait()

    async def connected(endpoint: str) -> tuple[Client, Any]:
        """Wait for the server, and return a client that is not open yet, and the node."""
        end = time.monotonic() + 120
        while True:
            client = Client(endpoint)
            try:
                async with client:
                    space = await client.get_namespace_index("urn:edge:gate")
                again = Client(endpoint)
                return again, again.get_node(ua.NodeId("Gate.Block", space))
            except (TimeoutError, OSError):
                assert time.monotonic() < end, "the server answers"
                await asyncio.sleep(0.05)  # between two looks, until the deadline

    assert asyncio.run(stand()) == 0
