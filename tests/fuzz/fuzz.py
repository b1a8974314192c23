"""`make fuzz`: mutated modules, guests' answers, parameters, and all that is read from outside.

    python tests/fuzz/fuzz.py --cases 1000000           # the long form
    python tests/fuzz/fuzz.py --seconds 60              # the short one
    python tests/fuzz/fuzz.py --only modules --seed 7 --case 4711    # one case again

Cases run in child processes. A child that crashes or hangs is a finding of the case that it was at;
so is an exception that the code under test does not promise. Every finding is printed with the
command that runs its case again. Status 1 where there was one.
"""

import argparse
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]

SHARES: Final = {
    "modules": 2,
    "answers": 15,
    "parameters": 6,
    "frame-headers": 10,
    "topics": 10,
    "content-types": 6,
    "signals": 8,
    "sparkplug": 2,
    "config": 2,
    "overrides": 3,
    "manifest": 2,
    "card": 2,
    "onnx-screen": 6,
    "wasm-inspection": 2,
    "wasi-linking": 2,
    "ledger-records": 8,
    "worker-channel": 6,
    "images": 3,
    "parameter-schemas": 2,
    "collected-records": 2,
    "notes": 1,
}
"""Hundredths of the cases: more where a case is quick, and where the host is nearest."""

SEED: Final = 20261122
_STRETCH: Final = 5_000
"""Cases of one child: memory that leaks and state that gathers end with it."""
_LOOK_S: Final = 0.05
_STARTING: Final = -2
_START_S: Final = 120.0
"""Imports, and compiling the guests that a target begins with, on a busy machine."""


@dataclass
class Target:
    """What became of one target."""

    name: str
    cases: int = 0
    seconds: float = 0.0
    patience_s: float = 30.0
    findings: list[str] = field(default_factory=list)


def run_stretch(found: Target, seed: int, first: int, last: int) -> None:
    """Run cases first..last in children; a child that ends early is followed by another."""
    began = time.monotonic()
    while first < last:
        first = _run_child(found, seed, first, last)
    found.seconds += time.monotonic() - began


def _run_child(found: Target, seed: int, first: int, last: int) -> int:
    """Return the first case that is still to be run."""
    with tempfile.NamedTemporaryFile(prefix="edge-fuzz-") as mark, tempfile.TemporaryFile() as out:
        mark.write(struct.pack("<q", _STARTING))
        mark.flush()
        words = (found.name, str(seed), str(first), str(last), mark.name)
        child = subprocess.Popen(
            [sys.executable, str(HERE / "fuzz_child.py"), *words],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_paths())},
        )
        hung = _wait(child, Path(mark.name), found.patience_s)
        at = _at_work(Path(mark.name))
        out.seek(0)
        told = out.read().decode(errors="replace").splitlines()
    done = False
    for line in told:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(entry, dict):
            continue
        done = done or "done" in entry
        if "trace" in entry:
            _report(found, seed, entry["case"], entry["trace"])
    if done:
        found.cases += last - first
        return last
    if at == _STARTING:  # it would not start for the next case either
        _report(found, seed, first, "the target cannot start\n" + "\n".join(told[-12:]))
        return last
    how = "hangs" if hung else f"ended the process with {_ending(child.returncode)}"
    _report(found, seed, at, f"{how}\n" + "\n".join(told[-12:]))
    found.cases += at + 1 - first
    return at + 1


def _wait(child: "subprocess.Popen[bytes]", mark: Path, patience_s: float) -> bool:
    """Wait for its end; kill it, and say so, where one case takes too long.

    Calls end after 20 ms and mutants compile in milliseconds: half a minute is a hang.
    """
    case, since = _STARTING, time.monotonic()
    while child.poll() is None:
        time.sleep(_LOOK_S)
        now = _at_work(mark)
        if now != case:
            case, since = now, time.monotonic()
        elif time.monotonic() - since > (_START_S if case == _STARTING else patience_s):
            child.send_signal(signal.SIGABRT)  # faulthandler tells where it is
            try:
                child.wait(2)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            return True
    return False


def _at_work(mark: Path) -> int:
    content = mark.read_bytes()
    number: int = struct.unpack("<q", content[:8])[0]
    return number


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _report(found: Target, seed: int, case: int, what: str) -> None:
    again = f"{sys.executable} tests/fuzz/fuzz.py --only {found.name} --seed {seed} --case {case}"
    found.findings.append(f"{found.name}, case {case}: {what}\n  again: {again}")
    sys.stdout.write(found.findings[-1] + "\n")
    sys.stdout.flush()


def _paths() -> list[str]:
    return [str(HERE), str(ROOT / "tests"), str(ROOT / "tests/hostile/guests"), str(ROOT)]


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description="Fuzz the host with cases that can be run again by their number."
    )
    parser.add_argument("--cases", type=int, default=0, help="cases in all")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long")
    parser.add_argument("--seed", type=int, default=SEED, help=f"default: {SEED}")
    parser.add_argument("--case", type=int, help="run this one case of --only again")
    parser.add_argument("--only", choices=[*SHARES, "control"], help="one target alone")
    parser.add_argument(
        "--patience", type=float, default=30.0, help="seconds after which a case hangs"
    )
    arguments = parser.parse_args()
    if arguments.case is not None:
        if not arguments.only:
            parser.error("--case belongs to a target: --only TARGET")
        target = Target(arguments.only, patience_s=arguments.patience)
        run_stretch(target, arguments.seed, arguments.case, arguments.case + 1)
        return _summary([target])
    if not (arguments.cases or arguments.seconds):
        parser.error("give --cases or --seconds")
    names = [arguments.only] if arguments.only else list(SHARES)
    sys.stdout.write(f"seed {arguments.seed}\n")
    targets = [Target(name, patience_s=arguments.patience) for name in names]
    if arguments.cases:
        _by_count(targets, arguments.seed, arguments.cases)
    else:
        _by_time(targets, arguments.seed, arguments.seconds)
    return _summary(targets)


def _by_count(targets: list[Target], seed: int, cases: int) -> None:
    whole = sum(SHARES.get(target.name, 1) for target in targets)
    for target in targets:
        wanted = -(-cases * SHARES.get(target.name, 1) // whole)
        for first in range(0, wanted, _STRETCH):
            run_stretch(target, seed, first, min(first + _STRETCH, wanted))
        _line(target)


def _by_time(targets: list[Target], seed: int, seconds: float) -> None:
    """A round after the other, of a few cases each, until the time is over."""
    ends = time.monotonic() + seconds
    step, first = 20, dict.fromkeys((target.name for target in targets), 0)
    while time.monotonic() < ends:
        for target in targets:
            if time.monotonic() >= ends:
                return
            count = step * SHARES[target.name]
            run_stretch(target, seed, first[target.name], first[target.name] + count)
            first[target.name] += count
        step = min(step * 4, 2_000)


def _line(target: Target) -> None:
    rate = target.cases / target.seconds * 3600 if target.seconds else 0
    sys.stdout.write(
        f"{target.name:16} {target.cases:>8} cases {target.seconds:7.1f} s "
        f"{rate:>12,.0f}/h {len(target.findings):>3} findings\n"
    )
    sys.stdout.flush()


def _summary(targets: list[Target]) -> int:
    whole = Target("all")
    for target in targets:
        whole.cases += target.cases
        whole.seconds += target.seconds
        whole.findings += target.findings
    _line(whole)
    return 1 if whole.findings else 0


if __name__ == "__main__":
    sys.exit(main())
