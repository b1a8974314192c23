"""Exchanges one after another under a camera at 20 frames a second: nothing lost, nothing late.

`EDGE_SWAPS` says how many (`make swaps`: 100), each after a shadow of 20 frames; CI takes three,
after four. The result of the long form is a JSON file in `.out/`, which also tells how long after
its publication a release was active.
"""

import json
import os
import statistics
import time
from pathlib import Path

import pytest
from daemons import BUDGET_MS, PATIENT_MS
from updating import Site, asynchronous, ending, on_the_line

from edge.deployment.rollout import Event
from edge.mqtt.brokers import LocalBroker

SWAPS = int(os.environ.get("EDGE_SWAPS", "3"))
SHADOW = 20 if "EDGE_SWAPS" in os.environ else 4
OUT = Path(__file__).parents[3] / ".out"


@pytest.mark.timeout(120 + 30 * SWAPS)
@asynchronous
async def test_swaps_in_a_row_lose_no_frame_and_judge_none_twice(
    tmp_path: Path, mosquitto: LocalBroker
) -> None:
    # The long form is about time as well; three exchanges beside other work are not.
    with ending(Site(tmp_path, mosquitto, in_time="EDGE_SWAPS" in os.environ)) as site:
        async with on_the_line(site, mosquitto, rate_hz=20) as (line, stream):
            line.budget_ms = BUDGET_MS if site.in_time else PATIENT_MS
            active_after_s = []
            for revision in range(2, SWAPS + 2):
                digest = await site.offer(revision, shadow=SHADOW, probation=10)
                published_ns = time.time_ns()
                step = await site.takes(digest)
                assert step.event is Event.HELD, step
                agreed = site.journal.last_of(Event.AGREED)
                assert agreed is not None
                active_after_s.append((agreed.at_ns - published_ns) / 1e9)
        reasons = await line.kept(stream.names)  # one verdict each, in time
        by: dict[int, list[str]] = {}
        for name, verdict in zip(stream.names, await line.all_verdicts(stream.names), strict=True):
            by.setdefault(verdict["deployment"]["revision"], []).append(name)
        assert sorted(by) == list(range(1, SWAPS + 2))
        # Around an exchange: the last frames of a revision and the first of the next.
        around = [n for names in by.values() for n in (*names[:5], *names[-5:])]
        figures = {
            "swaps": SWAPS,
            "active_after_s": {
                "median": round(statistics.median(active_after_s), 2),
                "max": round(max(active_after_s), 2),
            },
            "frames": len(stream.names),
            "reasons": dict(reasons),
            "p99_ms": _p99([line.latency_ms(name) for name in stream.names]),
            "p99_around_swaps_ms": _p99([line.latency_ms(name) for name in around]),
        }
        assert "overrun" not in reasons, figures
    if "EDGE_SWAPS" in os.environ:
        OUT.mkdir(exist_ok=True)
        (OUT / "swaps.json").write_text(json.dumps(figures, indent=1) + "\n")


def _p99(values: list[float]) -> float:
    return round(statistics.quantiles(values, n=100)[-1], 1)
