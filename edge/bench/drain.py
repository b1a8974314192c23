"""The ledger beside a running line: what it costs a verdict, and how fast an outage is caught up.

Three daemons take turns on this machine, each with a broker of its own, fed by the same camera:

- *without ledger*, and *with ledger*, its records collected as they come: what recording costs
- *outage*, with as many records owed to the cloud as asked for: first while the collector is away,
  then while it is there and takes them; in the last turn until it has them all, and the camera goes
  on as long

The collector is the product's own, `edge fleet collect`, with SQLite, on the same machine: what it
needs of the cores, the line has not.
"""

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from edge.bench.whole_line import (
    LineFigures,
    camera,
    hearing,
    line_figures,
    time_to_ready,
    write_parts,
)
from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.errors import TrialError
from edge.ledger.entry import Entry, Pinned
from edge.ledger.store import Prepared, Retention, Store
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

WITHOUT: Final = "without ledger"
WITH: Final = "with ledger"
OUTAGE: Final = "outage"
DRAIN: Final = "drain"
_BATCH: Final = 1_000
_STALLED_S: Final = 120.0
_SETTINGS: Final = ("status.interval_s=0.5",)


class DrainFigures(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        lines: Verdicts of each variant.
        with_to_without: p99 with the ledger, over p99 without it.
        drain_to_outage: p99 while records drain, over p99 while they cannot.
        records: Drained.
        per_second: From the first receipt of each turn on.
    """

    lines: list[LineFigures]
    with_to_without: float
    drain_to_outage: float
    records: int
    per_second: float


async def measure(
    folder: Path, records: int, frames: int, rate_hz: float, turns: int
) -> DrainFigures:
    """Measure.

    Args:
        folder: Takes frames, state, databases and logs.
        records: Owed at the beginning; about 2.5 KB each on disk, twice.
        frames: Through each variant.
        rate_hz: Of the camera.
        turns: How often each variant has its turn.
    """
    pictures = folder / "frames"
    homes = {name: folder / name.replace(" ", "-") for name in (WITHOUT, WITH, OUTAGE)}
    for each in (pictures, *homes.values()):
        each.mkdir()
    write_parts(pictures)
    await _owe(homes[OUTAGE] / "state" / "ledger", records)
    settings = {WITHOUT: ("ledger.enabled=false",), WITH: (), OUTAGE: _SETTINGS}
    taken: dict[str, list[float | None]] = {n: [] for n in (WITHOUT, WITH, OUTAGE, DRAIN)}
    overruns = dict.fromkeys(taken, 0)
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for name, home in homes.items():
            broker = await stack.enter_async_context(LocalBroker(kind="mosquitto"))
            ports[name] = broker.port
            await time_to_ready(broker.port, home, stack, settings[name])
        await stack.enter_async_context(_collector(ports[WITH], homes[WITH]))
        progress = await stack.enter_async_context(_progress(ports[OUTAGE], records))

        async def play(variant: str, home: str, turn: int) -> None:
            count = max(2, frames // turns)
            result = await camera(ports[home], pictures, count, rate_hz, variant, turn)
            taken[variant] += result["latency_ms"]
            overruns[variant] += result["overruns"]

        drained, drained_s = 0, 0.0
        for turn in range(turns):
            await play(WITHOUT, WITHOUT, turn)
            await play(WITH, WITH, turn)
            await play(OUTAGE, OUTAGE, turn)
            async with _collector(ports[OUTAGE], homes[OUTAGE]):
                since = await progress.beyond(progress.now)
                for again in itertools.count():
                    await play(DRAIN, OUTAGE, turn + again * turns)
                    if turn < turns - 1 or progress.caught_up is not None:
                        break
                    await progress.beyond(progress.now)
                until = progress.caught_up or progress.now
                if until.receipted > since.receipted:
                    drained += until.receipted - since.receipted
                    drained_s += until.at_s - since.at_s
    lines = [line_figures(name, taken[name], overruns[name]) for name in taken]
    without, with_it, outage, drain = (figures.p99_ms for figures in lines)
    return DrainFigures(
        lines=lines,
        with_to_without=round(with_it / without, 3),
        drain_to_outage=round(drain / outage, 3),
        records=drained,
        per_second=round(drained / drained_s),
    )


async def _owe(folder: Path, records: int) -> None:
    """Write a ledger with so many records that nobody has receipted.

    On the loop, where nothing else runs yet: Ctrl-C ends it between two batches, and no thread.
    """
    store = Store(folder, "box1", Retention(max_bytes=1 << 40))
    digest = "0123456789abcdef" * 4
    pinned = Pinned(digest, digest, digest, digest, digest)
    try:
        for first in range(0, records, _BATCH):
            batch = range(first, min(first + _BATCH, records))
            store.append([Prepared(_entry(n, pinned), n.to_bytes(32, "big")) for n in batch])
            await asyncio.sleep(0)
    finally:
        store.close()


def _entry(number: int, pinned: Pinned) -> Entry:
    verdict = Verdict(
        device="box1",
        pipeline="owed",
        deployment=DeploymentRef("pcb", 1, pinned.model),
        frame_id=f"owed-{number:09}",
        part_id=f"part-{number:09}",
        verdict=Kind.REJECT,
        reason="defect",
        score=0.8551,
        defects=(Defect("copper", 0.8551, (270.41, 242.84, 305.88, 276.91)),),
        captured_at_ns=time.time_ns(),
        latency_ms={"total": 15.2, "wait": 0.1, "decode": 1.1, "infer": 11.9, "decide": 0.1},
        budget_ms=200.0,
        provider="cpu",
    )
    signals = {"signal.lamp": SignalValue(0.93, 12_000_000, SignalState.FRESH)}
    return Entry(verdict, time.time_ns(), pinned, signals=signals)


class _Reached(msgspec.Struct, frozen=True):
    """How many records the cloud had receipted, and when the daemon said so."""

    receipted: int = 0
    at_s: float = 0.0


class _Progress:
    """How far the outage is caught up, as the daemon's status says.

    Args:
        records: Owed at the beginning.

    Attributes:
        now: As of the last status.
        caught_up: When all of them were receipted; None: not yet.
    """

    def __init__(self, records: int) -> None:
        self.now = _Reached()
        self.caught_up: _Reached | None = None
        self._records = records
        self._heard = asyncio.Event()

    def take(self, message: Incoming) -> None:
        ledger = json.loads(message.payload).get("ledger")
        if ledger is None:
            return
        self.now = _Reached(ledger["receipted"], time.monotonic())
        if self.caught_up is None and self.now.receipted >= self._records:
            self.caught_up = self.now
        self._heard.set()

    async def heard(self) -> None:
        """Wait for the next status."""
        self._heard.clear()
        async with asyncio.timeout(_STALLED_S):
            await self._heard.wait()

    async def beyond(self, before: _Reached) -> _Reached:
        """Wait until more is receipted than before, and return how much; at once where all is.

        Raises:
            TrialError: It does not go on.
        """
        began = time.monotonic()
        while self.caught_up is None and self.now.receipted <= before.receipted:
            await self.heard()
            if time.monotonic() - began > _STALLED_S:
                raise TrialError(f"the drain stopped at record {before.receipted}")
        return self.now


@contextlib.asynccontextmanager
async def _progress(port: int, records: int) -> AsyncIterator[_Progress]:
    progress = _Progress(records)
    async with hearing(port, "bench-progress", progress.take):
        await progress.heard()
        yield progress


@contextlib.asynccontextmanager
async def _collector(port: int, home: Path) -> AsyncIterator[None]:
    config = home / "collect.toml"
    config.write_text(
        f'[broker]\nport = {port}\n[store]\nurl = "sqlite://{home / "fleet.db"}"\n'
        "[log]\nlevel = 'error'\n"
    )
    with (home / "collect.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge.mqtt.leash", str(os.getpid())),
            *(sys.executable, "-m", "edge.cli.main", "fleet", "collect", f"--config={config}"),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
