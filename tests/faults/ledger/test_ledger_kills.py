"""kill -9 while records commit: what was acknowledged is there, and the chain is whole.

A kill leaves the page cache, so this proves the order of commit and acknowledgement and SQLite's
recovery, not `synchronous=FULL`: with OFF it would pass as well. That takes a power cut
(`test_ledger_power_cuts`). The negative control here acknowledges before the commit.
"""

import random
import signal
from pathlib import Path

import pytest
from crashes import Writer, lost, recorded, require_strace
from ledgers import Line

from edge.ledger.ledger import Ledger

CYCLES = 12
CALLS = ("pwrite64", "fdatasync", "ftruncate", "fsync", "unlink", "pread64", "write")
"""The steps of a commit and its acknowledgement, of opening, of a checkpoint."""


def test_kill_9_costs_no_acknowledged_record_and_no_link_of_the_chain(tmp_path: Path) -> None:
    chance = random.Random(20_261_122)
    acknowledged: dict[int, int] = {}
    found: dict[int, int] = {}
    for cycle in range(CYCLES):
        first, waiting = max(found, default=0) + 1, chance.choice((1, 8, 64))
        with Writer(tmp_path, first=first, waiting=waiting) as writer:
            assert writer.read(chance.randint(1, 400)), "it ended by itself"
            writer.kill()
            writer.read()
            acknowledged |= writer.acknowledged
        found = recorded(tmp_path)
        assert not lost(acknowledged, found), f"cycle {cycle}"
    ledger = Ledger(tmp_path, "box1", Line().deliver)
    assert ledger.committed == len(found)
    ledger.close()
    assert recorded(tmp_path) == found


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_any_step_of_a_commit_costs_nothing_that_was_acknowledged(
    tmp_path: Path, call: str
) -> None:
    require_strace()
    chance = random.Random(call)
    acknowledged: dict[int, int] = {}
    found: dict[int, int] = {}
    for nth in (1, 2, chance.randint(3, 30), chance.randint(31, 200)):
        inject = (f"{call}:signal=KILL:when={nth}",)
        first = max(found, default=0) + 1
        with Writer(tmp_path, first=first, waiting=4, inject=inject) as writer:
            # A call that is made seldom may not come so often: then it is killed from outside.
            writer.read(600, timeout_s=20)
            writer.kill()
            writer.read()
            acknowledged |= writer.acknowledged
        found = recorded(tmp_path, begun=bool(acknowledged))
        assert not lost(acknowledged, found), f"killed at {call} {nth}"


def test_the_kills_at_a_step_do_strike(tmp_path: Path) -> None:
    """The control of the test above: the process dies by the signal, at the call that was named."""
    require_strace()
    with Writer(tmp_path, waiting=1, inject=("fdatasync:signal=KILL:when=10",)) as writer:
        assert writer.ended() == -signal.SIGKILL
        assert len(writer.acknowledged) < 10


def test_the_kills_find_a_ledger_that_acknowledges_before_its_commit(tmp_path: Path) -> None:
    for cycle in range(10):
        folder = tmp_path / str(cycle)
        with Writer(folder, variant="early", waiting=512) as writer:
            writer.read(300)
            writer.kill()
            writer.read()
            promised = set(writer.acknowledged)
        if promised - set(recorded(folder)):
            return
    raise AssertionError("ten kills lost nothing: they prove nothing")
