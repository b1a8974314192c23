"""`edge drift`: what this device has learnt as usual, and how it learns it anew.

`show` reads the file on disk, whether the daemon runs or not; how far pictures and verdicts are
from it now, `edge status` says. `learn` asks the daemon by its control socket: after a lamp was
exchanged or a camera set anew, the old pictures are no measure any more.

Exit status 0 done, 1 refused or nothing to tell, 2 usage, 78 configuration.
"""

import argparse
import datetime as dt
import sys
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console
from rich.table import Table

from edge import config
from edge.cli.arguments import add_config
from edge.cli.plain import plain
from edge.daemon.control import LearnAnew, ask
from edge.daemon.drifting import FILE, read
from edge.drift.kept import Kept
from edge.drift.measures import SIGHT

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_USAGE: Final = 2
_MAX_BY: Final = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands: Commands = parser.add_subparsers(dest="drift", metavar="COMMAND", required=True)
    _command(commands, "show", "show what was learnt as usual, and what drifts from it")
    learn = _command(commands, "learn", "forget what was usual, and learn it from now on")
    learn.add_argument("--pipeline", metavar="NAME", default="", help="of one alone")
    learn.add_argument("--by", metavar="ROLE", required=True, help="who says so")
    learn.add_argument("--reason", metavar="TEXT", required=True, help="why")


def _command(commands: "Commands", name: str, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary}.".capitalize())
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    settings = config.load(arguments.config, tuple(arguments.overrides))
    storage = settings.storage.path
    if arguments.drift == "show":
        book = read(storage)
        if arguments.json:
            print(msgspec.json.encode(book).decode())
        elif not book:
            print(f"edge: nothing was learnt yet: there is no {storage / FILE}", file=sys.stderr)
        else:
            for name, kept in book.items():
                Console(soft_wrap=True).print(_table(name, kept), highlight=False)
        return 0 if book else 1
    request = LearnAnew(arguments.by, arguments.reason, arguments.pipeline)
    if problem := request.problem():
        print(f"edge: {problem}", file=sys.stderr)
        return _USAGE
    said = ask(storage, request)
    if arguments.json:
        print(msgspec.json.encode({"act": "learn", "refusal": said.refusal}).decode())
    elif said.refusal:
        print(f"edge: refused: {said.refusal}", file=sys.stderr)
    else:
        print("what is usual is learnt from now on: edge status")
    return 1 if said.refusal else 0


def _table(name: str, kept: Kept) -> Table:
    title = f"{plain(name)}: {plain(kept.camera)}, learnt since {_time(kept.since_ns)} UTC"
    if kept.by:
        title += f", by {plain(kept.by, _MAX_BY)}"
    table = Table("recipe", "measure", "usual", "spread", title=title, title_justify="left")
    for recipe, reference in kept.references.items():
        called = plain(recipe or "-")
        if reference.typical is None or reference.spread is None:
            table.add_row(called, f"learning, frames: {len(reference.samples)}")
            continue
        numbers = zip(SIGHT, reference.typical, reference.spread, strict=True)
        for measure, usual, spread in numbers:
            table.add_row(called, measure, f"{usual:.5g}", f"{spread:.2g}")
            called = ""
        table.add_row(called, "verdicts", f"{reference.verdicts.frames} frames")
    if kept.drifting:
        drifting = ", ".join(f"{plain(n)} since {_time(at)}" for n, at in kept.drifting.items())
        table.caption = f"drifts: {drifting}"
    return table


def _time(at_ns: int) -> str:
    return dt.datetime.fromtimestamp(at_ns / 1e9, dt.UTC).strftime("%Y-%m-%d %H:%M")
