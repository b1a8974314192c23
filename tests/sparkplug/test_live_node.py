"""A node that is somebody else's work, from its birth to its death, before the real daemon."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from brokers import require_mosquitto, until
from daemons import Daemon, Line, line_to

from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

HERE = Path(__file__).parent
LAMP = 'bindings.signal.lamp={topic="spBv1.0/plant7/+/line3/lamp", metric="brightness"}'


def started(port: int) -> subprocess.Popen[str]:
    python = Path(os.environ["EDGE_SPARKPLUG_PEERS"]) / "venv/bin/python"
    command = [str(python), str(HERE / "node.py"), str(port)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


@pytest.mark.skipif("EDGE_SPARKPLUG_PEERS" not in os.environ, reason="`make sparkplug` runs it")
def test_a_node_of_pysparkplug_is_heard_until_it_dies(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            overrides = ("status.interval_s=0.5", LAMP)
            with Daemon(broker, tmp_path, overrides=overrides):
                async with line_to(broker) as line:
                    with started(broker.port) as node:
                        await lived(line, node)

    async def lived(line: Line, node: subprocess.Popen[str]) -> None:
        heard: list[str] = []

        def hear(message: Incoming) -> None:
            heard.append(message.topic.split("/")[2])
            line.session.acknowledge(message)

        line.session.subscribe("spBv1.0/plant7/#", 1, hear)
        assert node.stdin is not None
        await until(lambda: "DBIRTH" in heard, "the lamp is born")
        for value, reason in (("0.2", "lamp-failure"), ("0.9", "ok"), ("0.3", "lamp-failure")):
            heard.clear()
            node.stdin.write(value + "\n")
            node.stdin.flush()
            await until(lambda: "DDATA" in heard, "the lamp has spoken")
            assert (await line.verdict(line.inspect(0)))["reason"] == reason
        node.stdin.close()
        await until(lambda: "NDEATH" in heard, "the broker has told the death")
        assert (await line.verdict(line.inspect(0)))["reason"] == "ok"
        status = await line.status(
            lambda s: s["counters"].get("signals_received{signal=signal.lamp}") == 4, "all counted"
        )
        assert "signals_refused{signal=signal.lamp}" not in status["counters"]
        assert "sparkplug_gaps{node=plant7/line3}" not in status["counters"]

    asyncio.run(scenario())
