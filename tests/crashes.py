"""Writers of a ledger that are killed, and what is found afterwards.

What counts as acknowledged is what was read from the writer before it was struck.
"""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from edge.errors import StorageError
from edge.ledger import reading
from edge.ledger.proving import audited

SCRIPT: Final = Path(__file__).with_name("ledger_writer.py")
DEADLINE_S: Final = 60.0
_DIES: Final = """
import os, signal, sys
from pathlib import Path
from edge import durable
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
durable.replace(Path(sys.argv[1]), b"new")
"""


def killed_aside(target: Path) -> Path:
    """Have a process killed while it replaces a file; return what it left beside it."""
    before = set(target.parent.iterdir())
    command = [sys.executable, "-c", _DIES, str(target)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=DEADLINE_S)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = set(target.parent.iterdir()) - before
    return left


class Writer:
    """A writer process; `with` ends it whatever happens.

    Args:
        folder: Its ledger.
        first: Number of its first frame.
        variant: See `ledger_writer`.
        waiting: Records that may wait for a commit: 1 makes each its own.
        inject: What strace does to its system calls, e.g. `fdatasync:signal=KILL:when=3`.

    Attributes:
        acknowledged: Place of each frame whose acknowledgement was read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        first: int = 1,
        variant: str = "sound",
        waiting: int = 64,
        inject: tuple[str, ...] = (),
    ) -> None:
        self.acknowledged: dict[int, int] = {}
        command = [sys.executable, str(SCRIPT), str(folder), str(first), variant, str(waiting)]
        if inject:
            calls = ",".join(rule.split(":")[0] for rule in inject)
            rules = [word for rule in inject for word in ("-e", f"inject={rule}")]
            trace = ["strace", "-f", "-qq", "-o", "/dev/null"]
            command = [*trace, "-e", f"trace={calls}", *rules, *command]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._rest = b""

    def __enter__(self) -> "Writer":
        """It writes already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, and all that traces it."""
        self.kill()
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def read(self, count: int = 0, *, timeout_s: float = DEADLINE_S) -> bool:
        """Read acknowledgements until there are so many; False where it ended or fell silent."""
        assert self._process.stdout is not None
        end = time.monotonic() + timeout_s
        while len(self.acknowledged) < count or count == 0:
            if not self._selector.select(max(0.0, end - time.monotonic())):
                return False
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                return False
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                number, place = line.split()
                self.acknowledged[int(number)] = int(place)
        return True

    def read_what_is_there(self) -> None:
        """Read what has been acknowledged up to now, without waiting."""
        self.read(timeout_s=0.0)

    def kill(self) -> None:
        """kill -9, the tracer with it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ended(self, timeout_s: float = DEADLINE_S) -> int:
        """Read to its end; return its exit status."""
        self.read(timeout_s=timeout_s)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail("the writer has not ended")

    def errors(self) -> str:
        """What it said of its storage; after its end."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode(errors="replace")


def recorded(folder: Path, *, begun: bool = True) -> dict[int, int]:
    """Verify a ledger, and return the place of each frame in it.

    Args:
        folder: Of the ledger.
        begun: Whether one must be there; else the writer may have died before it had made one.
    """
    path = reading.find(folder)
    try:
        if path is None:
            raise StorageError("the ledger is gone")
        with reading.opened(path) as ledger:
            report, _ = audited(ledger)
            assert report.finding is None, report.finding
            return {int(row.frame_id.removeprefix("frame-")): row.seq for row in ledger.rows()}
    except StorageError:
        if begun:
            raise
        return {}


def lost(acknowledged: dict[int, int], found: dict[int, int]) -> dict[int, int]:
    """Acknowledged frames that are not where they were said to be."""
    return {number: at for number, at in acknowledged.items() if found.get(number) != at}


def require_strace() -> None:
    """Skip where strace may not trace; fail in CI, which installs it."""
    reason = "strace is not installed (Debian: apt-get install strace)"
    if shutil.which("strace"):
        tried = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "true"],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode == 0:
            return
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()}")
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
