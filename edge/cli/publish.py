"""`edge fleet init|rotate|build|sign|publish|discard|rollout|halt|releases|status`: the publisher.

Exit status 0 done, 1 it failed or a rollout halted, 2 usage, 78 configuration.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from edge.cli.arguments import add_command
from edge.cli.plain import plain
from edge.config import LogSection
from edge.deployment.release import Release
from edge.deployment.report import Report
from edge.deployment.rollout import MAX_DETAIL
from edge.errors import DeploymentError
from edge.fleet.publisher import keys
from edge.fleet.publisher.releases import KEYS, ROOT, Fleet
from edge.fleet.publisher.rings import fate, tally
from edge.fleet.publisher.rollout import End, Reports, Ring, widen
from edge.observability import log

_STEPS: Final = "1,10,50,100"
_RING_S: Final = 3_600.0
_SETTLE_S: Final = 1.0
"""How long retained reports are waited for."""


def add_commands(commands: Any) -> None:
    """Add the publisher's subcommands to `edge fleet`."""
    init = _command(commands, "init", "make a fleet: keys, an empty signed repository", _init)
    init.add_argument("--group", action="append", required=True, help="may be given several times")
    init.add_argument("--name", default="fleet", help="for people")
    rotate = _signing(commands, "rotate", "give a role or group a new key, revoke the old", _rotate)
    rotate.add_argument(
        "role", metavar="ROLE", help="root, targets, snapshot, timestamp or a group"
    )
    rotate.add_argument("--yes", action="store_true", help="do not ask")
    build = _command(commands, "build", "draft a release of a deployment folder", _build)
    build.add_argument("deployment", type=Path, metavar="DEPLOYMENT", help="a pinned folder")
    _add_group(build)
    build.add_argument("--percent", type=float, default=0.0, help="of the group (default 0)")
    sign = _signing(commands, "sign", "sign a draft with the keys at hand", _sign)
    _add_group(sign)
    _signing(commands, "publish", "put signed drafts into place, and renew", _publish)
    discard = _command(commands, "discard", "drop a draft", _discard)
    _add_group(discard)
    rollout = _signing(commands, "rollout", "widen a release ring by ring, and watch it", _rollout)
    _add_release(rollout)
    add_steps(rollout)
    rollout.add_argument(
        "--ring-s",
        type=float,
        default=_RING_S,
        metavar="SECONDS",
        help=f"longest wait for the devices of a ring (default {_RING_S:g})",
    )
    stop = _signing(commands, "halt", "offer a release to no further device", _halt)
    _add_release(stop)
    stop.add_argument("--yes", action="store_true", help="do not ask")
    listing = _command(commands, "releases", "list what groups are offered", _releases)
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    status = _command(commands, "status", "show what devices run, and how releases fare", _status)
    status.add_argument("--watch", action="store_true", help="live, until Ctrl-C")
    status.add_argument("--json", action="store_true", help="print one JSON object")


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add `--steps`, the rings of a rollout."""
    parser.add_argument(
        "--steps",
        type=_percents,
        default=_percents(_STEPS),
        metavar="PERCENTS",
        help=f"of the group, rising (default {_STEPS})",
    )


def _command(
    commands: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, summary)
    parser.add_argument("fleet", type=Path, metavar="FLEET", help="the fleet's folder")
    parser.set_defaults(publish=run, keys=[])
    return parser


def _signing(
    commands: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = _command(commands, name, summary, run)
    parser.add_argument(
        "--keys", type=Path, action="append", default=[], metavar="DIR", help="look there for keys"
    )
    return parser


def _add_group(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--group", required=True, help="of the fleet (edge fleet releases)")


def _add_release(parser: argparse.ArgumentParser) -> None:
    _add_group(parser)
    parser.add_argument("--revision", type=int, help="default: the group's newest")


def _percents(text: str) -> list[float]:
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = [0.0]
    if sorted(found) != found or not 0 < found[0] <= found[-1] <= 100:  # noqa: PLR2004 - percent
        raise argparse.ArgumentTypeError(f"{text!r}: expected rising percents, e.g. {_STEPS}")
    return found


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    log.configure(LogSection(level="error"), tty=sys.stderr.isatty())
    status: int = arguments.publish(arguments)
    return status


def _fleet(arguments: argparse.Namespace) -> Fleet:
    return Fleet(arguments.fleet, arguments.keys)


def _init(arguments: argparse.Namespace) -> int:
    fleet = Fleet.create(arguments.fleet, tuple(arguments.group), arguments.name)
    print(
        f"fleet {arguments.name!r} in {fleet.folder}, groups {', '.join(fleet.repository.groups)}"
    )
    print(f"  serve {fleet.folder / 'repository'} as static files")
    print(f"  install {fleet.folder / ROOT} on the devices, as updates.root_file")
    print(f"  move root-1 to root-3 of {fleet.folder / KEYS} offline, each to a place of its own")
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    fleet = _fleet(arguments)
    roles = ("root", "targets", "snapshot", "timestamp", *fleet.repository.groups)
    if arguments.role not in roles:  # before a key is made for it
        raise DeploymentError(f"there is no role {arguments.role!r}; there are {', '.join(roles)}")
    if not _sure(arguments, f"revoke the key of {arguments.role}? Nothing that it signs counts"):
        return 1
    folder = fleet.folder / KEYS
    number = 1
    while (folder / f"{arguments.role}.{number}{keys.SUFFIX}").exists():
        number += 1
    names = [f"{arguments.role}.{number}"]
    if arguments.role == "root":
        names = [f"root-{n}.{number}" for n in (1, 2, 3)]
    made = [keys.create(folder, name) for name in names]
    Fleet(arguments.fleet, arguments.keys).rotate(arguments.role, made)
    print(f"{arguments.role} is signed by {', '.join(names)} from now on; the old key is revoked")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    made = _fleet(arguments).build(arguments.group, arguments.deployment, arguments.percent)
    print(
        f"drafted {made.name} revision {made.revision} for {made.percent:g} % of "
        f"{arguments.group}: edge fleet sign, then publish"
    )
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    count = _fleet(arguments).sign(arguments.group)
    print(f"the draft of {arguments.group} bears {count} signature{'s' if count != 1 else ''}")
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    published = _fleet(arguments).publish()
    print(f"published {', '.join(published)}" if published else "no draft waited; renewed")
    return 0


def _discard(arguments: argparse.Namespace) -> int:
    _fleet(arguments).discard(arguments.group)
    print(f"the draft of {arguments.group} is gone")
    return 0


def _rollout(arguments: argparse.Namespace) -> int:
    fleet = _fleet(arguments)
    release = _release(fleet, arguments)
    console = Console()

    def say(ring: Ring) -> None:
        found = ring.tally
        console.print(
            f"{ring.release.percent:5.1f} %: {found.on} on it, {found.under_way} under way, "
            f"{found.waiting} waiting, {found.failed} failed",
            highlight=False,
        )

    async def roll() -> tuple[End, bool]:
        heard = Reports(fleet.settings.broker)
        async with heard.listening():
            await asyncio.sleep(_SETTLE_S)
            end = await widen(
                fleet,
                heard,
                arguments.group,
                release.revision,
                arguments.steps,
                arguments.ring_s,
                say,
            )
            return end, heard.hears(arguments.group)

    end, heard_any = asyncio.run(roll())
    console.print(f"revision {release.revision} of {arguments.group}: {end}", highlight=False)
    if not heard_any:
        print(
            f"edge: no device of {arguments.group} was heard at the fleet's broker: is it theirs, "
            "and may the publisher read edge/+/deployment/reported there?",
            file=sys.stderr,
        )
    return 0 if end is End.REACHED else 1


def _halt(arguments: argparse.Namespace) -> int:
    fleet = _fleet(arguments)
    release = _release(fleet, arguments)
    if not _sure(arguments, f"halt revision {release.revision} of {arguments.group}?"):
        return 1
    fleet.change(arguments.group, release.revision, halted=True)
    print(f"revision {release.revision} of {arguments.group} is offered to no further device")
    return 0


def _releases(arguments: argparse.Namespace) -> int:
    fleet = _fleet(arguments)
    offered = {group: fleet.releases(group).releases for group in fleet.repository.groups}
    if arguments.json:
        print(
            json.dumps(
                {group: [each.model_dump() for each in found] for group, found in offered.items()}
            )
        )
        return 0
    table = Table("group", "deployment", "revision", "percent", "manifest", "")
    for group, found in offered.items():
        for each in found:
            table.add_row(
                group,
                each.name,
                str(each.revision),
                f"{each.percent:g}",
                each.manifest[:12],
                "halted" if each.halted else "",
            )
    if table.row_count:
        Console().print(table)
    for group in (group for group, found in offered.items() if not found):
        print(f"nothing is released to {group} yet: edge fleet build, sign, publish")
    for group in fleet.drafts():
        print(f"a draft of {group} waits")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    fleet = _fleet(arguments)
    console = Console()

    async def show() -> None:
        heard = Reports(fleet.settings.broker)
        async with heard.listening():
            await asyncio.sleep(_SETTLE_S)
            if arguments.json:
                print(json.dumps(_document(fleet, heard)))
            elif not arguments.watch:
                console.print(_table(fleet, heard))
            else:
                with Live(console=console, auto_refresh=False) as live:
                    while True:
                        live.update(_table(fleet, heard), refresh=True)
                        await heard.news(_SETTLE_S)

    asyncio.run(show())
    return 0


def _document(fleet: Fleet, heard: Reports) -> dict[str, Any]:
    return {
        "devices": [msgspec.to_builtins(each) for each in heard.by_device.values()],
        "releases": {
            group: [
                {
                    **release.model_dump(),
                    **tally(heard.by_device.values(), group, release)._asdict(),
                }
                for release in fleet.releases(group).releases
            ]
            for group in fleet.repository.groups
        },
    }


def _table(fleet: Fleet, heard: Reports) -> Table:
    table = Table("group", "device", "runs", "state", "newest release", "last")
    for group in fleet.repository.groups:
        offered = fleet.releases(group).releases
        newest = max(offered, key=lambda each: each.revision, default=None)
        for report in sorted(heard.by_device.values(), key=lambda each: each.device):
            if report.group == group:
                table.add_row(*_row(report, newest))
    return table


def _row(report: Report, newest: Release | None) -> tuple[str, ...]:
    runs = f"{report.active.name} {report.active.revision}" if report.active else "-"
    outcome = report.outcome
    last = ""
    if outcome is not None:
        last = f"{outcome.deployment.revision} {outcome.event}" + (
            f": {outcome.detail}" if outcome.reason else ""
        )
    cells = (
        report.group,
        report.device,
        runs + (" (unsigned)" if report.active and not report.active.signed else ""),
        report.state + (", pinned" if report.pinned else ""),
        f"{newest.revision}: {fate(report, newest)}" if newest else "-",
        report.trouble or last,
    )
    return tuple(plain(cell, MAX_DETAIL) for cell in cells)


def _release(fleet: Fleet, arguments: argparse.Namespace) -> Release:
    offered = fleet.releases(arguments.group).releases
    wanted = arguments.revision or max((each.revision for each in offered), default=0)
    for each in offered:
        if each.revision == wanted:
            return each
    raise DeploymentError(f"group {arguments.group!r} has no release of revision {wanted}")


def _sure(arguments: argparse.Namespace, question: str) -> bool:
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        print("edge: say --yes: nobody is here to be asked", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
