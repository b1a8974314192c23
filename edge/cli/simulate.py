"""`edge fleet simulate`: a rollout on many devices, without one.

Exit status 0 where the good release reached every device and the bad one was halted, 1 otherwise.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from edge.cli.arguments import add_command
from edge.cli.publish import add_steps
from edge.config import LogSection
from edge.fleet.simulation.fleet import simulate
from edge.fleet.simulation.scenario import MAX_DEVICES, Result, Rolled, Scenario, Standing
from edge.observability import log

_DAY_S: Final = 86_400
_HOUR_S: Final = 3_600


def add_simulate(commands: Any) -> None:
    """Add the subcommand to `edge fleet`."""
    given = Scenario()
    summary = "play rollouts on many devices in one process: a good release, then a bad one"
    parser = add_command(commands, "simulate", summary)
    parser.add_argument(
        "--devices", type=int, default=given.devices, metavar="N",
        help=f"how many, at most {MAX_DEVICES} (default {given.devices})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=given.seed, help="of chance (default 1)")
    add_steps(parser)
    parser.add_argument(
        "--max-failed-percent", type=float, default=given.max_failed_percent, metavar="PERCENT",
        help=f"failed devices at which a rollout halts (default {given.max_failed_percent:g})",
    )  # fmt: skip
    parser.add_argument(
        "--bad-share", type=float, default=given.bad_share, metavar="SHARE",
        help=f"chance that the bad release fails on a device (default {given.bad_share:g})",
    )  # fmt: skip
    parser.add_argument(
        "--poll-s", type=float, default=given.poll_s, metavar="SECONDS",
        help=f"between two looks of a device, jittered (default {given.poll_s:g})",
    )  # fmt: skip
    parser.add_argument(
        "--stage-s", type=float, default=given.stage_s, metavar="SECONDS",
        help="what trial, shadow and probation take each on a device, on average "
        f"(default {given.stage_s:g})",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="where it plays, emptied afterwards; default: a temporary one",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.set_defaults(publish=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    log.configure(LogSection(level="error"), tty=sys.stderr.isatty())
    scenario = Scenario(
        devices=arguments.devices,
        seed=arguments.seed,
        steps=tuple(arguments.steps),
        max_failed_percent=arguments.max_failed_percent,
        bad_share=arguments.bad_share,
        poll_s=arguments.poll_s,
        stage_s=arguments.stage_s,
    )
    scenario.hold()
    console = Console(stderr=arguments.json)
    with tempfile.TemporaryDirectory(prefix="edge-simulate-", dir=arguments.folder) as folder:
        display = _Display(console, scenario.devices)
        with display.progress:
            result = asyncio.run(simulate(scenario, Path(folder), display.say))
    console.print(_rollouts(result))
    console.print(_load(result))
    for finding in result.findings:
        console.print(f"[red]{finding}[/]", soft_wrap=True)
    if arguments.json:
        print(json.dumps({**msgspec.to_builtins(result), "findings": result.findings}))
    return 1 if result.findings else 0


class _Display:
    """A bar for each phase, as it goes."""

    def __init__(self, console: Console, devices: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description:16}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:.0f} of {task.total:.0f}{task.fields[detail]}"),
            console=console,
        )
        self._console = console
        self._devices = devices
        self._bars: dict[str, TaskID] = {}

    def say(self, standing: Standing) -> None:
        if standing.phase not in self._bars:
            for before in self._bars.values():
                self.progress.stop_task(before)
            self._bars[standing.phase] = self.progress.add_task(
                standing.phase, total=self._devices, detail=""
            )
            if not self._console.is_terminal:  # there a bar is drawn once, at its end
                self._console.print(f"{standing.phase} ...", highlight=False)
        detail = ""
        if (found := standing.tally) is not None:
            detail = f"; {standing.percent:g} %: {found.under_way} under way, {found.failed} failed"
        self.progress.update(self._bars[standing.phase], completed=standing.done, detail=detail)


def _rollouts(result: Result) -> Table:
    table = Table("rollout", *(_title(each) for each in result.rollouts), title="Rollouts")
    rows: tuple[tuple[str, Any], ...] = (
        ("ended", lambda r: f"{r.end} at {r.percent:g} %"),
        ("devices that ran it", lambda r: f"{r.ran} of {result.scenario.devices}"),
        ("run it now", lambda r: str(r.on)),
        ("went back", lambda r: str(r.reverted)),
        ("never took it up", lambda r: str(r.untouched)),
        ("seconds", lambda r: f"{r.seconds:g}"),
        ("rings", lambda r: ", ".join(f"{p:g} % at {s:g} s" for p, s, _, _ in r.rings)),
        ("fetched by a device", lambda r: f"{r.fetched.bytes_each:,} bytes"),
        ("requests to the server", lambda r: f"{r.requests:,}"),
        ("messages at the broker", lambda r: f"{r.messages:,}"),
    )
    for name, cell in rows:
        table.add_row(name, *(cell(each) for each in result.rollouts))
    return table


def _title(rolled: Rolled) -> str:
    return f"revision {rolled.revision}, {'bad' if rolled.bad else 'good'}"


def _load(result: Result) -> Table:
    polls = result.polls
    hourly = result.scenario.devices / _HOUR_S
    table = Table("looks that find nothing", "", title="Load of the server")
    table.add_row("requests of a look", f"{polls.requests_each:g}")
    table.add_row("bytes of a look", f"{polls.bytes_each:,}")
    table.add_row(
        f"looks a second, one in {result.scenario.poll_s:g} s a device",
        f"{polls.a_second:g} (busiest second {polls.most_in_a_second})",
    )
    table.add_row("looks a second, one an hour", f"{hourly:.2g}")
    table.add_row(
        "bytes a device and day, one look an hour",
        f"{polls.bytes_each * _DAY_S // _HOUR_S:,}",
    )
    sizes = ", ".join(f"{role} {size:,}" for role, size in result.metadata_bytes.items())
    table.add_row("bytes of the metadata", sizes)
    return table
