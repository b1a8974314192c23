"""The soak's judgement on runs with known faults; `make soak` runs it."""

from dataclasses import replace

import pytest
from soak import Sample, judge

GOOD = [Sample(t * 30.0, 60_000, 150_000, 30, 8, t * 600, t * 600, 20.0, 40.0) for t in range(60)]


def test_a_sound_run_has_no_finding() -> None:
    assert judge(GOOD, 300, [])["findings"] == []


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
