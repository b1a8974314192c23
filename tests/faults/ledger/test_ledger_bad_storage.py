"""Storage that errs, dawdles, or turns read-only: nothing acknowledged is lost, and it is said."""

import time
from pathlib import Path

import pytest
from crashes import Writer, lost, recorded, require_strace
from disks import loop_disk
from ledgers import entry, frame

from edge.ledger.record import HEAD_BYTES
from edge.ledger.store import Prepared, Retention, Store


@pytest.mark.parametrize(
    ("inject", "said"),
    [
        ("fdatasync:error=EIO:when=20..23", "the storage reports an error"),
        ("pwrite64:error=EIO:when=300..302", "the storage reports an error"),
        ("pwrite64:error=ENOSPC:when=300..302", "full to its quota"),
    ],
)
def test_errors_of_the_medium_are_told_and_survived(tmp_path: Path, inject: str, said: str) -> None:
    require_strace()
    with Writer(tmp_path, waiting=4, inject=(inject,)) as writer:
        assert writer.read(1_000), "it goes on when the medium does"
        writer.kill()
        writer.read()
        assert said in writer.errors()
        acknowledged = dict(writer.acknowledged)
    assert not lost(acknowledged, recorded(tmp_path))


def test_a_medium_that_fails_for_good_has_nothing_acknowledged(tmp_path: Path) -> None:
    """The negative control: the errors do strike, and hold every acknowledgement back."""
    require_strace()
    with Writer(tmp_path, waiting=4, inject=("fdatasync:error=EIO:when=20+",)) as writer:
        assert writer.read(1), "it was sound at first"
        writer.read(1_000, timeout_s=3.0)
        writer.kill()
        writer.read()
        assert 0 < len(writer.acknowledged) < 120
        acknowledged = dict(writer.acknowledged)
    assert not lost(acknowledged, recorded(tmp_path))


def test_a_slow_medium_makes_acknowledgements_slow_and_nothing_else(tmp_path: Path) -> None:
    require_strace()
    began = time.monotonic()
    with Writer(tmp_path, waiting=64, inject=("fdatasync:delay_enter=100000",)) as writer:
        assert writer.read(300)
        writer.kill()
        writer.read()
        acknowledged = dict(writer.acknowledged)
    # At 64 records a commit, each 0.1 s: the delay strikes, and group commit bears it.
    assert time.monotonic() - began > 0.4
    assert not lost(acknowledged, recorded(tmp_path))


def test_a_disk_that_turns_read_only_has_nothing_acknowledged_until_it_is_repaired(
    tmp_path: Path,
) -> None:
    with loop_disk(tmp_path, options="errors=remount-ro") as disk:
        ledger = disk.mount / "ledger"
        with Writer(ledger, waiting=8) as writer:
            assert writer.read(100)
            disk.fail()
            for _ in range(20):  # what was committed before is still told, by and by
                before = len(writer.acknowledged)
                writer.read(1_000_000, timeout_s=2.0)
                if len(writer.acknowledged) == before:
                    break
            else:
                raise AssertionError("it acknowledges on a read-only disk")
            writer.kill()
            assert "the storage reports an error" in writer.errors()
            acknowledged = dict(writer.acknowledged)
        disk.repair()
        found = recorded(ledger)
        assert not lost(acknowledged, found)
        with Writer(ledger, first=max(found) + 1) as writer:
            assert writer.read(50), "it goes on after the repair"


def test_a_clock_that_jumps_prunes_nothing_that_is_owed_and_breaks_no_chain(
    tmp_path: Path,
) -> None:
    century_ns = 100 * 365 * 86_400 * 1_000_000_000
    store = Store(tmp_path, "box1", Retention(max_records=1_000, max_age_s=86_400))
    now_ns = time.time_ns()
    for number, at_ns in enumerate(
        (now_ns, 1, now_ns + century_ns, now_ns - century_ns // 2, now_ns)
    ):
        when = entry(number, decided_at_ns=at_ns)
        store.append([Prepared(when, frame(number).ljust(HEAD_BYTES, b"\0")[:HEAD_BYTES])])
    assert store.prune(now_ns + century_ns) == 0, "nothing was receipted"
    assert store.receive(2, store._head_at(2)) == ""
    assert store.prune(1) == 0, "a clock set back keeps all"
    store.prune(now_ns + 2 * century_ns)
    assert store.anchor.seq <= 2
    store.close()
    assert len(recorded(tmp_path)) >= 3
