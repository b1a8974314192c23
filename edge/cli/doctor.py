"""`edge doctor`: examines this box, and says for each finding what to do."""

import argparse
import io
import sys
from collections import Counter
from typing import Final

import msgspec
from rich.console import Console

from edge.cli.arguments import add_config, add_deployment, seconds
from edge.cli.plain import plain
from edge.config import LogSection
from edge.doctor.check import Check, Outcome
from edge.doctor.examination import examine
from edge.observability import log

_MARKS: Final = {
    Outcome.OK: "[green]ok      [/green]",
    Outcome.FINDING: "[red]finding [/red]",
    Outcome.UNKNOWN: "[yellow]unseen  [/yellow]",
}
_NAME_WIDTH: Final = 22
_LONGEST: Final = 2_000
"""Of what a check says; a broker's words are in some."""
_MAX_WAIT_S: Final = 3_600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_deployment(parser)
    parser.add_argument(
        "--wait",
        type=seconds(_MAX_WAIT_S),
        metavar="SECONDS",
        help="wait so long for a frame of each camera, and miss it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Examine; status 1 with a finding. What could not be looked at is no finding."""
    # What the session would log is said by the checks, with the remedy.
    log.configure(LogSection(level="error"), tty=sys.stderr.isatty(), stream=io.StringIO())
    console = Console(soft_wrap=True)
    checks = []
    for check in examine(
        arguments.config, tuple(arguments.overrides), arguments.deployment, arguments.wait
    ):
        checks.append(check)
        if not arguments.json:
            _show(console, check)
    counts = Counter(check.outcome for check in checks)
    if arguments.json:
        print(msgspec.json.encode({"checks": checks, "counts": counts}).decode())
    else:
        console.print(
            f"{counts[Outcome.OK]} ok, {counts[Outcome.FINDING]} "
            f"{'finding' if counts[Outcome.FINDING] == 1 else 'findings'}, "
            f"{counts[Outcome.UNKNOWN]} could not be checked"
        )
    return int(counts[Outcome.FINDING] > 0)


def _show(console: Console, check: Check) -> None:
    console.print(
        f"{_MARKS[check.outcome]}{plain(check.name):<{_NAME_WIDTH}} {plain(check.said, _LONGEST)}",
        highlight=False,
    )
    if check.remedy:
        remedy = plain(check.remedy, _LONGEST)
        console.print(f"{'':<8}{'':<{_NAME_WIDTH}} → {remedy}", highlight=False)
