"""Ask the advisory databases about every pin: `python scripts/audit.py [--offline-ok]`.

What pip-audit says is told apart in three, because it says "No known vulnerabilities found" of what
it could ask nobody about, too:

- audited and clean: exit status 0;
- a finding, named with its remedy, or a pin that nobody could be asked about: 1;
- not reached: "nothing was audited", and why: 1, or 0 with `--offline-ok`, for a CI whose network
  may or may not reach the databases.

Reached is what a positive control says: an old pin of which an advisory is known has to be found
first. It is asked about alone, under a short limit: no network costs seconds, and not minutes.

`--service osv` asks another database, `--osv-url` a mirror of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
LOCKS: Final = (ROOT / "requirements.lock", ROOT / "scripts" / "guest_toolchains.lock")
TOOL: Final = "pip-audit==2.10.1"
CONTROL: Final = "requests==2.19.0"
"""CVE-2018-18074, in every database since 2018: the remedy is 2.20.0."""
CONTROL_LIMIT_S: Final = 15.0
LIMIT_S: Final = 300.0
_TOOL_IS_SILENT: Final = ("--format", "json", "--progress-spinner", "off", "--desc", "off")


@dataclass(frozen=True)
class Answer:
    """What one call of pip-audit came to.

    Attributes:
        audited: Pins that a database was asked about.
        findings: One line for each advisory, with its remedy.
        unasked: One line for each pin that no database knew of, with pip-audit's reason.
        failure: Why there is no answer at all; empty where there is one.
    """

    audited: int = 0
    findings: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    failure: str = ""


def read(stdout: str, stderr: str) -> Answer:
    """Read what pip-audit printed, in its JSON form."""
    try:
        told: list[dict[str, Any]] = json.loads(stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = stderr.strip().splitlines()
        return Answer(failure=said[-1] if said else "pip-audit printed nothing")
    return Answer(
        audited=sum("vulns" in pin for pin in told),
        findings=tuple(
            _finding(pin, advisory) for pin in told for advisory in pin.get("vulns", ())
        ),
        unasked=tuple(pin["skip_reason"] for pin in told if "skip_reason" in pin),
    )


def _finding(pin: dict[str, Any], advisory: dict[str, Any]) -> str:
    known_as = ", ".join((advisory["id"], *sorted(advisory.get("aliases", ()))))
    fixes = advisory.get("fix_versions") or ()
    remedy = f"fixed in {', '.join(fixes)}: make lock" if fixes else "no version fixes it yet"
    return f"{pin['name']} {pin['version']}: {known_as}; {remedy}"


def judge(control: Answer, pins: Answer, *, offline_ok: bool) -> tuple[int, str]:
    """Tell the cases apart.

    Args:
        control: Of the pin that has to be found.
        pins: Of the locks; not looked at where the control was not found.
        offline_ok: That nothing could be asked is no failure.

    Returns:
        The exit status, and what is to be said.
    """
    if not control.findings:
        why = control.failure or "; ".join(control.unasked) or "an old advisory was not found"
        said = f"nothing was audited: {why} (positive control {CONTROL})"
        return (0 if offline_ok else 1), said
    if pins.failure:
        return 1, f"nothing was audited, though the database answers: {pins.failure}"
    lines = [f"finding: {line}" for line in pins.findings]
    lines += [f"not audited: {line}" for line in pins.unasked]
    counts = f"{pins.audited} pins audited, {len(pins.findings)} findings"
    return (1 if lines else 0), "\n".join([*lines, f"{counts}, {len(pins.unasked)} not audited"])


def ask(locks: Sequence[Path], limit_s: float, more: Sequence[str]) -> Answer:
    """Run pip-audit, fetched for the call alone, over locks with hashes or one bare pin."""
    command = [sys.executable, "-m", "uv", "tool", "run", "--from", TOOL, "pip-audit"]
    command += [*_TOOL_IS_SILENT, "--disable-pip", "--no-deps", *more]
    for lock in locks:
        command += ["--requirement", str(lock)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return Answer(failure=f"no answer within {limit_s:g} s")
    return read(done.stdout, done.stderr)


def main(arguments: list[str]) -> int:
    """Ask, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--offline-ok", action="store_true", help="not reached is no failure")
    parser.add_argument("--service", default="pypi", help="as pip-audit names it: pypi, osv")
    parser.add_argument("--osv-url", help="where OSV answers, instead of its own address")
    parsed = parser.parse_args(arguments)
    more = ["--vulnerability-service", parsed.service]
    if parsed.osv_url:
        more += ["--osv-url", parsed.osv_url]
    with tempfile.TemporaryDirectory(prefix="edge-audit-") as folder:
        bare = Path(folder) / "control.txt"
        bare.write_text(f"{CONTROL}\n")
        control = ask([bare], CONTROL_LIMIT_S, more)
    pins = ask(LOCKS, LIMIT_S, more) if control.findings else Answer()
    status, said = judge(control, pins, offline_ok=parsed.offline_ok)
    print("\n".join(f"audit: {line}" for line in said.splitlines()))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
