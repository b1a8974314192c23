"""A long run of the real daemon, with its plugs pulled now and then: `make soak`.

    PYTHONPATH=tests python tests/faults/soak.py --minutes 480 --out .out/soak.jsonl

Simulated boards at 20 a second through a real Mosquitto; every so often the broker is killed and
comes back, or a worker is. One JSON line each interval, written as it comes: resident memory of
supervisor and worker, file descriptors, threads, the verdicts' latency, what was lost. The last
line is the judgement; its status is the program's.

Judged after the warm-up: memory and descriptors of supervisor and worker by a line fitted through
the samples (a slope, so that one peak is none), threads by the most there were, frames by their
promise. A frame that was on its way while the broker was away, or killed with a broker that keeps
nothing, is not the daemon's loss: of those the run only counts.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import psutil
from brokers import until
from daemons import Daemon, Line, line_to

from edge.daemon.worker_memory import resident_mib
from edge.mqtt.brokers import LocalBroker

RATE_HZ: Final = 20.0
MAX_GROWTH: Final = 0.01
"""Of resident memory, an hour."""
REMEMBERED: Final = 200
"""Verdicts kept for frames that come again, 1 KB each: so few that the warm-up fills them. By
default there are so many that the supervisor grows for the better part of an hour, by design."""
NOISE_KIB: Final = 3_072
"""What the supervisor may come to hold beside that, once: 2 MiB of the ledger's pages (SQLite's
cache of one connection), and 939 KiB when CPython's table of interned strings doubles, some 20
minutes after the start, or sooner on a busy machine."""
OVERRIDES: Final = (f"limits.remembered_frames={REMEMBERED}", "metrics.interval_s=1")
_SETTLE_S: Final = 5.0
"""Frames sent so long before and after a plug was pulled are judged by no promise."""


@dataclass
class Sample:
    """One interval."""

    at_s: float
    supervisor_kib: int
    heap_used_kib: int
    heap_kept_kib: int
    python_blocks: int
    worker_kib: int
    descriptors: int
    threads: int
    sent: int
    answered: int
    p50_ms: float
    p99_ms: float
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How a run goes; all in seconds."""

    length_s: float
    warm_up_s: float
    interval_s: float
    flap_every_s: float
    kill_every_s: float
    busy: bool = False


