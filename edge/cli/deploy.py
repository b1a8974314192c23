"""`edge deploy`: what this device runs, how it came to it, and what a person on the box wants.

`status`, `history` and `why` read the journal on disk, whether the daemon runs or not. The others
ask the daemon by its control socket, because it alone writes the journal.

Exit status 0 done, 1 refused or nothing to tell, 2 usage, 78 configuration.
"""

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from rich.console import Console
from rich.table import Table

from edge import config
from edge.cli.arguments import add_command, add_config
from edge.cli.plain import plain
from edge.daemon.control import Deployments, ask
from edge.deployment.installed import FOLDER, read_journal
from edge.deployment.rollout import MAX_DETAIL, Deployed, Event, Journal, Step
from edge.errors import ConfigError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_ENDINGS: Final = (Event.FAILED, Event.HELD, Event.WITHDRAWN)
_METADATA: Final = "metadata"
_WORDS: Final = {
    Event.OFFERED: "fetched",
    Event.BEGAN: "on trial",
    Event.PROVED: "in shadow",
    Event.ADMITTED: "canary",
    Event.AGREED: "active, on probation",
    Event.HELD: "committed",
    Event.FAILED: "failed",
    Event.WITHDRAWN: "withdrawn",
}
_DONE: Final = {
    "look": "the device looks for an update now: edge deploy status",
    "pin": "pinned: no deployment is taken but by hand",
    "unpin": "deployments are taken again",
    "rollback": "on the way to the deployment before, and pinned: edge deploy status",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands: Commands = parser.add_subparsers(dest="deploy", metavar="COMMAND", required=True)
    _command(commands, "status", "show what runs, and what is under way")
    _command(commands, "history", "list what happened to deployments, the newest last")
    _command(commands, "why", "say how the last deployment ended, with the figures")
    _command(commands, "look", "have the daemon look for an update now")
    _command(commands, "pin", "keep to what runs: take no deployment but by hand")
    _command(commands, "unpin", "take deployments again")
    rollback = _command(commands, "rollback", "return to the deployment before, and pin")
    rollback.add_argument("--yes", action="store_true", help="do not ask")
    importing = _command(commands, "import", "look once at a copy of the repository, a USB stick's")
    importing.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of the repository, readable for the daemon"
    )


def _command(commands: "Commands", name: str, summary: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, summary)
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    settings = config.load(arguments.config, tuple(arguments.overrides))
    storage = settings.storage.path
    match arguments.deploy:
        case "status" | "history" | "why" as which:
            return _show(which, read_journal(storage / FOLDER), as_json=arguments.json)
        case "import":
            return _ask(storage, "look", as_json=arguments.json, repository=_address(arguments))
        case "rollback":
            journal = read_journal(storage / FOLDER)
            if not (arguments.yes or journal.is_first or _sure(journal)):
                return 1
            leaves = journal.leaves.digest if journal.leaves else ""
            return _ask(storage, "rollback", as_json=arguments.json, leaves=leaves)
        case act:
            return _ask(storage, act, as_json=arguments.json)


def _address(arguments: argparse.Namespace) -> str:
    """The repository's address, also where the fleet's folder was named."""
    folder: Path = arguments.folder.absolute()
    for each in (folder, folder / "repository"):
        if (each / _METADATA).is_dir():
            return each.as_uri()
    raise ConfigError(
        "FOLDER",
        f"{folder} holds no repository: it has no folder {_METADATA}",
        "copy the whole repository folder of the fleet",
    )


def _ask(
    storage: Path,
    act: Literal["look", "pin", "unpin", "rollback"],
    *,
    as_json: bool,
    repository: str = "",
    leaves: str = "",
) -> int:
    said = ask(storage, Deployments(act, repository, leaves))
    if as_json:
        print(msgspec.json.encode({"act": act, "refusal": said.refusal}).decode())
    elif said.refusal:
        print(f"edge: refused: {said.refusal}", file=sys.stderr)
    else:
        print(_DONE[act])
    return 1 if said.refusal else 0


