"""`edge ledger replay`: judges recorded frames again, and says what is not as it was."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from edge.ledger import kept, reading
from edge.ledger.reading import Reading
from edge.replay.score import Rate
from edge.rerun.evidence import gather
from edge.rerun.judge import DIFFERS, IDENTICAL, MISSING, UNJUDGED, Outcome, Rejudge
from edge.rerun.planning import Changes, Deployments
from edge.rerun.selection import Selection, Truths
from edge.rerun.tally import Tally, in_short

_USAGE: Final = 2
_SHOWN: Final = 20
"""Records told one by one; --json has them all."""
_MANY: Final = 20
"""From so many on there is a progress bar."""


def run(arguments: argparse.Namespace) -> int:
    """Replay; 0 where all is identical, 1 where something differs, 2 where there is no ledger."""
    if arguments.until is not None and arguments.since is None:
        print("edge: --until needs --since", file=sys.stderr)
        return _USAGE
    path = reading.find(arguments.folder)
    if path is None:
        print(f"edge: {arguments.folder}: no ledger here", file=sys.stderr)
        return _USAGE
    selection = _selection(arguments)
    state = path.parent.parent if path.parent.name == reading.FOLDER else path.parent
    deployments = Deployments(arguments.deployment, state)
    changes = Changes(arguments.changes)
    tally, told = Tally(), list[Outcome]()
    with (
        reading.opened(path) as ledger,
        Rejudge(deployments, changes, arguments.provider) as rejudge,
    ):
        for outcome in _outcomes(ledger, path.parent / kept.FOLDER, selection, rejudge):
            tally.add(outcome)
            named = bool(arguments.seq or arguments.part)
            news = named or _is_news(outcome, arguments.changes)
            if arguments.json or (news and len(told) < _SHOWN):
                told.append(outcome)
    changes.hold_to_places()
    if arguments.json:
        print(msgspec.json.encode({"records": told, "sum": tally.to_json()}).decode())
    elif not tally.total:
        print("no such record of a verdict", file=sys.stderr)
    else:
        _print(tally, told, arguments.changes)
    return 0 if tally.clean else 1


def _selection(arguments: argparse.Namespace) -> Selection:
    between = None
    if arguments.since is not None:
        until = time.time_ns() if arguments.until is None else arguments.until
        between = (arguments.since, until)
    return Selection(
        seq=arguments.seq,
        part=arguments.part,
        last=arguments.last,
        between_ns=between,
        pipeline=arguments.pipeline,
        verdict=arguments.verdict,
    )


def _outcomes(
    ledger: Reading, frames: Path, selection: Selection, rejudge: Rejudge
) -> Iterator[Outcome]:
    truths = Truths(ledger)
    count = sum(1 for _ in selection.rows(ledger))
    progress = track(
        selection.verdicts(ledger),
        "judging again",
        total=count,
        console=Console(stderr=True),
        transient=True,
        disable=count < _MANY or not sys.stderr.isatty(),
    )
    for row, record in progress:
        yield rejudge.judge(gather(frames, row, record), truths.find(record))


def _is_news(outcome: Outcome, changes: list[str]) -> bool:
    """Whether it is worth a line: where a change was wished, only an answer that moved is."""
    if not changes or outcome.here is None:
        return outcome.status != IDENTICAL
    return outcome.here != outcome.recorded


def _print(tally: Tally, told: list[Outcome], changes: list[str]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for change in changes:
        console.print(escape(f"what if {change}"))
    for outcome in told:
        part = f"  part {outcome.part_id}" if outcome.part_id else ""
        console.print(
            _shown(f"record {outcome.seq}  {outcome.pipeline}  frame {outcome.frame_id}{part}: ")
            + f"[bold]{outcome.status}[/bold]"
        )
        if outcome.here == outcome.recorded:
            console.print(_shown(f"    {in_short(outcome.here)}"))
        elif outcome.here is not None:
            answers = f"{in_short(outcome.recorded)} recorded, {in_short(outcome.here)} here"
            console.print(_shown(f"    {answers}"))
        for difference in () if changes else outcome.differences:  # what was wished is known
            console.print(_shown(f"    {difference.kind}: {difference}"))
    if len(told) == _SHOWN:
        console.print("… and more: --json tells them all")
    records = "record" if tally.total == 1 else "records"
    console.print(
        f"{tally.total} {records}: {tally.statuses[IDENTICAL]} identical, "
        f"{tally.statuses[DIFFERS]} differ, {tally.statuses[MISSING]} cannot be computed, "
        f"{tally.statuses[UNJUDGED]} were not judged at the time"
    )
    if tally.moved:
        table = Table("recorded", "here", "records")
        for (before, after), count in sorted(tally.moved.items()):
            table.add_row(before.value, after.value, str(count))
        console.print(table)
    elif changes:
        console.print("no verdict moved")
    _print_truth(console, "escape", "bad", tally.escape())
    _print_truth(console, "overkill", "good", tally.overkill())


def _print_truth(console: Console, name: str, kind: str, rates: tuple[Rate, Rate]) -> None:
    before, after = rates
    if before.of:
        console.print(
            f"{name}: {before.count} recorded, {after.count} here, of {before.of} frames of parts "
            f"that people called {kind}"
        )


def _shown(text: str) -> str:
    """What a ledger says, which steers neither rich nor the terminal."""
    return escape(text if text.isprintable() else ascii(text)[1:-1])
