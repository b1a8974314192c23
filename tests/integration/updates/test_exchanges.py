"""Two standing workers that take turns under a camera at 20 frames a second, a hundred times.

What a swap is for the line, without what comes before it (`test_swaps` has the whole of it):
`EDGE_EXCHANGES` says how often (`make swaps`: 1,000), and its result is `.out/exchanges.json`.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
from pathlib import Path

import pytest
from brokers import until
from daemons import DEPLOYMENT, Daemon, Line, line_to

from edge.mqtt.brokers import LocalBroker

EXCHANGES = int(os.environ.get("EDGE_EXCHANGES", "100"))
EVERY_MS = 100.0
RATE_HZ = 20.0
STEADY = 100
"""Frames before the first exchange."""
SCRIPT = Path(__file__).parents[2] / "swapping.py"
OUT = Path(__file__).parents[3] / ".out"


class Swapping(Daemon):
    """The daemon by `swapping.py`."""

    @classmethod
    def of(cls, broker: LocalBroker, folder: Path, deployment: Path) -> "Swapping":
        """With a second worker."""
        made = cls(broker, folder, deployment=deployment)
        words = made._command[made._command.index("edge.cli.main") + 1 :]
        made._command = [sys.executable, str(SCRIPT), str(EXCHANGES), str(EVERY_MS), *words]
        return made


async def played(line: Line) -> list[str]:
    """A second of frames, and their verdicts: a machine that cannot keep up is not flooded."""
    names = await line.play(round(RATE_HZ), 1 / RATE_HZ)
    await line.all_verdicts(names)
    return names


@pytest.mark.timeout(120 + EXCHANGES)
def test_exchanges_in_a_row_lose_no_frame_and_judge_none_twice(
    tmp_path: Path, mosquitto: LocalBroker
) -> None:
    async def scenario(daemon: Daemon) -> tuple[Line, list[str], list[str]]:
        async with line_to(mosquitto) as line:
            steady: list[str] = []
            while len(steady) < STEADY:
                steady += await played(line)
            (tmp_path / "state" / "go").touch()
            during: list[str] = []
            while not daemon.events("swapped"):
                during += await played(line)
            await until(lambda: line.session.unanswered == 0, "all frames are out")
            await line.all_verdicts([*steady, *during])
            return line, steady, during

    with Swapping.of(mosquitto, tmp_path, DEPLOYMENT) as daemon:
        daemon.ready()
        daemon.logged("swapping_ready")
        line, steady, during = asyncio.run(scenario(daemon))
    names = [*steady, *during]
    assert {line.judgements(name) for name in names} == {1}
    assert set(line.reasons(names)) == {"ok"}
    by = [json.loads(line.verdicts["pcb", n][0][0])["deployment"]["revision"] for n in names]
    assert len(set(by[:STEADY])) == 1
    turns = sum(a != b for a, b in itertools.pairwise(by))
    assert turns > EXCHANGES / 8, "the two took turns under the frames"
    if "EDGE_EXCHANGES" in os.environ:
        figures = {
            "exchanges": EXCHANGES,
            "frames": len(during),
            "turns_seen_by_frames": turns,
            "steady_ms": _figures(line, steady),
            "during_ms": _figures(line, during),
        }
        OUT.mkdir(exist_ok=True)
        (OUT / "exchanges.json").write_text(json.dumps(figures, indent=1) + "\n")


def _figures(line: Line, names: list[str]) -> dict[str, float]:
    took = [line.latency_ms(name) for name in names]
    return {
        "p50": round(statistics.median(took), 1),
        "p99": round(statistics.quantiles(took, n=100)[-1], 1),
        "max": round(max(took), 1),
    }
