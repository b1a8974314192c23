"""Silence, offline and gaps: when an alarm begins and ends."""

from edge.fleet.alarms import Alarm, Kind
from edge.fleet.store import Gap
from edge.fleet.watch import Watch


def _look(watch: Watch, now_s: float) -> tuple[set[tuple[str, Kind]], set[tuple[str, Kind]]]:
    raised, ended = watch.alarms(now_s)
    watch.told(raised, ended)
    return {(a.device, a.kind) for a in raised}, {(device, kind) for device, _, kind in ended}


def _watch() -> Watch:
    return Watch(silent_after_s=300, gap_after_s=60, max_devices=3)


def test_a_device_that_falls_silent_is_told_once_and_taken_back_when_it_speaks() -> None:
    watch = _watch()
    assert watch.heard("box1", 0)
    _look(watch, 1)
    assert _look(watch, 300) == (set(), set())
    assert _look(watch, 301) == ({("box1", Kind.SILENT)}, set())
    assert _look(watch, 302) == (set(), set())
    watch.heard("box1", 400)
    assert _look(watch, 401) == (set(), {("box1", Kind.SILENT)})


def test_what_could_not_be_written_down_is_told_again() -> None:
    watch = _watch()
    watch.heard("box1", 0)
    watch.refused("box1", "rubbish")
    first = watch.alarms(400)
    assert watch.alarms(401)[0] != []
    watch.told(*first)
    assert watch.alarms(402) == ([], [])


def test_a_collector_that_was_down_blames_nobody_for_it() -> None:
    watch = _watch()
    watch.know("box1", "online", 1_000)
    assert _look(watch, 1_200)[0] == set()
    assert _look(watch, 1_301)[0] == {("box1", Kind.SILENT)}


def test_a_retained_status_tells_the_state_and_is_no_sign_of_life() -> None:
    watch = _watch()
    watch.know("box1", "online", 0)
    watch.said("box1", "online", 250, retained=True)
    assert ("box1", Kind.SILENT) in _look(watch, 301)[0]
    watch.said("box1", "offline", 302, retained=True)
    assert _look(watch, 303)[0] == {("box1", Kind.OFFLINE)}
    watch.said("box1", "online", 304, retained=False)
    assert _look(watch, 305)[1] == {("box1", Kind.OFFLINE), ("box1", Kind.SILENT)}


def test_no_more_devices_are_known_than_the_bound() -> None:
    watch = _watch()
    assert all(watch.heard(f"box{n}", 0) for n in range(3))
    assert not watch.heard("box3", 0)
    assert not watch.said("box4", "offline", 0, retained=True)
    assert not watch.said("box4", "online", 0, retained=False)
    assert watch.heard("box0", 1)
    assert len(watch) == 3


def test_changes_that_could_not_be_written_are_not_forgotten() -> None:
    watch = _watch()
    watch.said("box1", "offline", 0, retained=True)
    changed = watch.take_changed()
    assert changed == {"box1": "offline"}
    watch.said("box1", "online", 1, retained=False)
    watch.give_back(changed)
    assert watch.take_changed() == {"box1": "online"}


def test_a_missing_record_is_told_when_it_is_late_and_not_before() -> None:
    watch = _watch()
    gap = Gap("box1", "0" * 16, 4, 7)
    assert watch.gaps([gap], 0) == []
    assert watch.gaps([gap], 59) == []
    (alarm,) = watch.gaps([gap], 60)
    assert (alarm.kind, alarm.seq) == (Kind.GAP, 5)
    assert "records 5 to 6 are not here" in alarm.detail
    assert watch.gaps([Gap("box1", "0" * 16, 8, 10)], 61) == []  # it went on, to another gap


def test_an_alarm_is_a_message_under_its_own_topic() -> None:
    alarm = Alarm("box1", "", Kind.SILENT, 0, "quiet")
    assert alarm.topic() == "fleet/alarms/box1/device/silent"
    assert b'"kind":"silent"' in alarm.to_json()
