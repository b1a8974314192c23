"""The storage folder: may we write there, is there room, and how long does durable take?"""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from edge.doctor.check import Check, finding, ok, unknown

LEAST_FREE_BYTES: Final = 256 << 20
"""The cache of compiled guests takes a few MiB; the rest is for days without the cloud."""
BLOCK_BYTES: Final = 4_096
SYNCS: Final = 20
SLOW_MS: Final = 50.0
"""A commit takes one fsync or two; a quarter of the usual budget of 200 ms."""


def storage(path: Path) -> list[Check]:
    """Look at the storage folder, or where it does not exist yet, at where it would be made."""
    folder, made = _nearest(path)
    try:
        # A file in the way of the folder, where only a folder can be: say so as the kernel does.
        path.absolute().joinpath("probe").stat()
    except (FileNotFoundError, PermissionError):
        pass
    except OSError as failed:
        return [_unusable(path, failed)]
    try:
        free = os.statvfs(folder)
    except OSError as failed:
        return [_unusable(path, failed)]
    free_bytes = free.f_bavail * free.f_frsize
    checks = []
    try:
        times_ms = _sync_times_ms(folder)
    except OSError as failed:
        checks.append(_unusable(path, failed))
        checks.append(unknown("storage.fsync", "nothing can be written there"))
    else:
        said = f"{path} can be written" if made else f"{path} is absent; {folder} can be written"
        checks.append(ok("storage.writable", said))
        checks.append(_speed(times_ms))
    if free.f_blocks:  # /proc and its like have none
        checks.insert(1, _room(folder, free_bytes))
    return checks


def _nearest(path: Path) -> tuple[Path, bool]:
    """The folder itself, or the nearest one above that exists."""
    absolute = path.absolute()
    for folder in (absolute, *absolute.parents):
        if folder.is_dir():
            return folder, folder == absolute
    return Path("/"), False


def _unusable(path: Path, failed: OSError) -> Check:
    return finding(
        "storage.writable",
        f"{path}: {failed.strerror}",
        "free space there, make it writable for the daemon's user, or set storage.path; under "
        "systemd StateDirectory= makes it",
    )


def _room(folder: Path, free_bytes: int) -> Check:
    said = f"{free_bytes / (1 << 20):,.0f} MiB free"
    if free_bytes < LEAST_FREE_BYTES:
        return finding(
            "storage.free",
            said,
            f"free space on the file system of {folder}: below {LEAST_FREE_BYTES >> 20} MiB "
            "guests and records may not be kept",
        )
    return ok("storage.free", said)


def _sync_times_ms(folder: Path) -> list[float]:
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            file.write(b"\x5a" * BLOCK_BYTES)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    return sorted(times)


def _speed(times_ms: list[float]) -> Check:
    median, worst = times_ms[len(times_ms) // 2], times_ms[-1]
    said = f"fsync of {BLOCK_BYTES} bytes: median {median:.2f} ms, worst {worst:.2f} of {SYNCS}"
    if median > SLOW_MS:
        return finding(
            "storage.fsync",
            said,
            "put storage.path on an SSD or eMMC with a working cache: SD cards and USB sticks "
            "take this long",
        )
    return ok("storage.fsync", said)
