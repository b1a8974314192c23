"""The part of requirements.lock that runs on a device: no test, no compiler, no linter.

    python scripts/runtime_lock.py OUT [--machine aarch64]

The lock stays the one source of versions and hashes; what of it the daemon needs is read from the
metadata of the packages installed here (`make setup`), by the markers of the machine it is for.
Nothing is resolved anew and nothing is fetched.
"""

import argparse
import re
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
DISTRIBUTION: Final = "edge-verdict"
PYTHON: Final = "3.11"
"""Of Debian 12, which the packages are made for."""

_BLOCK: Final = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)


def runtime_lock(lock: str, machine: str) -> str:
    """Return the blocks of a lock, hashes included, that the runtime needs on a machine.

    Args:
        lock: The text of requirements.lock.
        machine: `x86_64` or `aarch64`.

    Raises:
        SystemExit: Something that the runtime needs is not in the lock, or not installed here.
    """
    _, *blocks = _BLOCK.split(lock)
    by_name: defaultdict[str, str] = defaultdict(str)
    for block in blocks:  # several of one name, each with its marker
        by_name[canonicalize_name(re.split(r"[=\s\[]", block, maxsplit=1)[0])] += block
    needed = closure(machine).keys() - {DISTRIBUTION}
    if absent := sorted(needed - by_name.keys()):
        raise SystemExit(f"requirements.lock lacks {', '.join(absent)}: make lock")
    return "".join(by_name[name] for name in sorted(needed))


def closure(machine: str) -> dict[str, set[str]]:
    """What the runtime needs on a machine: each package, with what it needs itself."""
    where = environment(machine)
    needed: defaultdict[str, set[str]] = defaultdict(set)
    looked_at: set[tuple[str, str]] = set()
    waiting = [(DISTRIBUTION, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in looked_at:
            continue
        looked_at.add((name, extra))
        of_this = needed[name]
        for text in _requirements_of(name):
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({**where, "extra": extra}):
                found = canonicalize_name(wanted.name)
                of_this.add(found)
                waiting += [(found, part) for part in ("", *sorted(wanted.extras))]
    return dict(needed)


def environment(machine: str) -> dict[str, str]:
    """What markers are evaluated against, on a machine with Debian 12."""
    return {
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.2",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }


def _requirements_of(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed here: make setup") from None


def main(arguments: list[str]) -> int:
    """Write the runtime's lock."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--machine", default="x86_64", choices=("x86_64", "aarch64"))
    parsed = parser.parse_args(arguments)
    lock = (ROOT / "requirements.lock").read_text()
    parsed.out.write_text(runtime_lock(lock, parsed.machine))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
