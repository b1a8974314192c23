"""What the doctor reads off the box itself, from files as a kernel would show them."""

import os
import platform
import shutil
from pathlib import Path

import pytest

from edge.doctor import machine, unit
from edge.doctor.check import Check, Outcome
from edge.doctor.disk import storage

NOON_2026 = 1_782_000_000.0


def clocked(walls: list[float], monotonics: list[float]) -> Check:
    wall, monotonic = iter(walls), iter(monotonics)
    return machine.clock(lambda: next(wall), lambda: next(monotonic), lambda _s: None)


def test_a_clock_that_was_never_set_is_a_finding() -> None:
    check = clocked([0.0], [])
    assert check.outcome is Outcome.FINDING
    assert "the clock says 1970" in check.said


def test_a_clock_that_is_stepped_is_a_finding_and_an_even_one_is_not() -> None:
    stepped = clocked([NOON_2026, NOON_2026, NOON_2026 - 3600], [5.0, 5.25])
    assert stepped.outcome is Outcome.FINDING
    assert "moved by 3600250.0 ms" in stepped.said
    even = clocked([NOON_2026, NOON_2026, NOON_2026 + 0.25], [5.0, 5.25])
    assert even.outcome is Outcome.OK
    assert "2026-06-21" in even.said


def test_this_clock_is_looked_at_in_earnest() -> None:
    assert machine.clock().said


def test_a_processor_without_its_vector_unit_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse2 ssse3\n")
    check = machine.processor(1, 1, cpuinfo)
    assert check.outcome is Outcome.FINDING
    assert "without avx2" in check.said
    cpuinfo.write_text("flags\t\t: fpu sse2 avx2 avx512_vnni\n")
    sound = machine.processor(1, 1, cpuinfo)
    assert sound.outcome is Outcome.OK
    assert "avx2, avx512_vnni" in sound.said


def test_an_arm_processor_is_asked_for_neon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("Features\t: fp asimd asimddp\n")
    assert "neon, asimddp" in machine.processor(1, 1, cpuinfo).said


def test_more_threads_than_cores_are_a_finding() -> None:
    cores = len(os.sched_getaffinity(0))
    check = machine.processor(cores + 1, 2)
    assert check.outcome is Outcome.FINDING
    assert f"want {2 * (cores + 1)}" in check.said
    assert "inference.threads" in check.remedy


def test_little_memory_is_a_finding(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        2000000 kB\nMemAvailable:     100000 kB\n")
    assert machine.memory(meminfo).outcome is Outcome.FINDING
    meminfo.write_text("MemTotal:        2000000 kB\nMemAvailable:    1000000 kB\n")
    assert machine.memory(meminfo).outcome is Outcome.OK
    assert machine.memory(tmp_path / "absent").outcome is Outcome.UNKNOWN


def zone(folder: Path, number: int, degrees: str, trips: dict[str, int]) -> None:
    place = folder / "thermal" / f"thermal_zone{number}"
    place.mkdir(parents=True)
    (place / "type").write_text(f"zone-{number}\n")
    (place / "temp").write_text(degrees)
    for position, (kind, milli) in enumerate(trips.items()):
        (place / f"trip_point_{position}_type").write_text(f"{kind}\n")
        (place / f"trip_point_{position}_temp").write_text(f"{milli}\n")


def test_heat_is_judged_by_the_zones_own_trip_point(tmp_path: Path) -> None:
    assert machine.temperature(tmp_path).outcome is Outcome.UNKNOWN
    zone(tmp_path, 0, "60000", {"active": 40_000, "passive": 95_000})
    check = machine.temperature(tmp_path)
    assert check.outcome is Outcome.OK
    assert "zone-0 at 60 °C, throttles at 95" in check.said
    zone(tmp_path, 1, "71000", {"passive": 70_000})
    hot = machine.temperature(tmp_path)
    assert hot.outcome is Outcome.FINDING
    assert "zone-1 at 71 °C, throttles at 70" in hot.said
    zone(tmp_path, 2, "asleep", {})
    assert machine.temperature(tmp_path) == hot


def test_throttle_counts_and_governors_are_read(tmp_path: Path) -> None:
    assert machine.throttling(tmp_path).outcome is Outcome.UNKNOWN
    counts = tmp_path / "cpu0" / "thermal_throttle"
    counts.mkdir(parents=True)
    (counts / "core_throttle_count").write_text("0\n")
    assert machine.throttling(tmp_path).outcome is Outcome.OK
    (counts / "core_throttle_count").write_text("12\n")
    assert "throttled 12 times" in machine.throttling(tmp_path).said
    governor = tmp_path / "cpu0" / "cpufreq"
    governor.mkdir()
    (governor / "scaling_governor").write_text("powersave\n")
    (governor / "scaling_driver").write_text("cpufreq-dt\n")
    assert "powersave" in machine.throttling(tmp_path).said
    (governor / "scaling_driver").write_text("intel_pstate\n")
    assert "throttled 12 times" in machine.throttling(tmp_path).said


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    checks = {check.name: check for check in storage(tmp_path / "a" / "b")}
    assert checks["storage.writable"].outcome is Outcome.OK
    assert f"{tmp_path} can be written" in checks["storage.writable"].said
    assert "median" in checks["storage.fsync"].said
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_a_path_through_a_file_is_no_folder(tmp_path: Path) -> None:
    """The nearest folder is writable, but what the config names can never be made."""
    (tmp_path / "file").write_text("")
    check = next(c for c in storage(tmp_path / "file" / "state") if c.name == "storage.writable")
    assert check.outcome is Outcome.FINDING
    assert "Not a directory" in check.said


def test_an_unhardened_unit_is_a_finding_and_the_shipped_one_is_not(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    shipped = Path(__file__).parents[3] / "systemd" / "edge.service"
    assert unit.hardening((str(shipped),)).outcome is Outcome.OK
    bare = tmp_path / "edge.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    check = unit.hardening((str(bare),))
    assert check.outcome is Outcome.FINDING
    assert "exposure 9" in check.said
    assert unit.hardening((str(tmp_path / "absent"),)).outcome is Outcome.UNKNOWN
