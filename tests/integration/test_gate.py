"""docs/examples/modbus_gate.py between a real daemon and a real Modbus TCP server.

The test is the PLC's program: it reads the registers, and opens for nothing but a pass.
"""

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brokers import port_of_nobody, require_mosquitto
from daemons import ROOT, Daemon, line_to
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.mqtt.brokers import LocalBroker

EXAMPLE = ROOT / "docs" / "examples" / "modbus_gate.py"
ADDRESS = 40
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Block:
    """What the PLC reads."""

    heartbeat: int
    state: int
    sequence: int
    verdict: int
    part: str


class Plc:
    """A Modbus TCP server, and the PLC's own reading of it."""

    def __init__(self, client: AsyncModbusTcpClient) -> None:
        self._client = client

    async def read(self) -> Block:
        answer = await self._client.read_holding_registers(ADDRESS, count=20)
        assert not answer.isError()
        words = list(answer.registers)
        text = b"".join(word.to_bytes(2) for word in words[4:]).rstrip(b"\0").decode()
        return Block(words[0], words[1], words[2], words[3], text)

    async def sees(self, claim: Callable[[Block], bool], what: str) -> Block:
        """Read until the claim holds."""
        end = time.monotonic() + 120
        while not claim(block := await self.read()):
            if time.monotonic() > end:
                pytest.fail(f"the PLC does not see that {what}: {block}")
            await asyncio.sleep(0.005)  # between two looks, until the deadline
        return block


