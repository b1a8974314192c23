"""Prometheus' text format, judged by Prometheus."""

from promtool import judged_by_promtool

from edge.observability.counters import Counters, Meaning
from edge.observability.exposition import Buckets, Family, gauge, render


def test_a_histogram_counts_what_is_at_most_its_edge_and_ends_one_bucket_at_the_budget() -> None:
    buckets = Buckets(200.0, (0.5, 1.0, 2.0))
    for value_ms in (-3.0, 100.0, 100.1, 200.0, 200.1, 1000.0):
        buckets.observe(value_ms)
    text = render([Family("edge_x_seconds", "histogram", "X.", [({"p": "a"}, buckets)])]).decode()
    assert text.splitlines()[2:] == [
        'edge_x_seconds_bucket{p="a",le="0.1"} 2',
        'edge_x_seconds_bucket{p="a",le="0.2"} 4',
        'edge_x_seconds_bucket{p="a",le="0.4"} 5',
        'edge_x_seconds_bucket{p="a",le="+Inf"} 6',
        'edge_x_seconds_sum{p="a"} 1.6002',
        'edge_x_seconds_count{p="a"} 6',
    ]
    assert not judged_by_promtool("check", "metrics", stdin=text.encode())


def test_labels_from_outside_cannot_break_out_of_their_line() -> None:
    wicked = 'a"} 9\nedge_ready 0\\'
    text = render([gauge("x_ratio", "X\nY.", ({"reason": wicked}, 1.5))])
    assert text.decode().splitlines()[-1] == (
        'edge_x_ratio{reason="a\\"} 9\\nedge_ready 0\\\\"} 1.5'
    )
    assert not judged_by_promtool("check", "metrics", stdin=text)


def test_control_promtool_finds_what_is_against_the_convention() -> None:
    wrong = render([Family("edge_frames", "counter", "No suffix.", [({}, 1)])])
    assert "_total" in judged_by_promtool("check", "metrics", stdin=wrong)


def test_every_counter_is_told_and_one_without_labels_from_its_start() -> None:
    table = {"plain": Meaning("Plain."), "by_kind": Meaning("By kind.", ("kind",))}
    counters = Counters(table)
    assert [(name, series) for name, _, series in counters.series()] == [
        ("plain", [({}, 0)]),
        ("by_kind", []),
    ]
    counters.count("by_kind", 2, kind="a")
    assert counters.series()[1][2] == [({"kind": "a"}, 2)]
