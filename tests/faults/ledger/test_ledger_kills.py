"""kill -9 while records commit: what was acknowledged is there, and the chain is whole.

A kill leaves the page cache, so this proves the order of commit and acknowledgement and SQLite's
recovery, not `synchronous=FULL`: with OFF it would pass as well. That takes a power cut. The
negative control here acknowledges before the commit.
"""

import random
import signal
import subprocess
import sys
from pathlib import Path

from ledgers import Line

from edge.ledger import reading
from edge.ledger.ledger import Ledger
from edge.ledger.verify import verify

CYCLES = 30
TESTS = Path(__file__).parents[2]

# Acknowledges on standard output: a frame's number, and the place of its record (0: too early).
CHILD = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ledgers import entry, frame
from edge.ledger.ledger import Ledger

ledger = Ledger(Path(sys.argv[2]), "box1", lambda call: call())
number, early, waiting = int(sys.argv[3]), sys.argv[4] == "early", int(sys.argv[5])
while True:
    def acknowledge(place, number=number):
        os.write(1, b"%d %d\\n" % (number, place))
    if early:
        acknowledge(0)
    ledger.append(entry(number), frame(number), (lambda place: None) if early else acknowledge)
    number += 1
    while ledger.waiting >= waiting:
        time.sleep(0.0005)
"""


def _run_and_kill(
    folder: Path, first: int, acknowledgements: int, *, early: bool = False, waiting: int = 64
) -> dict[int, int]:
    """Append from frame `first` on until so many were acknowledged, kill, and return them all."""
    arguments = [str(TESTS), str(folder), str(first), "early" if early else "late", str(waiting)]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledgements)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL, "it ended by itself"
    pairs = [line.split() for line in lines if line.endswith(b"\n")]
    return {int(number): int(place) for number, place in pairs}


def _recorded(folder: Path) -> dict[int, int]:
    """Verify the ledger, and return the place of each frame in it."""
    path = reading.find(folder)
    assert path is not None
    with reading.opened(path) as ledger:
        report = verify(ledger.origin, ledger.marks, ledger.rows())
        assert report.finding is None, report.finding
        return {int(row.frame_id.removeprefix("frame-")): row.seq for row in ledger.rows()}


def test_kill_9_costs_no_acknowledged_record_and_no_link_of_the_chain(tmp_path: Path) -> None:
    chance = random.Random(20_261_122)
    acknowledged: dict[int, int] = {}
    recorded: dict[int, int] = {}
    for cycle in range(CYCLES):
        acknowledged |= _run_and_kill(
            tmp_path,
            first=max(recorded, default=0) + 1,
            acknowledgements=chance.randint(1, 400),
            waiting=chance.choice((1, 8, 64)),
        )
        recorded = _recorded(tmp_path)
        lost = {number: at for number, at in acknowledged.items() if recorded.get(number) != at}
        assert not lost, f"cycle {cycle}"
    line = Line()
    ledger = Ledger(tmp_path, "box1", line.deliver)
    assert ledger.committed == len(recorded)
    ledger.close()
    assert _recorded(tmp_path) == recorded


def test_the_kills_find_a_ledger_that_acknowledges_before_its_commit(tmp_path: Path) -> None:
    for cycle in range(10):
        folder = tmp_path / str(cycle)
        promised = _run_and_kill(folder, first=1, acknowledgements=300, early=True, waiting=512)
        if set(promised) - set(_recorded(folder)):
            return
    raise AssertionError("ten kills lost nothing: they prove nothing")
