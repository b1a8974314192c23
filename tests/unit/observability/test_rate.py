"""Events a second, read off a count."""

from edge.observability.rate import Rate


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def looked(rate: Rate, clock: Clock, *looks: tuple[float, int]) -> list[float]:
    found = []
    for at_s, count in looks:
        clock.now_s = 100.0 + at_s
        found.append(round(rate.per_s(count), 2))
    return found


def test_the_first_look_at_once_has_no_rate() -> None:
    clock = Clock()
    assert looked(Rate(clock), clock, (0.0, 7)) == [0.0]


def test_a_steady_count_has_its_rate_at_every_look() -> None:
    clock = Clock()
    looks = [(t, t * 20) for t in range(1, 40)]
    assert looked(Rate(clock), clock, *looks) == [20.0] * 39


def test_a_count_that_stands_still_is_soon_told_as_zero() -> None:
    clock = Clock()
    found = looked(Rate(clock), clock, (5, 100), (10, 200), (15, 200), (20, 200))
    assert found == [20.0, 20.0, 0.0, 0.0]


def test_looks_in_quick_succession_do_not_shorten_what_is_looked_at() -> None:
    clock = Clock()
    rate = Rate(clock)
    looked(rate, clock, (5, 100), (10, 200))
    assert looked(rate, clock, (10.01, 201), (10.02, 201)) == [20.16, 20.12]