def _sure(journal: Journal) -> bool:
    if not sys.stdin.isatty():
        print("edge: say --yes: nobody is here to be asked", file=sys.stderr)
        return False
    print(f"leaves  {_short(journal.leaves)}\nruns    {_short(journal.returns_to)}")
    return input("and take no other but by hand? [y/N] ").strip().lower() in ("y", "yes")


def _short(deployed: Deployed | None) -> str:
    return f"{plain(deployed.name)} revision {deployed.revision}" if deployed else "nothing"


def _show(which: str, journal: Journal, *, as_json: bool) -> int:
    ended = next((step for step in reversed(journal.history) if step.event in _ENDINGS), None)
    if as_json:
        shown: Any = {"status": journal, "history": journal.history, "why": ended}[which]
        if which == "status":
            shown = {k: v for k, v in msgspec.to_builtins(journal).items() if k != "history"}
        print(msgspec.json.encode(shown).decode())
    elif which == "history" and not journal.history:
        print("nothing has happened to a deployment yet")
    elif which == "history":
        Console().print(_history(journal))
    elif which == "why":
        Console(soft_wrap=True).print(_why(ended), highlight=False)
    else:
        Console(soft_wrap=True).print(_status(journal), highlight=False)
    return 0


def _status(journal: Journal) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("state", str(journal.state) + (", pinned" if journal.pinned else ""))
    active = _named(journal.active)
    if journal.active is None:
        active += " by updates; a local folder (edge run --deployment) shows in edge status"
    table.add_row("active", active)
    table.add_row("before", _named(journal.previous))
    if journal.candidate is not None:
        table.add_row("candidate", _named(journal.candidate))
    for digest, count in journal.failures.items():
        barred = ", barred" if digest in journal.barred else ""
        table.add_row("failed", f"{digest[:12]}, times: {count}{barred}")
    return table


def _history(journal: Journal) -> Table:
    table = Table("time (UTC)", "deployment", "event", "why", box=None, pad_edge=False)
    for column in table.columns[:3]:
        column.no_wrap = True
    for step in journal.history:
        table.add_row(
            _time(step.at_ns),
            f"{plain(step.deployment.name)} {step.deployment.revision}",
            _WORDS.get(step.event, str(step.event)),
            ": ".join(filter(None, (plain(step.reason), plain(step.detail, MAX_DETAIL)))),
        )
    return table


def _why(ended: Step | None) -> Table:
    table = Table.grid(padding=(0, 2))
    if ended is None:
        table.add_row("no deployment has ended yet")
        return table
    table.add_row("deployment", _named(ended.deployment))
    table.add_row("ended", f"{_WORDS[ended.event]}, {_time(ended.at_ns)} UTC")
    if ended.reason:
        table.add_row("reason", f"[red]{plain(ended.reason)}[/red]")
    table.add_row("detail", plain(ended.detail, MAX_DETAIL))
    for name, value in _figures(ended.evidence):
        table.add_row(f"  {plain(name)}", plain(str(value), MAX_DETAIL))
    return table


def _figures(evidence: dict[str, Any], within: str = "") -> list[tuple[str, Any]]:
    """The figures of nested tables, each by its path."""
    found: list[tuple[str, Any]] = []
    for name, value in evidence.items():
        path = f"{within}{name}"
        found += _figures(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found


def _named(deployed: Deployed | None) -> str:
    if deployed is None:
        return "none"
    signed = "signed" if deployed.signed else "[yellow]UNSIGNED[/yellow]"
    return f"{plain(deployed.name)} revision {deployed.revision} ({deployed.digest[:12]}, {signed})"


def _time(at_ns: int) -> str:
    try:
        return dt.datetime.fromtimestamp(at_ns / 1e9, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at_ns} ns"
