"""When to try again, and in which version."""

from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt.attempts import Backoff, Version, VersionChoice
from edge.mqtt.counting import is_milestone


def _spoken(choice: VersionChoice) -> str:
    return choice.current


def test_delays_double_from_a_fifth_of_a_second_to_fifteen_seconds() -> None:
    backoff = Backoff(lambda: 1.0)
    delays = [round(backoff.next_s(), 3) for _ in range(10)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0, 15.0]
    backoff.reset()
    assert backoff.next_s() == 0.2


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=2_000))
def test_jitter_stays_between_half_and_the_whole(draws: list[float]) -> None:
    jitter = iter(draws)
    backoff, whole = Backoff(lambda: next(jitter)), Backoff(lambda: 1.0)
    for _ in draws:
        delay_s, longest_s = backoff.next_s(), whole.next_s()
        assert longest_s / 2 <= delay_s <= longest_s <= 15


def test_auto_begins_with_5_and_moves_on_when_it_is_refused() -> None:
    choice = VersionChoice("auto")
    assert _spoken(choice) == "5"
    assert choice.unsupported()  # at once
    assert _spoken(choice) == "3.1.1"
    choice.worked()
    assert not choice.silent()
    assert _spoken(choice) == "3.1.1"


def test_silence_alternates_until_one_version_worked() -> None:
    choice = VersionChoice("auto")
    assert choice.silent()
    assert _spoken(choice) == "3.1.1"
    assert not choice.silent()  # back to 5, but after a delay
    assert _spoken(choice) == "5"


def test_a_slow_broker_that_spoke_5_is_not_spoken_to_in_3_1_1_until_it_was_silent_thrice() -> None:
    choice = VersionChoice("auto")
    choice.worked()
    assert [choice.silent() for _ in range(3)] == [False, False, True]
    assert _spoken(choice) == "3.1.1"


def test_an_answer_in_between_forgives_silences() -> None:
    choice = VersionChoice("auto")
    for _ in range(5):
        choice.worked()
        assert not choice.silent()
        assert not choice.silent()
    assert _spoken(choice) == "5"


def test_a_fixed_version_never_changes() -> None:
    versions: tuple[Version, ...] = ("5", "3.1.1")
    for fixed in versions:
        choice = VersionChoice(fixed)
        assert not any([choice.silent() for _ in range(9)] + [choice.unsupported()])
        assert _spoken(choice) == fixed


def test_a_flood_is_told_now_and_then() -> None:
    told = [count for count in range(1, 1_025) if is_milestone(count)]
    assert told == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]