def slope_per_hour(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """Of a line fitted through a value of the samples, in its units an hour."""
    times = [sample.at_s for sample in samples]
    return statistics.linear_regression(times, [value(sample) for sample in samples]).slope * 3600


def judge(
    samples: Sequence[Sample], warm_up_s: float, workers: Sequence[str], *, busy: bool = False
) -> dict[str, Any]:
    """Hold a run to its promises; `findings` names those that it broke.

    Args:
        samples: The run.
        warm_up_s: What came before is not judged.
        workers: Findings that others have made.
        busy: Other work came and went on the machine: latency tells nothing.
    """
    warm = [sample for sample in samples if sample.at_s >= warm_up_s]
    if len(warm) < 3:
        return {"findings": [f"only {len(warm)} samples after the warm-up"]}
    hours = (warm[-1].at_s - warm[0].at_s) / 3600
    first = warm[0]
    growth = slope_per_hour(warm, lambda sample: sample.supervisor_kib)
    allowed = MAX_GROWTH * first.supervisor_kib + NOISE_KIB / hours
    findings = list(workers)
    if growth > allowed:
        findings.append(f"the supervisor grows by {growth:.0f} KiB/h; {allowed:.0f} may be")
    if (most := max(sample.threads for sample in warm)) > first.threads + 2:
        findings.append(f"{most} threads, {first.threads} after the warm-up")
    if (most := max(sample.descriptors for sample in warm)) > first.descriptors + 8:
        findings.append(f"{most} descriptors, {first.descriptors} after the warm-up")
    third = max(1, len(warm) // 3)
    early = statistics.median(sample.p50_ms for sample in warm[:third])
    late = statistics.median(sample.p50_ms for sample in warm[-third:])
    if late > 1.5 * early + 5 and not busy:
        findings.append(f"latency drifts: p50 {early:.1f} ms at first, {late:.1f} ms at last")
    return {
        "hours": round(hours, 3),
        "heap_used_kib": [first.heap_used_kib, warm[-1].heap_used_kib],
        "heap_used_kib_per_hour": round(slope_per_hour(warm, lambda sample: sample.heap_used_kib)),
        "python_blocks": [first.python_blocks, warm[-1].python_blocks],
        "supervisor_kib": [first.supervisor_kib, warm[-1].supervisor_kib],
        "growth_kib_per_hour": round(growth),
        "growth_percent_per_hour": round(100 * growth / first.supervisor_kib, 2),
        "threads": [first.threads, warm[-1].threads],
        "descriptors": [first.descriptors, warm[-1].descriptors],
        "p50_ms": [round(early, 1), round(late, 1)],
        "sent": samples[-1].sent,
        "answered": samples[-1].answered,
        "findings": findings,
    }


class Soak:
    """One run: plays, pulls plugs, samples.

    Args:
        plan: How it goes.
        out: Takes a JSON line a sample, flushed.
        textfile: Where the daemon writes its metrics.
    """

    def __init__(self, plan: Plan, out: TextIO, textfile: Path) -> None:
        self._plan = plan
        self._out = out
        self._textfile = textfile
        self._began = time.monotonic()
        self._names: list[tuple[float, str]] = []
        self._pulled: list[float] = []
        self._events: list[str] = []
        self._samples: list[Sample] = []
        self._ready = 0
        self._seen = 0

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    async def run(self, broker: LocalBroker, daemon: Daemon) -> dict[str, Any]:
        """Run to the end and return the judgement."""
        async with line_to(broker, "soak") as line:
            jobs = [
                asyncio.create_task(self._play(line)),
                asyncio.create_task(self._sample(line, daemon)),
                asyncio.create_task(self._pull(broker, daemon)),
            ]
            await asyncio.wait(
                jobs, timeout=self._plan.length_s, return_when=asyncio.FIRST_COMPLETED
            )
            for job in jobs:
                if job.done():
                    job.result()  # what ended it
                job.cancel()
            await asyncio.wait(jobs)
            await until(lambda: line.session.connected, "the line is connected at the end")
            broken = await self._broken(line)
            plan = self._plan
            verdict = judge(self._samples, plan.warm_up_s, broken, busy=plan.busy)
        self._write({"judgement": verdict, "plan": asdict(self._plan)})
        return verdict

    async def _play(self, line: Line) -> None:
        for number in range(sys.maxsize):
            await asyncio.sleep(max(0.0, number / RATE_HZ - self._now))
            self._names.append((self._now, line.inspect(number % 8)))

    async def _pull(self, broker: LocalBroker, daemon: Daemon) -> None:
        plan, flap_at, kill_at = self._plan, self._plan.flap_every_s, self._plan.kill_every_s
        while True:
            at = min(flap_at, kill_at)
            await asyncio.sleep(max(0.0, at - self._now))
            if at > plan.length_s - 2 * _SETTLE_S:
                await asyncio.Event().wait()  # the rest is calm
            self._pulled.append(self._now)
            if at == flap_at:
                flap_at += plan.flap_every_s
                self._events.append("broker killed")
                await broker.kill()
                await broker.start()
            else:
                kill_at += plan.kill_every_s
                self._events.append("worker killed")
                await until(lambda: len(daemon.children()) == 1, "a worker stands")
                for pid in daemon.children():
                    with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
                        psutil.Process(pid).kill()

    async def _sample(self, line: Line, daemon: Daemon) -> None:
        process = psutil.Process(daemon.pid)
        for number in range(1, sys.maxsize):
            await asyncio.sleep(max(0.0, number * self._plan.interval_s - self._now))
            children = daemon.children()
            recent = [name for _, name in self._names[self._seen :]]
            self._seen = len(self._names)
            took = sorted(
                line.latency_ms(name) for name in recent if ("pcb", name) in line.verdicts
            )
            sample = Sample(
                at_s=round(self._now, 1),
                supervisor_kib=process.memory_info().rss >> 10,
                heap_used_kib=self._told('heap_bytes{state="used"}') >> 10,
                heap_kept_kib=self._told('heap_bytes{state="kept"}') >> 10,
                python_blocks=self._told("python_blocks"),
                worker_kib=sum(map(resident_mib, children)) << 10,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
                sent=len(self._names),
                answered=len(line.verdicts),
                p50_ms=round(took[len(took) // 2], 1) if took else 0.0,
                p99_ms=round(took[len(took) * 99 // 100], 1) if took else 0.0,
                events=self._events,
            )
            self._events = []
            self._samples.append(sample)
            self._write(asdict(sample))

    def _told(self, name: str) -> int:
        """A figure that the daemon writes of itself; 0 where it does not."""
        row = rf"^edge_{re.escape(name)} (\S+)"
        found = re.search(row, self._textfile.read_text(), re.MULTILINE)
        return int(float(found[1])) if found else 0

    async def _broken(self, line: Line) -> list[str]:
        """Frames away from every pulled plug that have not exactly one verdict."""
        calm = [
            name
            for at_s, name in self._names
            if at_s < self._now - _SETTLE_S
            and all(abs(at_s - pulled) > _SETTLE_S for pulled in self._pulled)
        ]
        unanswered = [name for name in calm if line.judgements(name) != 1]
        return [f"{len(unanswered)} of {len(calm)} calm frames broken"] if unanswered else []

    def _write(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


async def soak(plan: Plan, out: TextIO, folder: Path) -> dict[str, Any]:
    """Run broker, daemon and line, and return the judgement."""
    async with LocalBroker(kind="mosquitto") as broker:
        textfile = folder / "edge.prom"
        told = (*OVERRIDES, f"metrics.textfile={textfile}")
        with Daemon(broker, folder, overrides=told, budget_ms=0) as daemon:
            await asyncio.to_thread(daemon.ready)
            return await Soak(plan, out, textfile).run(broker, daemon)


def plan_of(
    minutes: float,
    flap_every_s: float = 600.0,
    kill_every_s: float = 427.0,
    *,
    busy: bool = False,
) -> Plan:
    """A run of so long, with its plugs pulled in proportion, and at most so often."""
    length_s = minutes * 60
    return Plan(
        length_s=length_s,
        warm_up_s=min(1_800.0, length_s / 4),
        interval_s=min(30.0, length_s / 20),
        flap_every_s=min(flap_every_s, length_s / 3),
        kill_every_s=min(kill_every_s, length_s / 4.3),
        busy=busy,
    )


def main(arguments: list[str]) -> int:
    """Run, and end with 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=480.0)
    parser.add_argument("--flap-every", type=float, default=600.0, help="s between broker kills")
    parser.add_argument("--kill-every", type=float, default=427.0, help="s between worker kills")
    parser.add_argument(
        "--busy", action="store_true", help="beside other work: latency is not judged"
    )
    parser.add_argument("--out", type=Path, default=Path(".out/soak.jsonl"))
    parsed = parser.parse_args(arguments)
    plan = plan_of(parsed.minutes, parsed.flap_every, parsed.kill_every, busy=parsed.busy)
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # broker and daemon end with us
    with tempfile.TemporaryDirectory(prefix="edge-soak-") as folder, parsed.out.open("a") as out:
        verdict = asyncio.run(soak(plan, out, Path(folder)))
    sys.stdout.write(json.dumps(verdict, indent=1) + "\n")
    return 1 if verdict["findings"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
