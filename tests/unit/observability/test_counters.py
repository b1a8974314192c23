"""Counters: only what the table names, bounded, exact under threads."""

import threading
from typing import Any

import pytest

from edge.observability.counters import MAX_SERIES, TABLE, Counters, Meaning

SMALL = {"plain": Meaning("Things."), "by_two": Meaning("Things.", ("kind", "reason"))}


def test_a_count_starts_at_zero_and_rises() -> None:
    counters = Counters(SMALL)
    assert counters.value("plain") == 0
    counters.count("plain")
    counters.count("plain", 4)
    assert counters.value("plain") == 5


def test_labels_are_counted_apart_and_totalled() -> None:
    counters = Counters(SMALL)
    counters.count("by_two", kind="pass", reason="ok")
    counters.count("by_two", reason="defect", kind="reject")
    counters.count("by_two", kind="pass", reason="ok")
    assert counters.value("by_two", kind="pass", reason="ok") == 2
    assert counters.total("by_two") == 3


def test_the_snapshot_holds_what_was_counted_under_readable_keys() -> None:
    counters = Counters(SMALL)
    counters.count("plain")
    counters.count("by_two", kind="pass", reason="ok")
    assert counters.snapshot() == {"by_two{kind=pass,reason=ok}": 1, "plain": 1}


def test_a_name_outside_the_table_is_a_bug() -> None:
    with pytest.raises(KeyError, match="frames_droped"):
        Counters().count("frames_droped", reason="overload")


@pytest.mark.parametrize("labels", [{}, {"cause": "x"}, {"reason": "x", "cause": "y"}])
def test_labels_other_than_the_tables_are_a_bug(labels: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frames_dropped"):
        Counters().count("frames_dropped", **labels)


def test_a_counter_never_falls() -> None:
    with pytest.raises(ValueError, match="only rises"):
        Counters(SMALL).count("plain", -1)


def test_label_values_from_outside_are_bounded_and_nothing_is_lost() -> None:
    counters = Counters(SMALL)
    for number in range(1_000):
        counters.count("by_two", kind="pass", reason=f"code-{number}")
    assert len(counters.snapshot()) == MAX_SERIES + 1
    assert counters.total("by_two") == 1_000
    assert counters.value("by_two", kind="other", reason="other") == 1_000 - MAX_SERIES


def test_counts_of_many_threads_add_up() -> None:
    counters = Counters(SMALL)

    def count() -> None:
        for _ in range(2_000):
            counters.count("by_two", kind="pass", reason="ok")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.total("by_two") == 16_000


def test_every_counter_says_what_it_means() -> None:
    for name, meaning in TABLE.items():
        assert meaning.text.endswith("."), name
        assert name.replace("_", "").isalpha(), name
