"""What sensors cost a camera: updates of one signal beside frames, at growing rates.

One daemon, one camera at a steady rate, and a sensor whose values the policy reads with each
frame. In its turn the sensor is silent, sends numbers at a rate, each a message, sends arrays of
timed samples, or sends all that the broker takes. It writes MQTT's packets itself: what is measured
is the daemon's work, not the sensor's.
"""

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.bench.whole_line import (
    LineFigures,
    camera,
    hearing,
    line_figures,
    time_to_ready,
    write_parts,
)
from edge.errors import TrialError
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

SILENT: Final = "silent"
FLOOD: Final = "as many numbers as go"
_TOPIC: Final = b"line/lamp"
_SETTINGS: Final = (
    'bindings.signal.lamp={topic="line/lamp", pointer="/v", time_pointer="/t"}',
    "status.interval_s=0.5",
)
_TICK_S: Final = 0.01
_SAMPLES: Final = 500
"""In one array; it has 17 KB."""
_SETTLED_S: Final = 60.0


class _Sensor(NamedTuple):
    """Messages a second, and samples in each."""

    messages: int
    samples: int = 1


_SENSORS: Final = {
    SILENT: _Sensor(0),
    "100 numbers/s": _Sensor(100),
    "1,000 numbers/s": _Sensor(1_000),
    "5,000 numbers/s": _Sensor(5_000),
    "10,000 numbers/s": _Sensor(10_000),
    "50,000 samples/s in arrays": _Sensor(100, _SAMPLES),
    FLOOD: _Sensor(200_000),
}


class SensorFigures(msgspec.Struct, frozen=True):
    """Beside one sensor.

    Attributes:
        variant: What it sent.
        sent: Values.
        taken: Of them, by the daemon's own count; the broker drops what it cannot deliver (QoS 0).
        supervisor_us: Time on the processor for one value that was taken.
        p99_to_silent: Of the verdicts, over that beside a silent sensor.
    """

    variant: str
    sent: int
    taken: int
    supervisor_us: float
    p99_to_silent: float


class SignalFigures(msgspec.Struct, frozen=True):
    """What was measured: verdicts, and the sensor, by what it sent."""

    lines: list[LineFigures]
    sensors: list[SensorFigures]


class _Turns:
    """What the turns of one variant came to."""

    def __init__(self) -> None:
        self.taken_ms: list[float | None] = []
        self.overruns = self.sent = self.counted = 0
        self.cpu_s = 0.0


async def measure(folder: Path, frames: int, rate_hz: float, turns: int) -> SignalFigures:
    """Measure.

    Args:
        folder: Takes frames, state and log.
        frames: Beside each variant.
        rate_hz: Of the camera.
        turns: How often each variant has its turn.
    """
    pictures, home = folder / "frames", folder / "daemon"
    for each in (pictures, home):
        each.mkdir()
    write_parts(pictures)
    found = {name: _Turns() for name in _SENSORS}
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(LocalBroker(kind="mosquitto"))
        _, daemon = await time_to_ready(broker.port, home, stack, _SETTINGS)
        count = _Counting()
        await stack.enter_async_context(hearing(broker.port, "bench-count", count.hear))
        for turn in range(turns):
            # In the order of the turn: what grows or tires over time falls on all alike.
            for name in reversed(_SENSORS) if turn % 2 else _SENSORS:
                of, before, cpu_s = found[name], count.taken, _cpu_s(daemon.pid)
                async with _sending(broker.port, _SENSORS[name]) as sensor:
                    result = await camera(
                        broker.port, pictures, max(2, frames // turns), rate_hz, name, turn
                    )
                of.cpu_s += _cpu_s(daemon.pid) - cpu_s
                of.sent += sensor.sent
                of.counted += await count.settled() - before
                of.taken_ms += result["latency_ms"]
                of.overruns += result["overruns"]
    lines = [line_figures(name, of.taken_ms, of.overruns) for name, of in found.items()]
    silent = found[SILENT]
    return SignalFigures(
        lines,
        [
            SensorFigures(
                variant=line.variant,
                sent=of.sent,
                taken=of.counted,
                supervisor_us=round((of.cpu_s - silent.cpu_s) / max(1, of.counted) * 1e6, 1),
                p99_to_silent=round(line.p99_ms / lines[0].p99_ms, 2),
            )
            for line, of in zip(lines, found.values(), strict=True)
            if of.sent
        ],
    )


def _cpu_s(pid: int) -> float:
    """Time on the processor of a process (proc(5), schedstat: nanoseconds first)."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in stats) / 1e9


class _Counting:
    """Hears the daemon's own count of signals."""

    def __init__(self) -> None:
        self.taken = 0
        self._changed = asyncio.Event()

    def hear(self, message: Incoming) -> None:
        status = json.loads(message.payload)
        self.taken = status.get("counters", {}).get("signals_received{signal=signal.lamp}", 0)
        self._changed.set()

    async def settled(self) -> int:
        """Return the count once two statuses in a row tell the same."""
        async with asyncio.timeout(_SETTLED_S):
            before = -1
            while self.taken != before:
                before = self.taken
                self._changed.clear()
                await self._changed.wait()
        return self.taken


class _Sent:
    def __init__(self) -> None:
        self.sent = 0


@contextlib.asynccontextmanager
async def _sending(port: int, sensor: _Sensor) -> AsyncIterator[_Sent]:
    """Send at a steady rate while the block runs."""
    sent = _Sent()
    if not sensor.messages:
        yield sent
        return
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_packet(0x10, b"\0\x04MQTT\x04\x02\0\0" + _text(b"bench-sensor")))
    if (await reader.readexactly(4))[3]:
        raise TrialError("the broker refused the sensor of the benchmark")
    task = asyncio.create_task(_send(writer, sensor, sent))
    try:
        yield sent
    finally:
        task.cancel()
        await asyncio.wait((task,))
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.write(_packet(0xE0, b""))
        writer.close()
    if not task.cancelled():
        task.result()


async def _send(writer: asyncio.StreamWriter, sensor: _Sensor, sent: _Sent) -> None:
    began, messages = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * sensor.messages) - messages
        if due:
            writer.write(_message(sensor.samples) * due)
            messages += due
            sent.sent += due * sensor.samples
            await writer.drain()
        await asyncio.sleep(_TICK_S)


def _message(samples: int) -> bytes:
    now_ns = time.time_ns()
    found = [{"t": now_ns + n, "v": 1.0} for n in range(samples)]
    return _packet(0x30, _text(_TOPIC) + msgspec.json.encode(found if samples > 1 else found[0]))


def _packet(kind: int, body: bytes) -> bytes:
    """One packet of MQTT 3.1.1 (OASIS, section 2.2: seven bits of the length in each byte)."""
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([kind, *length]) + body


def _text(words: bytes) -> bytes:
    return struct.pack(">H", len(words)) + words
