"""Power cuts: what was acknowledged before one is on the medium after it, and the chain whole."""

import random
from pathlib import Path

from crashes import Writer, lost, recorded
from disks import LoopDisk, loop_disk

CUTS = 6
CONTROL_CUTS = 6


def cut(disk: LoopDisk, first: int, count: int, waiting: int, variant: str) -> dict[int, int]:
    """Write, cut the power after so many acknowledgements, and return those read before the cut."""
    with Writer(disk.mount / "ledger", first=first, variant=variant, waiting=waiting) as writer:
        assert writer.read(count), "it ended by itself"
        acknowledged = dict(writer.acknowledged)
        disk.power_off()
    disk.unmount()
    disk.power_on()
    return acknowledged


def test_a_power_cut_costs_no_acknowledged_record_and_no_link_of_the_chain(tmp_path: Path) -> None:
    chance = random.Random(42)
    acknowledged: dict[int, int] = {}
    found: dict[int, int] = {}
    with loop_disk(tmp_path) as disk:
        for number in range(CUTS):
            acknowledged |= cut(
                disk,
                max(found, default=0) + 1,
                chance.randint(1, 300),
                chance.choice((1, 8, 64)),
                "sound",
            )
            found = recorded(disk.mount / "ledger")
            assert not lost(acknowledged, found), f"cut {number}"
        assert len(found) >= len(acknowledged) > 0


def test_the_cuts_find_a_ledger_that_does_not_sync_each_commit(tmp_path: Path) -> None:
    with loop_disk(tmp_path) as disk:
        for number in range(CONTROL_CUTS):
            promised = cut(disk, 1_000 * number + 1, 100, 8, "unsynced")
            if lost(promised, recorded(disk.mount / "ledger")):
                return
    raise AssertionError("the cuts lost nothing: they prove nothing")