@asynccontextmanager
async def plc() -> AsyncIterator[tuple[Plc, int]]:
    """A PLC whose registers hold what a stopped bridge may have left there: a pass."""
    port = port_of_nobody()
    registers = SimData(ADDRESS, values=[9, 1, 9, 1, *([0x4242] * 16)], datatype=DataType.REGISTERS)
    server = ModbusTcpServer(SimDevice(id=1, simdata=[registers]), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    try:
        assert await client.connect()
        yield Plc(client), port
    finally:
        client.close()
        await server.shutdown()


@asynccontextmanager
async def bridge(broker: LocalBroker, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The example, as its user runs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, EXAMPLE, "--broker-port", str(broker.port), "--plc", "127.0.0.1"),
        *("--plc-port", str(port), "--address", str(ADDRESS), "--beat-ms", "20"),
        *("--hold-ms", "5000", "--max-age-ms", "60000", "--status-within-s", "3600"),
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def test_a_gate_opens_for_a_pass_and_never_on_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    require_mosquitto()

    async def scene() -> None:
        async with LocalBroker(kind="mosquitto") as broker, plc() as (gate, port):
            with Daemon(broker, tmp_path, overrides=("status.interval_s=0.2",)) as daemon:
                async with bridge(broker, port) as process:
                    first = await gate.sees(lambda b: b.part == "", "the bridge has begun")
                    assert (first.state, first.verdict) == (0, 0)
                    daemon.ready()
                    async with line_to(broker) as line:
                        await gate.sees(lambda b: b.state == 1, "the box is ready")
                        line.inspect(0, part_id="good")
                        shown = await gate.sees(lambda b: b.part == "good", "a verdict is shown")
                        assert (shown.verdict, shown.sequence) == (1, 1)
                        line.inspect(1, part_id="bad", defects=("open",))
                        shown = await gate.sees(lambda b: b.part == "bad", "a verdict is shown")
                        assert (shown.verdict, shown.sequence) == (2, 2)
                        line.send(b"?", part_id="unclear")
                        shown = await gate.sees(lambda b: b.part == "unclear", "a verdict is shown")
                        assert (shown.verdict, shown.sequence) == (3, 3)
                        line.inspect(1, part_id="held")
                        await gate.sees(lambda b: b.part == "held" and b.verdict == 1, "it passes")
                        await gate.sees(lambda b: b.verdict == 0, "no pass outlives its time")
                        daemon.kill()
                        await gate.sees(lambda b: b.state == 0, "the box has gone")
                        daemon.start()
                        await gate.sees(lambda b: b.state == 1, "the box is back")
                        await broker.kill()
                        await gate.sees(lambda b: b.state == 0, "the broker has gone")
                        await broker.start()
                        await gate.sees(lambda b: b.state == 1, "the broker is back")
                    process.terminate()
                    assert await process.wait() == 0
                    left = await gate.read()
                    assert (left.state, left.verdict) == (0, 0)
                    assert (await gate.read()).heartbeat == left.heartbeat

    asyncio.run(scene())
    told = [line for line in capfd.readouterr().err.splitlines() if "gate: broker" in line]
    words = [line.split(": ", 2)[2].split(";")[0] for line in told]
    assert words == ["connected", "no connection", "connected"]  # once each, and no farewell


def example() -> Any:
    spec = importlib.util.spec_from_file_location("modbus_gate", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdict(**changes: object) -> bytes:
    said = {"verdict": "pass", "part_id": "p", "frame_id": "f", "captured_at_ns": SECOND_NS}
    return json.dumps({**said, **changes}).encode()


READY = b'{"state": "online", "ready": true}'


@pytest.fixture
def gate() -> Any:
    """A gate of a box that is ready, at time 0; its verdicts hold 1 s, its status 10 s."""
    made = example().Gate(hold_s=1.0, max_age_s=0.5, status_within_s=10.0)
    made.status(READY, 0.0, retained=False)
    return made


def test_a_fresh_pass_is_shown_for_its_time(gate: Any) -> None:
    gate.verdict(verdict(), 5.0, SECOND_NS)
    assert gate.registers(5.9)[1:5] == [1, 1, 1, ord("p") << 8]
    assert gate.registers(6.0)[1:4] == [1, 1, 0]


@pytest.mark.parametrize(
    "payload",
    [
        verdict(verdict="reject"),
        verdict(verdict="review"),
        verdict(verdict="PASS"),
        verdict(captured_at_ns=SECOND_NS // 4),
        verdict(captured_at_ns=2 * SECOND_NS),
        verdict(captured_at_ns=None),
        b"[]",
        b"\xff",
        b"",
    ],
)
def test_nothing_but_a_fresh_pass_is_one(gate: Any, payload: bytes) -> None:
    gate.verdict(verdict(), 5.0, SECOND_NS)
    message = type("Message", (), {"topic": "v", "payload": payload, "retain": False})
    module = example()
    gate_take(module, gate, message, SECOND_NS)
    assert gate.registers(5.1)[3] != 1
    assert gate.registers(5.1)[2] == 2


def gate_take(module: Any, gate: Any, message: Any, utc_ns: int) -> None:
    """Hand a message over at a time of the wall clock."""
    module.time = type("Clock", (), {"time_ns": staticmethod(lambda: utc_ns)})
    module.take(gate, message, 5.0)


@pytest.mark.parametrize(
    ("payload", "retained"),
    [
        (b'{"state": "offline", "ready": false}', False),
        (b'{"state": "offline", "ready": false}', True),
        (b'{"state": "online", "ready": false}', False),
        (b'{"state": "online", "ready": 1}', False),
        (b"{}", False),
    ],
)
def test_a_box_that_is_not_ready_stops_the_gate(gate: Any, payload: bytes, retained: bool) -> None:
    gate.verdict(verdict(), 5.0, SECOND_NS)
    gate.status(payload, 5.1, retained)
    assert gate.registers(5.2)[1:4] == [0, 1, 0]


def test_a_box_that_says_nothing_of_itself_stops_the_gate(gate: Any) -> None:
    gate.verdict(verdict(), 9.9, SECOND_NS)
    assert gate.registers(9.99)[1:4] == [1, 1, 1]
    gate.status(READY, 9.99, retained=True)  # from the broker's shelf: it proves nothing
    assert gate.registers(10.0)[1:4] == [0, 1, 0]
    gate.status(READY, 10.1, retained=False)
    assert gate.registers(10.2)[1] == 1


@pytest.mark.parametrize("part", ["x" * 33, "é"])
def test_a_part_whose_id_could_be_taken_for_another_does_not_pass(gate: Any, part: str) -> None:
    gate.verdict(verdict(part_id=part), 5.0, SECOND_NS)
    shown = gate.registers(5.1)
    assert shown[1:4] == [1, 1, 0]
    assert len(shown) == 20
    gate.verdict(verdict(part_id="x" * 32), 5.0, SECOND_NS)
    assert gate.registers(5.1)[3:] == [1, *[0x7878] * 16]
