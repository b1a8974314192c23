"""Signals as of an instant, and the payloads that they are read from."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import Binding, ClockSection
from edge.contracts.signal import SignalState, SignalValue
from edge.daemon.signals import MalformedSignalError, SignalHistory, latest_ns, read

MS = 1_000_000
NOW = 1_790_000_000_000 * MS
CLOCK = ClockSection()


def sampled(payload: bytes, pointer: str = "", time_pointer: str = "") -> list[tuple[int, float]]:
    binding = Binding(topic="t", pointer=pointer, time_pointer=time_pointer)
    return read(payload, binding, CLOCK, NOW)


def history(*samples: tuple[int, float], capacity: int = 100) -> SignalHistory:
    made = SignalHistory(capacity)
    for time_ns, value in samples:
        made.add(time_ns, value)
    return made


def test_the_last_value_at_or_before_the_instant_counts() -> None:
    values = history((10, 1.0), (20, 2.0), (30, 3.0))
    assert values.as_of(20, 1).value == 2.0
    assert values.as_of(29, 1) == SignalValue(2.0, 9, SignalState.FRESH)
    assert values.as_of(1_000, 1).value == 3.0


def test_what_waited_is_older_where_it_has_no_time_of_its_own_and_believed_where_it_has() -> None:
    waited_ns = 5_000 * MS
    timed = Binding(topic="t", pointer="/v", time_pointer="/t")

    def at(time_ns: int) -> int:
        payload = json.dumps({"v": 1.0, "t": time_ns}).encode()
        ((found_ns, _),) = read(payload, timed, CLOCK, NOW, waited_ns)
        return found_ns

    assert read(b"1.0", Binding(topic="t"), CLOCK, NOW, waited_ns) == [(NOW - waited_ns, 1.0)]
    assert at(NOW - 3 * MS) == NOW - 3 * MS, "measured while others waited"
    assert at(NOW - 9_000 * MS) == NOW - 9_000 * MS
    assert at(NOW + 9_000 * MS) == NOW - waited_ns, "no clock to believe: as old as it may be"


def test_before_the_first_value_the_signal_is_absent() -> None:
    assert history((10, 1.0)).as_of(9, 1_000) == SignalValue()
    assert history().as_of(9, 1_000).state is SignalState.ABSENT


def test_a_value_older_than_the_grant_is_stale_and_still_told() -> None:
    values = history((0, 7.0))
    assert values.as_of(5 * MS, 5).state is SignalState.FRESH
    assert values.as_of(5 * MS + 1, 5) == SignalValue(7.0, 5 * MS + 1, SignalState.STALE)


def test_values_out_of_order_take_their_place() -> None:
    values = history((30, 3.0), (10, 1.0), (20, 2.0))
    assert [values.as_of(t, 1).value for t in (10, 20, 30)] == [1.0, 2.0, 3.0]


def test_a_second_value_of_an_instant_replaces_the_first() -> None:
    values = history((10, 1.0), (10, 5.0))
    assert values.as_of(10, 1).value == 5.0
    assert len(values) == 1


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 8))
def test_the_history_is_bounded_and_keeps_the_newest(times: list[int], capacity: int) -> None:
    values = history(*((t, float(t)) for t in times), capacity=capacity)
    assert len(values) <= capacity
    if times:
        assert values.as_of(50, 1).value == float(max(times))


def test_after_the_clock_was_set_back_new_values_count_and_the_history_goes_on() -> None:
    hour = 3_600 * 10**9
    values = history(*((NOW + n, float(n)) for n in range(4)), capacity=4)
    for n in range(6):
        now = NOW - hour + n
        values.set_back(latest_ns(CLOCK, now))
        values.add(now, 10.0 + n)
        assert values.as_of(now, 1) == SignalValue(10.0 + n, 0, SignalState.FRESH)
    assert len(values) == 4


def test_a_value_is_as_old_as_the_time_since_it_came_whatever_the_clock_says() -> None:
    second = 1_000 * MS
    values = SignalHistory(100)
    for n in range(100):
        values.add(NOW + n * second, float(n), arrived_ns=n * second)
    dead_for, set_back = 20 * second, 60 * second
    captured_ns = 99 * second + dead_for
    seen = values.as_of(NOW + captured_ns - set_back, 1_000, captured_ns)
    assert seen == SignalValue(59.0, 60 * second, SignalState.STALE)
    early = values.as_of(NOW + 50 * second + 5 * MS, 1_000, 40 * second)
    assert early == SignalValue(50.0, 5 * MS, SignalState.FRESH), "it came after the frame"


def test_a_clock_that_runs_on_loses_no_value_not_even_one_of_a_moment_later() -> None:
    values = SignalHistory(100)
    for now in range(NOW, NOW + 300 * MS, 10 * MS):
        values.set_back(latest_ns(CLOCK, now))
        values.add(now + CLOCK.max_future_ms * MS, float(now))
    assert len(values) == 30


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"1.5", 1.5), (b" -3 ", -3.0), (b"1e3", 1_000.0), (b"true", 1.0), (b"false", 0.0)],
)
def test_a_bare_number_is_a_value_of_its_arrival(payload: bytes, value: float) -> None:
    assert sampled(payload) == [(NOW, value)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"NaN",
        b"Infinity",
        b"1e999",
        b'"1.5"',
        b"null",
        b"{}",
        b"[]",
        b"[[1]]",
        b"1 2",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" * 900 + b"]" * 900,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"1" * 5_000,
        b"-" + b"9" * 400,
    ],
)
def test_what_is_no_finite_number_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedSignalError) as refused:
        sampled(payload)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "payload", [b'"\xff"', b'{"\xc3\x28": 1}', b"\x00\xff", b'["\xed\xa0\x80"]']
)
def test_text_that_is_no_utf8_is_refused_as_any_other(payload: bytes) -> None:
    with pytest.raises(MalformedSignalError):
        sampled(payload)


def test_an_array_is_many_samples_and_one_bad_one_spoils_it() -> None:
    assert sampled(b"[1, 2, 3]") == [(NOW, 1.0), (NOW, 2.0), (NOW, 3.0)]
    with pytest.raises(MalformedSignalError):
        sampled(b'[1, "2"]')


def test_pointers_lead_to_value_and_time() -> None:
    document = json.dumps({"a/b": [{"~v": 4}], "t": NOW // 10**9 - 5}).encode()
    assert sampled(document, "/a~1b/0/~0v", "/t") == [((NOW // 10**9 - 5) * 10**9, 4.0)]


def test_nanoseconds_keep_their_last_digit() -> None:
    document = json.dumps({"v": 1, "t": NOW - 123_456_789}).encode()
    assert sampled(document, "/v", "/t") == [(NOW - 123_456_789, 1.0)]


@pytest.mark.parametrize("pointer", ["/b", "/a/2", "/a/-1", "/a/x", "/a/0/b", "/a/01", "/a/+0"])
def test_a_pointer_to_nowhere_is_named(pointer: str) -> None:
    with pytest.raises(MalformedSignalError, match="is missing"):
        sampled(b'{"a": [1, 2]}', pointer)


@pytest.mark.parametrize("time", [0, NOW + 51 * MS, NOW - 86_401 * 10**9, 1e300, -5])
def test_a_time_that_cannot_be_gives_way_to_the_arrival(time: float) -> None:
    document = json.dumps({"v": 1, "t": time}).encode()
    assert sampled(document, "/v", "/t") == [(NOW, 1.0)]


@given(
    st.binary(max_size=64)
    | st.recursive(st.floats() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    for pointer in ("", "/0", "/a"):
        try:
            samples = sampled(payload, pointer, pointer)
        except MalformedSignalError:
            continue
        assert samples
