"""Disks of the tests' own: one that can lose its power, and one that is soon full.

The first is ext4 on a loop device. The cut is ext4's own shutdown without a flush of its journal:
what was not synced is gone. The second is a tmpfs. Both need root; where it may not mount, tests
skip with that reason.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_EXT4_IOC_SHUTDOWN: Final = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
_NOLOGFLUSH: Final = 2


class LoopDisk:
    """An ext4 file system in a file.

    Args:
        folder: Where image and mount point lie.
        size_mib: Of the disk.
        options: Of the mount; `commit=60` keeps ext4 from syncing by itself.

    Attributes:
        mount: Where it is mounted.
    """

    def __init__(self, folder: Path, size_mib: int = 64, options: str = "commit=60") -> None:
        self._image = folder / "disk.img"
        self._options = f"loop,{options}"
        self.mount = folder / "disk"
        self.mount.mkdir()
        with self._image.open("wb") as image:
            image.truncate(size_mib << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.power_on()

    def power_on(self) -> None:
        """Mount it; ext4 replays its journal."""
        _run("mount", "-o", self._options, str(self._image), str(self.mount))

    def power_off(self) -> None:
        """Cut the power. Whoever writes gets EIO from now on; end it, then `unmount`."""
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Let go of it; waits for nobody."""
        subprocess.run(["umount", str(self.mount)], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", str(self.mount)], check=False, capture_output=True)

    def fail(self) -> None:
        """Have ext4 find an error: with `errors=remount-ro` it becomes read-only."""
        source = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", str(self.mount)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        trigger = Path("/sys/fs/ext4") / Path(source).name / "trigger_fs_error"
        trigger.write_text("a test")

    def repair(self) -> None:
        """Unmount it, have it checked, and mount it again."""
        self.unmount()
        # 1: errors were corrected.
        done = subprocess.run(
            ["e2fsck", "-f", "-y", str(self._image)], check=False, capture_output=True, text=True
        )
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        self.power_on()


@contextmanager
def loop_disk(folder: Path, size_mib: int = 64, options: str = "commit=60") -> Iterator[LoopDisk]:
    """A mounted disk; skips the test where this machine does not allow one."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk of its own")
    try:
        disk = LoopDisk(folder, size_mib, options)
    except (OSError, subprocess.CalledProcessError) as failed:
        said = getattr(failed, "stderr", "") or str(failed)
        pytest.skip(f"no loop device may be mounted here: {said.strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[Path]:
    """Yield a folder, made if absent, that is a file system of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"this container may not mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the space that there is, or became free since; return the file that took it."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4_096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast
