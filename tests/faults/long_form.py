"""The long form of the faults (`make faults`): thousands of kills, hundreds of power cuts.

Results are written as they come, one JSON object a line, and a run that was interrupted goes on
where it stopped. Exit status 0: every promise held and every control found its loss; 1: not.

Kinds of line: `kill` (a ledger's writer, killed from outside or at a system call), `cut` (its
power), `stand` (supervisor, worker, collector and broker of a whole stand), and `control` (a weaker
variant, in which the loss must be found).
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from crashes import Writer, lost, recorded
from disks import loop_disk
from stands import VICTIMS, break_and_check, standing

from edge.config import LogSection
from edge.observability import log

CALLS: Final = ("pwrite64", "fdatasync", "ftruncate", "fsync", "write", "pread64")
IN_A_LEDGER: Final = 50
"""Kills or cuts of one ledger: checking it takes longer the longer it is."""
IN_A_STAND: Final = 20
CONTROL_EVERY: Final = 100
"""Cuts between two controls."""

Result = dict[str, Any]
Tell = Callable[[Result], None]


def main() -> int:
    """Run what is left of the plan; summarise all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path(".out/faults.jsonl"))
    parser.add_argument("--kills", type=int, default=1_400, help="of the ledger's writer")
    parser.add_argument("--stand-kills", type=int, default=600, help="of the stand's processes")
    parser.add_argument("--cuts", type=int, default=500, help="power cuts")
    plan = parser.parse_args()
    log.configure(LogSection(level="error"), tty=False)
    plan.results.parent.mkdir(parents=True, exist_ok=True)
    done = totals(plan.results)
    rounds = (
        (plan.cuts - done["cut"], cuts),
        (plan.kills - done["kill"], kills),
        (plan.stand_kills - done["stand"], stand_kills),
    )
    with plan.results.open("a") as results:

        def tell(result: Result) -> None:
            results.write(json.dumps({"at": round(time.time()), **result}) + "\n")
            results.flush()
            if not result["clean"]:
                print(json.dumps(result), file=sys.stderr)  # noqa: T201 - this is a program

        for left, run in rounds:
            run(left, tell)
    found = totals(plan.results)
    print(json.dumps(found))  # noqa: T201 - this is a program
    return 1 if found["unclean"] else 0


def totals(results: Path) -> Counter[str]:
    """Add up all results."""
    found: Counter[str] = Counter()
    if not results.exists():
        return found
    for line in results.read_text().splitlines():
        result = json.loads(line)
        found[result["kind"]] += result.get("count", 1)
        found["unclean"] += not result["clean"]
        for key in ("acknowledged", "records", "lost", "undelivered", "differing", "unrecorded"):
            if result["kind"] != "control":
                found[key] += result.get(key, 0)
        for victim, count in result.get("victims", {}).items():
            found[f"kills of {victim}"] += count
    return found


def kills(count: int, tell: Tell) -> None:
    """Kill writers: two of three from outside, one of three at a step."""
    chance = random.Random()
    while count > 0:
        with tempfile.TemporaryDirectory(prefix="edge-kills-") as folder:
            acknowledged: dict[int, int] = {}
            found: dict[int, int] = {}
            for _ in range(min(count, IN_A_LEDGER)):
                step = f"{chance.choice(CALLS)}:signal=KILL:when={chance.randint(1, 300)}"
                inject = (step,) if chance.random() < 1 / 3 else ()
                with Writer(
                    Path(folder),
                    first=max(found, default=0) + 1,
                    waiting=chance.choice((1, 8, 64)),
                    inject=inject,
                ) as writer:
                    writer.read(chance.randint(1, 200))
                    writer.kill()
                    writer.read()
                    acknowledged |= writer.acknowledged
                tell(verdict("kill", Path(folder), acknowledged, found, "".join(inject)))
                found = recorded(Path(folder), begun=False)
                count -= 1


