"""A whole line through a broker: from publishing a frame to the arrival of its verdict.

The variants take turns on this machine, each with a broker of its own, fed by the same camera
process and judging with the same model:

- *bare, defaults*: the bare script and the broker as their defaults are
- *bare, tuned*: the same with TCP_NODELAY on every socket
- *edge, all cores*: this product, ONNX Runtime's threads as the bare script has them by default: as
  many as there are cores, spinning between frames, which burns a core
- *edge, as shipped*: one thread that sleeps between frames
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.config import BrokerSection
from edge.daemon.local import DEPLOYMENT, LocalDaemon
from edge.errors import TrialError
from edge.linesim.line import boards_of, line
from edge.linesim.scan import encode_jpeg
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.replay.score import TAIL_FRAMES
from edge.shipped import path as shipped

MODEL: Final = f"{DEPLOYMENT}/model/model.int8.onnx"
ALL_CORES: Final = "edge, all cores"
AS_SHIPPED: Final = "edge, as shipped"
_PARTS: Final = 40
_SEED: Final = 7
_READY_S: Final = 60.0
_BUDGET_MS: Final = 200.0
_OTHERS: Final = 0.3
"""Share of our frames that each other variant gets: ours alone is held to 0 overruns in 5,000."""


class LineFigures(msgspec.Struct, frozen=True):
    """One variant.

    Attributes:
        p99_9_ms: None of fewer than 1,000 verdicts.
        unanswered: Frames without a verdict.
        over_budget: Verdicts that came later than 200 ms after publishing.
        overruns: Verdicts with the reason `overrun`.
    """

    variant: str
    frames: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_9_ms: float | None
    max_ms: float
    unanswered: int
    over_budget: int
    overruns: int


class DaemonFigures(msgspec.Struct, frozen=True):
    """The daemon itself: resident memory and time to READY."""

    supervisor_mib: float
    worker_mib: float
    ready_cold_s: float
    ready_warm_s: float


async def measure(
    folder: Path, frames: int, rate_hz: float, rounds: int
) -> tuple[list[LineFigures], DaemonFigures]:
    """Run frames through each variant, in turns.

    Args:
        folder: Takes frames, state and log.
        frames: Through ours as shipped; the others get a share of them.
        rate_hz: Of the camera.
        rounds: How often each variant has its turn.
    """
    pictures, shipped_to, other = (folder / name for name in ("frames", "shipped", "all-cores"))
    for each in (pictures, shipped_to, other):
        each.mkdir()
    write_parts(pictures)
    chosen = ("bare, defaults", "bare, tuned", ALL_CORES, AS_SHIPPED)
    taken: dict[str, list[float | None]] = {name: [] for name in chosen}
    overruns = dict.fromkeys(chosen, 0)
    async with contextlib.AsyncExitStack() as stack:
        ports: dict[str, int] = {}
        for name in chosen:
            broker = LocalBroker(kind="mosquitto", nodelay=name != "bare, defaults")
            ports[name] = (await stack.enter_async_context(broker)).port
            if "bare" in name:
                await stack.enter_async_context(_bare(ports[name], nodelay="tuned" in name))
        cold_s, _ = await time_to_ready(ports[AS_SHIPPED], shipped_to)
        warm_s, daemon = await time_to_ready(ports[AS_SHIPPED], shipped_to, stack)
        all_cores = (f"inference.threads={os.cpu_count() or 1}", "inference.spinning=true")
        await time_to_ready(ports[ALL_CORES], other, stack, all_cores)
        for turn in range(rounds):
            for name in chosen:
                share = 1 if name == AS_SHIPPED else _OTHERS
                count = max(2, int(frames // rounds * share))
                result = await camera(ports[name], pictures, count, rate_hz, name, turn)
                taken[name] += result["latency_ms"]
                overruns[name] += result["overruns"]
        figures = DaemonFigures(*_resident_mib(daemon), round(cold_s, 2), round(warm_s, 2))
    return [line_figures(name, taken[name], overruns[name]) for name in chosen], figures


def write_parts(folder: Path) -> None:
    """Write simulated boards, good and bad, each with its reference, as the camera wants them."""
    references = {board.reference_id: board.reference() for board in boards_of(_SEED)}
    for part, _ in zip(line(_SEED), range(_PARTS), strict=False):
        name = part.part_id
        (folder / f"{name}.frame.jpg").write_bytes(encode_jpeg(part.image))
        reference = encode_jpeg(references[part.reference_id])
        (folder / f"{name}.reference.jpg").write_bytes(reference)


@contextlib.asynccontextmanager
async def _bare(port: int, *, nodelay: bool) -> AsyncIterator[None]:
    words = [*_script("judge", port, nodelay=nodelay), f"--model={shipped(MODEL)}"]
    async with _running(words) as process:
        assert process.stdout is not None
        async with asyncio.timeout(_READY_S):
            if b"ready" not in await process.stdout.readline():
                raise TrialError("the bare script did not start")
        yield


@contextlib.asynccontextmanager
async def _running(words: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge.mqtt.leash", str(os.getpid())),
        *words,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us: we end it
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def camera(
    port: int, pictures: Path, count: int, rate_hz: float, variant: str, turn: int
) -> dict[str, Any]:
    """Publish frames and hear their verdicts.

    Returns:
        `latency_ms`, None for each frame without a verdict, and `overruns`.
    """
    words = [
        *_script("camera", port, nodelay=variant != "bare, defaults"),
        *(f"--frames={pictures}", f"--count={count}", f"--rate={rate_hz}"),
        f"--run={variant.replace(', ', '-')}-{turn}",
    ]
    async with _running(words) as process:
        output, _ = await process.communicate()
    if process.returncode:
        raise TrialError(f"the camera of the benchmark ended with status {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return result


def _script(part: str, port: int, *, nodelay: bool) -> list[str]:
    words = [sys.executable, "-m", "edge.bench.bare_script", part, f"--port={port}"]
    return [*words, "--nodelay"] if nodelay else words


async def time_to_ready(
    port: int,
    folder: Path,
    stack: contextlib.AsyncExitStack | None = None,
    settings: tuple[str, ...] = (),
    deployment: Path | None = None,
) -> tuple[float, LocalDaemon]:
    """Start the daemon and wait for READY; without a stack it is stopped again."""
    ready: asyncio.Queue[None] = asyncio.Queue()

    def hear(message: Incoming) -> None:
        if not message.retain and json.loads(message.payload).get("ready"):
            ready.put_nowait(None)

    async with contextlib.AsyncExitStack() as own, hearing(port, "bench", hear):
        began = time.perf_counter()
        local = LocalDaemon(port, folder, settings, deployment)
        daemon = await (stack or own).enter_async_context(local)
        async with asyncio.timeout(_READY_S):
            await ready.get()
        took_s = time.perf_counter() - began
    return took_s, daemon


@contextlib.asynccontextmanager
async def hearing(
    port: int, client_id: str, hear: Callable[[Incoming], None]
) -> AsyncIterator[None]:
    """Have `hear` called with each status of the daemon while the block runs."""
    session = Session(BrokerSection(port=port), client_id)

    def take(message: Incoming) -> None:
        session.acknowledge(message)
        hear(message)

    session.subscribe("edge/box1/status", 1, take)
    running = asyncio.create_task(session.run())
    try:
        yield
    finally:
        await session.close(1.0)
        running.cancel()
        await asyncio.wait((running,))


def _resident_mib(daemon: LocalDaemon) -> tuple[float, float]:
    """Resident memory of the supervisor and of its worker, MiB (proc(5), VmRSS)."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return _rss_mib(daemon.pid), sum(_rss_mib(int(child)) for child in children)


def _rss_mib(pid: int) -> float:
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmRSS:"):
            return round(int(row.split()[1]) / 1024, 1)
    return 0.0


def line_figures(name: str, taken: list[float | None], overruns: int) -> LineFigures:
    """Sum up one variant."""
    answered = sorted(value for value in taken if value is not None)
    if len(answered) < 2:  # noqa: PLR2004 - quantiles need two
        raise TrialError(f"{name}: {len(answered)} of {len(taken)} frames were answered")
    cuts = statistics.quantiles(answered, n=100, method="inclusive")
    tail = statistics.quantiles(answered, n=1_000, method="inclusive")
    return LineFigures(
        variant=name,
        frames=len(taken),
        p50_ms=round(cuts[49], 1),
        p95_ms=round(cuts[94], 1),
        p99_ms=round(cuts[98], 1),
        p99_9_ms=round(tail[998], 1) if len(answered) >= TAIL_FRAMES else None,
        max_ms=round(answered[-1], 1),
        unanswered=len(taken) - len(answered),
        over_budget=sum(value > _BUDGET_MS for value in answered),
        overruns=overruns,
    )
