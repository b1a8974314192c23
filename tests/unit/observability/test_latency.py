"""The histogram: exact about the budget, close about quantiles, constant in memory."""

import random

import pytest

from edge.observability.latency import Histogram


def test_before_the_first_observation_all_figures_are_zero() -> None:
    assert Histogram(200.0).summary() == {
        "count": 0,
        "over_budget": 0,
        "p50": 0.0,
        "p95": 0.0,
        "p99": 0.0,
        "max": 0.0,
    }


@pytest.mark.parametrize("budget_ms", [5.0, 200.0, 1_000.0])
@pytest.mark.parametrize("shape", ["even", "skewed"])
def test_quantiles_are_within_a_bucket_of_the_truth(budget_ms: float, shape: str) -> None:
    chance = random.Random(7)
    values = [
        budget_ms * (chance.random() if shape == "even" else chance.lognormvariate(-2.0, 0.7))
        for _ in range(1_000)
    ]
    histogram = Histogram(budget_ms)
    for value in values:
        histogram.observe(value)
    ordered = sorted(values)
    for q in (0.5, 0.95, 0.99):
        truth = ordered[int(q * len(ordered)) - 1]
        assert histogram.quantile(q) == pytest.approx(truth, rel=0.13)
    assert histogram.quantile(1.0) == ordered[-1]


def test_over_budget_is_counted_exactly_at_the_edge() -> None:
    histogram = Histogram(200.0)
    for value in (199.999, 200.0, 200.001, 5_000.0):
        histogram.observe(value)
    assert histogram.over_budget == 2
    assert histogram.count == 4


def test_no_estimate_lies_above_the_greatest_value() -> None:
    histogram = Histogram(200.0)
    histogram.observe(13.0)
    assert histogram.quantile(0.99) <= 13.0


def test_values_past_the_last_bucket_are_kept_apart() -> None:
    histogram = Histogram(1.0)
    for _ in range(10):
        histogram.observe(1e9)
    assert histogram.quantile(0.5) <= 1e9
    assert histogram.quantile(1.0) == 1e9


def test_a_slow_minute_is_forgotten_but_its_count_is_not() -> None:
    histogram = Histogram(200.0, window=100)
    for _ in range(100):
        histogram.observe(400.0)
    assert histogram.quantile(0.5) > 350.0
    for _ in range(200):
        histogram.observe(10.0)
    summary = histogram.summary()
    assert summary["max"] == 10.0
    assert summary["p99"] <= 10.0
    assert summary["over_budget"] == 100
    assert summary["count"] == 300


def test_a_negative_latency_counts_as_zero() -> None:
    histogram = Histogram(200.0)
    histogram.observe(-3.0)
    assert histogram.summary()["max"] == 0.0
    assert histogram.count == 1


@pytest.mark.parametrize(("budget_ms", "window"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_histogram_without_a_budget_or_a_window_is_a_bug(budget_ms: float, window: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Histogram(budget_ms, window)


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_quantile_outside_0_to_1_is_a_bug(q: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Histogram(1.0).quantile(q)
