"""The soak in its shortest form, and its judgement on runs with known faults."""

import asyncio
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from brokers import require_mosquitto
from soak import Plan, Sample, judge, soak

GOOD = [
    Sample(t * 30.0, 60_000, 20_000, 1_000, 90_000, 150_000, 30, 8, t * 600, t * 600, 20.0, 40.0)
    for t in range(60)
]


@pytest.mark.timeout(180)
@pytest.mark.skipif("EDGE_SOAKS" in os.environ, reason="a longer one runs beside the tests")
def test_half_a_minute_with_a_broker_and_a_worker_killed_keeps_every_promise(
    tmp_path: Path,
) -> None:
    require_mosquitto()
    out = io.StringIO()
    plan = Plan(length_s=36, warm_up_s=12, interval_s=2, flap_every_s=22, kill_every_s=10)
    found = asyncio.run(soak(plan, out, tmp_path))
    # Half a minute on a busy machine tells nothing of latency: that is `make soak`'s to judge.
    kept = [finding for finding in found["findings"] if "drifts" not in finding]
    assert kept == []
    samples = [json.loads(line) for line in out.getvalue().splitlines()[:-1]]
    events = [event for sample in samples for event in sample["events"]]
    assert "broker killed" in events
    assert "worker killed" in events
    assert found["answered"] > 300


def test_a_sound_run_has_no_finding() -> None:
    assert judge(GOOD, 300, [])["findings"] == []


def test_latency_is_not_judged_beside_other_work() -> None:
    slower = [replace(sample, p50_ms=sample.p50_ms + sample.at_s / 30) for sample in GOOD]
    assert "drifts" in judge(slower, 300, [])["findings"][0]
    assert judge(slower, 300, [], busy=True)["findings"] == []


def test_memory_that_stays_after_a_lost_worker_is_found_in_half_a_minute() -> None:
    short = [replace(sample, at_s=sample.at_s / 15) for sample in GOOD[:18]]
    stepped = [replace(s, supervisor_kib=s.supervisor_kib + 4_096 * (s.at_s > 20)) for s in short]
    assert judge(short, 12, [])["findings"] == []
    (finding,) = judge(stepped, 12, [])["findings"]
    assert "grows" in finding


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda s: replace(s, supervisor_kib=s.supervisor_kib + 10 * int(s.at_s)), "grows"),
        (lambda s: replace(s, threads=s.threads + int(s.at_s) // 300), "threads"),
        (lambda s: replace(s, descriptors=s.descriptors + int(s.at_s) // 100), "descriptors"),
        (lambda s: replace(s, p50_ms=s.p50_ms + s.at_s / 30), "drifts"),
    ],
    ids=["memory", "threads", "descriptors", "latency"],
)
def test_each_kind_of_leak_is_found(fault: object, named: str) -> None:
    assert callable(fault)
    (finding,) = judge([fault(sample) for sample in GOOD], 300, [])["findings"]
    assert named in finding
