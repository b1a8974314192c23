"""`edge bench` as a person runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edge.ledger.schema import DATABASE

DEADLINE_S = 60.0
_ENDLESS = 1 << 40


def test_one_interrupt_ends_a_drain_that_still_writes_what_is_owed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edge.cli.main", "bench"),
            *("--only=drain", f"--records={_ENDLESS}"),
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + DEADLINE_S
        while not list(tmp_path.glob(f"edge-bench-*/outage/state/ledger/{DATABASE}")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, said) == (130, b"")
    finally:
        process.kill()
        process.wait()
    assert not list(tmp_path.iterdir())
