"""The pace at which a connection reads."""

from edge.mqtt.pace import ORDINARY_NS, REST, SLICE_NS, SPARE_NS, Pace


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


def admitted(pace: Pace) -> int:
    """How many are admitted until one is not."""
    count = 0
    while pace.admit():
        count += 1
    return count


def test_a_slice_takes_its_share_and_the_next_one_as_much() -> None:
    clock = Clock()
    pace = Pace(1_000, clock)
    assert admitted(pace) == 20
    clock.now_ns += SLICE_NS - 1
    assert not pace.admit()
    assert pace.rest_s == 1e-9
    clock.now_ns += 1
    assert pace.rest_s == 0
    assert admitted(pace) == 20


def test_a_pause_saves_nothing_up() -> None:
    clock = Clock()
    pace = Pace(1_000, clock)
    clock.now_ns += 1_000 * SLICE_NS
    assert admitted(pace) == 20


def test_the_slowest_pace_is_one_in_each_slice() -> None:
    assert admitted(Pace(1, Clock())) == 1


def test_what_waited_is_as_old_as_the_last_instant_at_which_nothing_did() -> None:
    clock = Clock()
    pace = Pace(1_000, clock)
    pace.emptied()
    clock.now_ns += 7_000_000
    assert pace.waited_ns == 0, "what comes after a silence is new"
    admitted(pace)
    assert pace.waited_ns == 7_000_000
    clock.now_ns += SLICE_NS
    admitted(pace)
    assert pace.waited_ns == 7_000_000 + SLICE_NS, "it grows while there is more than is read"
    pace.emptied()
    assert pace.waited_ns == 0


def test_what_is_long_to_read_rests_thrice_as_long() -> None:
    clock = Clock()
    pace = Pace(1_000, clock, clock)
    pace.emptied()
    took_ns = SPARE_NS + ORDINARY_NS + 60_000_000
    assert pace.admit()
    clock.now_ns += took_ns
    pace.done()
    assert not pace.admit()
    assert pace.rest_s * 1e9 == REST * 60_000_000
    clock.now_ns += REST * 60_000_000
    assert pace.admit()
    assert pace.waited_ns == took_ns + REST * 60_000_000, "it may have waited for that"


def test_one_that_takes_longer_than_others_rests_for_nothing() -> None:
    clock = Clock()
    pace = Pace(1_000, clock, clock)
    for _ in range(20):
        for took_ns in (*[ORDINARY_NS // 2] * 19, 10 * ORDINARY_NS):
            assert pace.admit()
            clock.now_ns += took_ns
            pace.done()
        assert not pace.admit(), "it is the slice that is over"
        assert pace.rest_s * 1e9 < SLICE_NS
        clock.now_ns += SLICE_NS
