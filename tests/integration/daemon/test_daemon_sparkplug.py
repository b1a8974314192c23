"""A lamp that a Sparkplug edge node speaks for: born, read by its alias, and dead with its node."""

import asyncio
import json
import time
from pathlib import Path

from brokers import require_mosquitto, until
from clouds import Cloud
from daemons import Daemon, Line, line_to
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sparkplug_nodes import Payload, bd_seq, double, payload

from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

LAMP = (
    'bindings.signal.lamp={topic="spBv1.0/plant7/+/line3/lamp", metric="brightness", rebirth=true}'
)


class Node:
    """`plant7/line3` with the device `lamp`, whose will is its death; heard by the line too."""

    def __init__(self, broker: LocalBroker, line: Line) -> None:
        self.commands: list[bytes] = []
        self._heard: list[str] = []
        self._line = line
        line.session.subscribe("spBv1.0/plant7/#", 1, self._hear)
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.will_set("spBv1.0/plant7/NDEATH/line3", payload(bd_seq(7)), 1)
        self._client.on_message = self._command
        self._client.connect(broker.host, broker.port)
        self._client.subscribe("spBv1.0/plant7/NCMD/line3", 1)
        self._client.loop_start()

    def _hear(self, message: Incoming) -> None:
        self._heard.append(message.topic.split("/")[2])
        self._line.session.acknowledge(message)

    def _command(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self.commands.append(bytes(message.payload))

    async def say(self, kind: str, data: bytes, device: str = "") -> None:
        """Say it and wait until it was delivered: what is sent after it comes after it."""
        before = self._heard.count(kind)
        topic = f"spBv1.0/plant7/{kind}/line3" + device
        assert self._client.publish(topic, data, 0).rc == 0
        await until(lambda: self._heard.count(kind) > before, f"{kind} is heard")

    async def bright(self, value: float, seq: int) -> None:
        sample = {"alias": 5, "double_value": value, "timestamp": time.time_ns() // 1_000_000}
        await self.say("DDATA", payload(sample, seq=seq), "/lamp")

    async def vanish(self) -> None:
        """Lose the connection without a goodbye."""
        self._client.loop_stop()
        socket = self._client.socket()
        assert socket is not None
        socket.close()
        await until(lambda: "NDEATH" in self._heard, "the broker has published the will")


async def has_read(line: Line) -> None:
    """Wait until the box has read what was said so far: a birth or death counts from its arrival,
    which on a busy machine may be later than the capture of the next frame.
    """
    await line.verdict(line.inspect(0))


def test_a_lamp_by_sparkplug_decides_while_its_node_lives(tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            overrides = ("status.interval_s=0.5", LAMP)
            with Daemon(broker, tmp_path, overrides=overrides):
                async with line_to(broker) as line:
                    await inspected(broker, line)

    async def inspected(broker: LocalBroker, line: Line) -> None:
        cloud, node = Cloud(line), Node(broker, line)
        await node.bright(0.2, seq=9)
        unborn = line.inspect(0)
        assert (await line.verdict(unborn))["reason"] == "ok"
        await until(lambda: bool(node.commands), "the node is asked for its births")
        (command,) = Payload.FromString(node.commands[0]).metrics
        assert (command.name, command.boolean_value) == ("Node Control/Rebirth", True)

        await node.say("NBIRTH", payload(bd_seq(7), seq=0))
        lamp = double(1.0, name="brightness", alias=5)
        await node.say("DBIRTH", payload(lamp, seq=1), "/lamp")
        await has_read(line)
        bright = line.inspect(1)
        assert (await line.verdict(bright))["reason"] == "ok"
        await node.bright(0.25, seq=2)
        dark = line.inspect(2)
        assert (await line.verdict(dark))["reason"] == "lamp-failure"
        await node.vanish()
        await has_read(line)
        dead = line.inspect(3)
        assert (await line.verdict(dead))["reason"] == "ok"  # on_absent = "ignore"

        await until(lambda: len(cloud.bodies) == 6, "the records have come")
        records = [json.loads(body) for body in cloud.bodies.values()]
        told = {record["frame_id"]: record["signals"]["signal.lamp"] for record in records}
        seen = [(told[name]["value"], told[name]["state"]) for name in (unborn, bright, dark, dead)]
        assert seen == [(0.0, "absent"), (1.0, "fresh"), (0.25, "fresh"), (0.0, "absent")]
        status = await line.status(
            lambda s: s["counters"].get("signals_received{signal=signal.lamp}") == 2, "both counted"
        )
        assert status["counters"]["signals_refused{signal=signal.lamp}"] == 1
        assert status["counters"]["sparkplug_rebirths_asked{node=plant7/line3}"] == 1

    asyncio.run(scenario())
