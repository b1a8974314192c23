"""The box itself: clock, processor, memory, temperature. Read from the kernel's own files."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edge.doctor.check import Check, finding, ok, unknown

EARLIEST: Final = 1_767_225_600
"""2026-01-01, before the first release: a clock that is behind it was never set."""
LATEST: Final = 4_102_444_800
"""2100-01-01."""
WATCHED_S: Final = 0.25
"""How long the two clocks are compared."""
MAX_DRIFT_MS: Final = 5.0
"""In that time; a slewing clock makes 0.125 ms of it (500 ppm), a step milliseconds to hours."""
LEAST_FREE_MIB: Final = 256
"""A worker with the reference model takes 150 MiB, and a swap has two of them."""
HOT_C: Final = 85.0
"""Where these boxes begin to throttle, when their driver names no point of its own."""

_FAST: Final = {
    "x86_64": ({"avx2"}, "avx2"),
    "aarch64": ({"asimd"}, "neon"),
    "armv7l": ({"neon"}, "neon"),
}
"""What ONNX Runtime's kernels need to be fast, as /proc/cpuinfo names it, and how people do."""
_HELPFUL: Final = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")
"""Make int8 models faster than float ones."""


def clock(
    wall_s: Callable[[], float] = time.time,
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Check:
    """Is the wall clock set, and does it run evenly?"""
    name, now = "clock", wall_s()
    if not EARLIEST <= now < LATEST:
        year = time.gmtime(now).tm_year if 0 <= now < 1 << 36 else 0
        return finding(
            name,
            f"the clock says {year or now}",
            "set it (timedatectl set-ntp true, or a clock battery): certificates and capture "
            "times depend on it",
        )
    wall, monotonic = wall_s(), monotonic_s()
    sleep(WATCHED_S)
    drift_ms = abs((wall_s() - wall) - (monotonic_s() - monotonic)) * 1e3
    if drift_ms > MAX_DRIFT_MS:
        return finding(
            name,
            f"the wall clock moved by {drift_ms:.1f} ms against the monotonic one "
            f"in {WATCHED_S * 1e3:.0f} ms",
            "let one time service slew it (systemd-timesyncd or chrony), and nothing step it",
        )
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    return ok(name, f"{stamp} UTC; even to {drift_ms:.2f} ms in {WATCHED_S * 1e3:.0f} ms")


def processor(threads: int, pipelines: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Has it the vector units, and as many cores as the config spends?"""
    name, machine = "processor", platform.machine()
    try:
        words = set(cpuinfo.read_text().split())
    except OSError as failed:
        return unknown(name, f"{cpuinfo} cannot be read: {failed.strerror}")
    cores = len(os.sched_getaffinity(0))
    said = f"{machine}, {cores} cores for this process"
    needed, title = _FAST.get(machine, (set(), ""))
    if missing := needed - words:
        return finding(
            name,
            f"{said}, without {', '.join(sorted(missing))}",
            "models will be several times slower: check the hypervisor's CPU type, or take "
            "another box",
        )
    spent = threads * max(1, pipelines)
    if spent > cores:
        return finding(
            name,
            f"{said}; {max(1, pipelines)} worker(s) of {threads} thread(s) want {spent}",
            "lower inference.threads, or give the service more cores (CPUAffinity, container)",
        )
    features = [title] if title else []
    features += [word for word in _HELPFUL if word in words]
    return ok(
        name, f"{said} ({', '.join(features) or 'features unknown'}), {spent} spent on models"
    )


def memory(meminfo: Path = Path("/proc/meminfo")) -> Check:
    """Is there room for the workers?"""
    name = "memory"
    try:
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free_mib, total_mib = (
            int(rows[key].split()[0]) // 1024 for key in ("MemAvailable", "MemTotal")
        )
    except (OSError, KeyError, ValueError, IndexError) as failed:
        return unknown(name, f"{meminfo} cannot be read: {failed}")
    said = f"{free_mib} MiB of {total_mib} available"
    if free_mib < LEAST_FREE_MIB:
        return finding(
            name,
            said,
            f"free some: at least {LEAST_FREE_MIB} MiB are needed to start the next worker beside "
            "the one that runs",
        )
    return ok(name, said)


def temperature(sys_class: Path = Path("/sys/class")) -> Check:
    """Is it hot, near the point where its driver throttles?"""
    name = "temperature"
    hottest: tuple[float, float, str] | None = None  # below its limit, degrees, zone
    for zone in sorted(sys_class.glob("thermal/thermal_zone*")):
        degrees = _milli(zone / "temp")
        if degrees is None:
            continue
        limit = min(_trips(zone), default=HOT_C)
        place = (degrees - limit, degrees, _word(zone / "type") or zone.name)
        hottest = max(hottest, place) if hottest else place
    if hottest is None:
        return unknown(name, "this kernel shows no thermal zone (usual in a virtual machine)")
    above, degrees, zone_name = hottest
    said = f"{zone_name} at {degrees:.0f} °C, throttles at {degrees - above:.0f}"
    if above >= 0:
        return finding(name, said, "cool it: fan, heat sink, cabinet; latency suffers now")
    return ok(name, said)


def throttling(cpu: Path = Path("/sys/devices/system/cpu")) -> Check:
    """Has the processor throttled since boot, or is it held at a low frequency?"""
    name = "throttling"
    counts = [
        count
        for path in cpu.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
        if (count := _number(path)) is not None
    ]
    governor = _word(cpu / "cpu0/cpufreq/scaling_governor")
    if governor == "powersave" and _word(cpu / "cpu0/cpufreq/scaling_driver") != "intel_pstate":
        return finding(
            name,
            "the governor powersave holds the lowest frequency",
            "cpupower frequency-set -g performance (a Jetson: nvpmodel and jetson_clocks)",
        )
    if not counts and not governor:
        return unknown(name, "this kernel shows no throttle counts (usual in a virtual machine)")
    if any(counts):
        return finding(
            name,
            f"throttled {max(counts)} times since boot",
            "cool it: fan, heat sink, cabinet; frames that came then were slow",
        )
    return ok(name, f"not throttled since boot{f', governor {governor}' if governor else ''}")


def _trips(zone: Path) -> Iterator[float]:
    for kind in zone.glob("trip_point_*_type"):
        if _word(kind) in ("passive", "hot", "critical"):
            degrees = _milli(kind.with_name(kind.name.replace("_type", "_temp")))
            if degrees is not None and degrees > 0:
                yield degrees


def _milli(path: Path) -> float | None:
    number = _number(path)
    return None if number is None else number / 1e3


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # sensors that are asleep answer EAGAIN or EINVAL
        return None


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
