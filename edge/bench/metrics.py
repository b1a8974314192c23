"""What metrics and traces cost a verdict: two daemons in turn, fed by the same camera.

One tells nothing of itself. The other is scraped each second, as no Prometheus does it in earnest,
and traces frames to a collector on the same machine, which reads what it gets and keeps nothing.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from edge.bench.whole_line import LineFigures, camera, line_figures, time_to_ready, write_parts
from edge.errors import TrialError
from edge.mqtt.brokers import LocalBroker

OFF: Final = "tells nothing"
ON: Final = "metrics and traces"
_SCRAPE_S: Final = 1.0
_MIN_SCRAPE_BYTES: Final = 1_000


class MetricsFigures(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        lines: Verdicts of each variant.
        p50_ratio: With, over without.
        p99_ratio: With, over without.
        frame_cpu_ms: Of the supervisor, for a frame without, and with.
        scrape_cpu_ms: Of the supervisor, for a scrape.
        scrapes: Answered meanwhile.
        trace_requests: Taken by the collector meanwhile.
    """

    lines: list[LineFigures]
    p50_ratio: float
    p99_ratio: float
    frame_cpu_ms: tuple[float, float]
    scrape_cpu_ms: float
    scrapes: int
    trace_requests: int


async def measure(
    folder: Path, frames: int, rate_hz: float, turns: int, share: float
) -> MetricsFigures:
    """Measure.

    Args:
        folder: Takes frames, state and logs.
        frames: Through each variant.
        rate_hz: Of the camera.
        turns: How often each variant has its turn.
        share: Of frames traced.
    """
    pictures = folder / "frames"
    homes = {name: folder / name.replace(" ", "-") for name in (OFF, ON)}
    for each in (pictures, *homes.values()):
        each.mkdir()
    write_parts(pictures)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    taken: dict[str, list[float | None]] = {name: [] for name in homes}
    overruns = dict.fromkeys(homes, 0)
    async with contextlib.AsyncExitStack() as stack:
        collector = await stack.enter_async_context(_collector())
        settings = {
            OFF: (),
            ON: (
                f'metrics.listen="127.0.0.1:{port}"',
                f'traces.endpoint="http://127.0.0.1:{collector.port}/v1/traces"',
                f"traces.share={share}",
                "traces.max_per_s=1000",
            ),
        }
        ports, costs = {}, {}
        for name, home in homes.items():
            broker = await stack.enter_async_context(LocalBroker(kind="mosquitto"))
            ports[name] = broker.port
            _, daemon = await time_to_ready(broker.port, home, stack, settings[name])
            costs[name] = _Cost(daemon.pid)
        scrapes = await stack.enter_async_context(_scraping(port))
        for turn in range(turns):
            # In the order of the turn: what grows or tires over time falls on both alike.
            for name in (OFF, ON) if turn % 2 else (ON, OFF):
                for other, cost in costs.items():
                    cost.begin(judging=other == name)
                before = scrapes.count
                result = await camera(
                    ports[name], pictures, max(2, frames // turns), rate_hz, name, turn
                )
                taken[name] += result["latency_ms"]
                overruns[name] += result["overruns"]
                for cost in costs.values():
                    cost.end()
                costs[ON].scrapes_idle += (scrapes.count - before) * (name == OFF)
    lines = [line_figures(name, taken[name], overruns[name]) for name in taken]
    if not scrapes.count or (share and not collector.count):
        raise TrialError(f"{scrapes.count} scrapes and {collector.count} traces: nothing measured")
    off, on = lines
    return MetricsFigures(
        lines=lines,
        p50_ratio=round(on.p50_ms / off.p50_ms, 3),
        p99_ratio=round(on.p99_ms / off.p99_ms, 3),
        frame_cpu_ms=(
            _each(costs[OFF].judging_ms, off.frames),
            _each(costs[ON].judging_ms, on.frames),
        ),
        scrape_cpu_ms=_each(costs[ON].idle_ms - costs[OFF].idle_ms, costs[ON].scrapes_idle),
        scrapes=scrapes.count,
        trace_requests=collector.count,
    )


class _Cost:
    """Time on the processor of one supervisor, while it judges and while the other one does.

    Args:
        pid: Its process.

    Attributes:
        judging_ms: While it had frames.
        idle_ms: While it had none.
        scrapes_idle: Answered meanwhile.
    """

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._judging = False
        self._began_ms = 0.0
        self.judging_ms = self.idle_ms = 0.0
        self.scrapes_idle = 0

    def begin(self, *, judging: bool) -> None:
        self._judging, self._began_ms = judging, self._now_ms()

    def end(self) -> None:
        spent = self._now_ms() - self._began_ms
        if self._judging:
            self.judging_ms += spent
        else:
            self.idle_ms += spent

    def _now_ms(self) -> float:
        """Sum of its threads (proc(5), schedstat: nanoseconds first)."""
        stats = [int(each.read_text().split()[0]) for each in self._tasks.glob("*/schedstat")]
        return sum(stats) / 1e6


def _each(total_ms: float, count: int) -> float:
    return round(total_ms / max(1, count), 2)


class _Count:
    def __init__(self) -> None:
        self.count = 0
        self.port = 0


@contextlib.asynccontextmanager
async def _collector() -> AsyncIterator[_Count]:
    """Take what is posted, and say 200."""
    taken = _Count()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(
                    row.lower().split(b": ", 1) for row in head.split(b"\r\n")[1:] if b": " in row
                )
                await reader.readexactly(int(fields[b"content-length"]))
                taken.count += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    taken.port = server.sockets[0].getsockname()[1]
    try:
        yield taken
    finally:
        server.close()


@contextlib.asynccontextmanager
async def _scraping(port: int) -> AsyncIterator[_Count]:
    """Scrape each second, beside whatever happens in the block."""
    done = _Count()

    async def scrape() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")
            if len(await reader.read(-1)) > _MIN_SCRAPE_BYTES:
                done.count += 1
            writer.close()
            await asyncio.sleep(_SCRAPE_S)

    task = asyncio.create_task(scrape())
    try:
        yield done
    finally:
        task.cancel()
        await asyncio.wait((task,))
