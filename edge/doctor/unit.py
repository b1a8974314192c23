"""The systemd unit: how exposed it is, judged by systemd itself."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from edge.doctor.check import Check, finding, ok, unknown

INSTALLED: Final = ("/etc/systemd/system/edge.service", "/lib/systemd/system/edge.service")
WORST_EXPOSURE: Final = 2.0
"""The shipped unit has about 1.3, with the drop-in for CUDA 1.5."""
_WAIT_S: Final = 20.0


def hardening(units: tuple[str, ...] = INSTALLED) -> Check:
    """Ask systemd-analyze how exposed the installed unit is, 0 (best) to 10."""
    name = "unit.hardening"
    tool = shutil.which("systemd-analyze")
    if tool is None:
        return unknown(name, "systemd-analyze is not installed")
    unit = next((path for path in map(Path, units) if path.is_file()), None)
    if unit is None:
        return unknown(name, "edge.service is not installed", "see systemd/edge.service")
    try:
        done = subprocess.run(
            [tool, "security", "--offline=yes", "--no-pager", str(unit)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return unknown(name, f"systemd-analyze gave no answer in {_WAIT_S:g} s")
    text = done.stdout.decode(errors="replace")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    if found is None:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return unknown(name, f"systemd-analyze: {lines[-1][:300]}")
    exposure = float(found[1])
    said = f"{unit}: exposure {exposure} (lower is better)"
    if exposure > WORST_EXPOSURE:
        return finding(
            name,
            said,
            "take the shipped systemd/edge.service, and put what differs into a drop-in",
        )
    return ok(name, said)
