"""The statistics of drift, beside values worked out by hand and simulated ones."""

import math
import random

import pytest

from edge.drift.statistics import chance, quantile, stability, typical, typical_of_counts


def test_a_quantile_lies_between_its_neighbours() -> None:
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert quantile([1, 2, 3, 4, 5], 0.1) == pytest.approx(1.4)
    assert quantile([7], 0.9) == 7


def test_the_spread_of_normal_values_is_their_standard_deviation() -> None:
    draw = random.Random(7)
    middle, spread = typical([draw.gauss(100, 5) for _ in range(20_000)])
    assert middle == pytest.approx(100, abs=0.2)
    assert spread == pytest.approx(5, rel=0.03)


def test_outliers_move_neither_median_nor_spread() -> None:
    draw = random.Random(7)
    sound = [draw.gauss(100, 5) for _ in range(1_000)]
    middle, spread = typical([*sound, *[0.0] * 50])
    assert middle == pytest.approx(typical(sound)[0], abs=0.5)
    assert spread == pytest.approx(typical(sound)[1], rel=0.15)


def test_a_belt_that_is_empty_half_of_the_time_is_no_drift_when_it_is_empty_more_often() -> None:
    middle, spread = typical([40.0] * 51 + [120.0] * 49)
    assert middle == 40
    assert abs(120 - middle) / spread < 3


def test_counts_tell_nearly_what_the_values_tell() -> None:
    draw = random.Random(7)
    values = [min(max(draw.gauss(0.4, 0.1), 0), 1) for _ in range(5_000)]
    counts = [0] * 50
    for value in values:
        counts[min(int(value * 50), 49)] += 1
    assert typical_of_counts(counts) == pytest.approx(typical(values), abs=0.005)
    assert typical_of_counts([0, 0, 8, 0]) == pytest.approx((0.625, 0.078), abs=0.001)
    assert typical_of_counts([0] * 50) == (0, 0)


def test_the_index_of_a_worked_example() -> None:
    # 1000 frames 50:50, then 1000 frames 60:40: 0.1 ln(0.6 / 0.5) - 0.1 ln(0.4 / 0.5) = 0.0405
    by_hand = 0.1 * math.log(0.6 / 0.5) - 0.1 * math.log(0.4 / 0.5)
    assert stability([0.5, 0.5], 1_000, [0.6, 0.4], 1_000) == pytest.approx(by_hand, rel=0.01)
    assert stability([0.2, 0.8], 500, [0.2, 0.8], 500) == pytest.approx(0, abs=1e-9)


def test_a_bin_that_was_empty_is_rare_and_not_impossible() -> None:
    # (0.5 and 99.5) of 101 against (10.5 and 90.5): half a frame in each bin.
    shares = ((0.5 / 101, 10.5 / 101), (100.5 / 101, 90.5 / 101))
    by_hand = sum((b - a) * math.log(b / a) for a, b in shares)
    assert stability([0, 1], 100, [0.1, 0.9], 100) == pytest.approx(by_hand)


@pytest.mark.parametrize(("bins", "chi"), [(3, 18.42), (6, 25.74), (10, 33.72)])
def test_what_chance_exceeds_is_the_quantile_of_chi_squared(bins: int, chi: float) -> None:
    # 0.9999 of chi-squared with 2, 5 and 9 degrees of freedom, from its tables.
    assert chance(bins, 600, 300) == pytest.approx(chi * (1 / 600 + 1 / 300), rel=0.05)


def test_two_samples_of_one_distribution_stay_within_chance() -> None:
    draw = random.Random(3)
    weights = [40, 20, 10, 8, 7, 5, 4, 3, 2, 1]

    def sample(frames: int) -> list[float]:
        drawn = draw.choices(range(10), weights, k=frames)
        return [drawn.count(each) / frames for each in range(10)]

    limit = chance(10, 600, 300)
    beyond = sum(stability(sample(600), 600, sample(300), 300) > limit for _ in range(1_000))
    assert beyond <= 2
    assert stability(sample(600), 600, sample(300)[::-1], 300) > limit