def cuts(count: int, tell: Tell) -> None:
    """Cut the power of writers; now and then of one that does not sync, as the control."""
    chance = random.Random()
    while count > 0:
        with tempfile.TemporaryDirectory(prefix="edge-cuts-") as folder:
            tell(control(Path(folder)))
        for _ in range(CONTROL_EVERY // IN_A_LEDGER):
            with tempfile.TemporaryDirectory(prefix="edge-cuts-") as folder:
                some = min(count, IN_A_LEDGER)
                cuts_of_one_disk(Path(folder), some, chance, tell)
                count -= some


def cuts_of_one_disk(folder: Path, count: int, chance: random.Random, tell: Tell) -> None:
    """Cut one disk's power again and again."""
    acknowledged: dict[int, int] = {}
    found: dict[int, int] = {}
    with loop_disk(folder) as disk:
        ledger = disk.mount / "ledger"
        for _ in range(count):
            with Writer(
                ledger, first=max(found, default=0) + 1, waiting=chance.choice((1, 8, 64))
            ) as writer:
                writer.read(chance.randint(1, 200))
                acknowledged |= writer.acknowledged
                disk.power_off()
            disk.unmount()
            disk.power_on()
            tell(verdict("cut", ledger, acknowledged, found, ""))
            found = recorded(ledger, begun=False)


def control(folder: Path) -> Result:
    """Cut the power of a writer that does not sync, until something is missing."""
    with loop_disk(folder) as disk:
        ledger = disk.mount / "ledger"
        for number in range(10):
            with Writer(ledger, first=1_000 * number + 1, variant="unsynced", waiting=8) as writer:
                writer.read(100)
                promised = dict(writer.acknowledged)
                disk.power_off()
            disk.unmount()
            disk.power_on()
            if missing := lost(promised, recorded(ledger, begun=False)):
                return {"kind": "control", "clean": True, "lost": len(missing)}
    return {"kind": "control", "clean": False, "lost": 0}


def verdict(
    kind: str, ledger: Path, acknowledged: dict[int, int], before: dict[int, int], how: str
) -> Result:
    """Hold a ledger to what it acknowledged."""
    broken = ""
    found: dict[int, int] = {}
    try:
        found = recorded(ledger, begun=bool(acknowledged))
    except Exception as wrong:  # noqa: BLE001 - whatever it is, it is the result
        broken = repr(wrong)
    missing = lost(acknowledged, found) | {n: at for n, at in before.items() if n not in found}
    return {
        "kind": kind,
        "clean": not missing and not broken,
        "acknowledged": len(set(acknowledged) - set(before)),
        "records": len(set(found) - set(before)),
        "lost": len(missing),
        "broken": broken,
        "how": how,
    }


def stand_kills(count: int, tell: Tell) -> None:
    """Kill the processes of whole stands."""
    chance = random.Random()
    while count > 0:
        with tempfile.TemporaryDirectory(prefix="edge-stand-") as folder:
            count -= asyncio.run(_one_stand(Path(folder), min(count, IN_A_STAND), chance, tell))


async def _one_stand(folder: Path, count: int, chance: random.Random, tell: Tell) -> int:
    """Break one stand; return how many processes were killed."""
    done = known = 0
    async with standing(folder) as stand:
        while done < count:
            # The broker last: what it loses itself is nobody else's fault, and is not counted.
            weights = (3, 3, 3, 0) if count - done > IN_A_STAND // 3 else (1, 1, 1, 3)
            victims = chance.choices(VICTIMS, weights, k=min(count - done, 5))
            before = dict(stand.kills)
            try:
                found = await break_and_check(stand, chance, victims)
                told = {**_figures(found), "clean": found.clean, "records": found.records - known}
                known = found.records
            # What a deadline of the tests raises is no Exception.
            except (Exception, pytest.fail.Exception) as wrong:  # noqa: BLE001 - all is a result
                told = {"clean": False, "broken": repr(wrong)[:500]}
            struck = {name: stand.kills[name] - before[name] for name in VICTIMS}
            tell({"kind": "stand", "count": len(victims), "victims": struck, **told})
            done += len(victims)
            if not told["clean"]:
                break
    return done


def _figures(found: Any) -> Result:
    return {
        "lost": found.lost,
        "undelivered": found.undelivered,
        "differing": found.differing,
        "unrecorded": found.unrecorded,
        "broken": found.broken,
    }


if __name__ == "__main__":
    sys.exit(main())
