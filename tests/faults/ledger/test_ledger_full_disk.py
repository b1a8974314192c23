"""A disk that is really full: a small tmpfs, filled by somebody else."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from crashes import Writer, lost, recorded
from disks import fill, small_disk
from ledgers import Line, entry, frame

from edge.errors import MediumError, StorageError
from edge.ledger import reading
from edge.ledger.ledger import Ledger
from edge.ledger.reserve import Reserve
from edge.ledger.verify import Report, verify

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with small_disk(tmp_path / "disk", 24) as mounted:
        yield mounted


def _report(folder: Path) -> Report:
    path = reading.find(folder)
    assert path is not None
    with reading.opened(path) as ledger:
        return verify(ledger.origin, ledger.marks, ledger.rows())


def _append_until_stuck(ledger: Ledger, line: Line) -> int:
    """Append until the disk takes no more and the queue is full; return how many were accepted."""
    accepted = 0
    while True:
        try:
            ledger.append(entry(accepted), frame(accepted), line.places.append)
            accepted += 1
        except StorageError:
            committed = ledger.committed
            last_failures = ledger.counts.failures + 3  # the first costs the reserve
            line.until(partial(_has_moved, ledger, committed, last_failures))
            if ledger.committed == committed:
                return accepted


def _has_moved(ledger: Ledger, committed: int, failures: int) -> bool:
    return ledger.committed > committed or ledger.counts.failures >= failures


@pytest.mark.parametrize("reserve_bytes", [4 * MIB, 0])
def test_a_full_disk_holds_records_back_and_loses_none(disk: Path, reserve_bytes: int) -> None:
    folder, line = disk / "ledger", Line()
    ledger = Ledger(
        folder,
        "box1",
        line.deliver,
        on_trouble=line.troubles.append,
        reserve_bytes=reserve_bytes,
    )
    if reserve_bytes:
        line.until((folder / "reserve").exists)
    ballast = fill(disk)
    assert os.statvfs(disk).f_bavail == 0
    accepted = _append_until_stuck(ledger, line)
    assert "the disk is full" in ledger.trouble
    assert not (folder / "reserve").exists()
    assert ledger.waiting > 0
    assert len(line.places) <= accepted - ledger.waiting
    with_reserve = ledger.committed
    # The reserve is what the full disk leaves to go on with.
    assert with_reserve > 1_000 if reserve_bytes else with_reserve < 1_000

    ballast.unlink()
    line.until(lambda: len(line.places) == accepted)
    assert line.places == list(range(1, accepted + 1))
    line.until(lambda: ledger.trouble == "" and bool(line.troubles) and line.troubles[-1] == "")
    assert bool(reserve_bytes) == (folder / "reserve").exists()
    report = _report(folder)
    assert (report.records, report.finding) == (accepted, None)
    assert ledger.close() == 0


def test_a_ledger_that_died_on_a_full_disk_opens_again_when_there_is_room(disk: Path) -> None:
    folder, line = disk / "ledger", Line()
    ledger = Ledger(folder, "box1", line.deliver, on_trouble=line.troubles.append)
    ballast = fill(disk)
    _append_until_stuck(ledger, line)
    never_committed = ledger.close(grace_s=0)
    assert never_committed > 0
    committed = ledger.committed
    ballast.unlink()
    again = Ledger(folder, "box1", line.deliver)
    assert again.committed == committed
    assert again.close() == 0
    report = _report(folder)
    assert (report.records, report.finding) == (committed, None)


def test_a_ledger_cannot_begin_on_a_full_disk_and_says_so(disk: Path) -> None:
    fill(disk)
    with pytest.raises(MediumError, match="the disk is full"):  # of the kind that may pass
        Ledger(disk / "ledger", "box1", Line().deliver)


def test_a_ledger_that_was_killed_opens_on_a_full_disk_at_the_cost_of_its_reserve(
    disk: Path,
) -> None:
    folder = disk / "ledger"
    with Writer(folder) as writer:
        assert writer.read(300)
        writer.kill()
        writer.read()
    log = folder / "ledger.db-wal"
    assert log.stat().st_size > 0  # to be carried into the database, which grows by it
    (folder / "reserve").unlink(missing_ok=True)
    fill(disk)
    with pytest.raises(MediumError, match="the disk is full"):  # control: nothing set aside
        Ledger(folder, "box1", Line().deliver, reserve_bytes=0)

    (disk / "ballast").unlink()
    assert Reserve(folder).lay()
    fill(disk)
    ledger = Ledger(folder, "box1", Line().deliver)
    assert not (folder / "reserve").exists()
    assert ledger.close() == 0
    assert lost(writer.acknowledged, recorded(folder, begun=True)) == {}
