"""A fresh gateway for tests: Debian 12 with systemd as PID 1 in a container, and edge's package.

A driver, run there as root once it is up, tells how each of its steps ended (`tests/systemd`).
Needs root, mmdebstrap and systemd-nspawn (`scripts/setup_tests.sh` installs them).
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[1]
OUT: Final = ROOT / ".out" / "systemd"
EPOCH: Final = "1700000000"
_FIRST_BOOT: Final = """[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/usr/bin/python3 /out/{driver}
ExecStopPost=/usr/bin/systemctl exit 0
StandardOutput=file:/out/driver.txt
StandardError=file:/out/driver.txt
"""


def require(*tools: str) -> None:
    """Skip where a tool is missing; in CI that is a failure."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed (scripts/setup_tests.sh does it)"
    if os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def package(name: str, suffix: str = "") -> Path:
    """Build the package, into a folder of its own."""
    require("dpkg-deb")
    out = OUT / name
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(ROOT / "scripts" / "deb.py"), "--out", str(out), "--level", "1"]
    done = subprocess.run(
        [*command, "--version-suffix", suffix],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.glob("*.deb")
    return built


def booted(
    form: str, shared: Path, driver: str, *arguments: str, upgrade: bool = False
) -> dict[str, dict[str, Any]]:
    """Boot a gateway once, and return how each step ended, by name.

    Args:
        form: Of the root (`scripts/make_rootfs.sh`).
        shared: Emptied; what the gateway is given, and what it leaves: transcript, results.
        driver: Of `tests/systemd`; all drivers are given.
        arguments: For the driver.
        upgrade: Whether it is given a newer package, too.
    """
    if os.geteuid() != 0:
        pytest.skip("booting systemd as PID 1 needs root")
    require("mmdebstrap", "systemd-nspawn", "unshare")
    if not _may_boot():
        pytest.skip("this root may make no mounts and control groups: a container without rights?")
    rootfs = ROOT / ".out" / f"rootfs-{form}"
    with ThreadPoolExecutor() as beside:  # the one waits for disks and mirrors, the other computes
        making = beside.submit(
            subprocess.run,
            ["sh", str(ROOT / "scripts" / "make_rootfs.sh"), str(rootfs), form],
            capture_output=True,
            text=True,
            check=False,
        )
        built = package("first")
    made = making.result()
    assert made.returncode == 0, made.stderr[-3000:]
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    shutil.copyfile(built, shared / built.name)
    if upgrade:
        shutil.copyfile(package("next", "+1"), shared / "edge-next.deb")
    for each in (ROOT / "tests" / "systemd").glob("*driver.py"):
        shutil.copyfile(each, shared / each.name)
    shutil.copyfile(ROOT / "docs" / "install.md", shared / "install.md")
    words = " ".join((driver, *arguments))
    (shared / "first-boot.service").write_text(_FIRST_BOOT.format(driver=words))
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "boot_rootfs.sh"), str(rootfs), str(shared)],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    results = shared / "results.json"
    assert results.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    for package_file in shared.glob("*.deb"):
        package_file.unlink()
    return {result["claim"]: result for result in json.loads(results.read_text())}


def hold(result: dict[str, Any]) -> None:
    """Pass, skip or fail as a step did."""
    if result["outcome"] == "skipped":
        pytest.skip(result["detail"])
    assert result["outcome"] == "passed", result["detail"]


def _may_boot() -> bool:
    """Whether root is root here, and not that of a container that was given little."""
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0 and os.access("/sys/fs/cgroup", os.W_OK)
