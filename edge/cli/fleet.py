"""`edge fleet`: the side that many devices report to, and get their deployments from.

Exit status 0 done, 1 alarms stand or it failed, 2 usage, 78 configuration.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.cli import publish, simulate
from edge.cli.arguments import add_command, add_config
from edge.fleet import config
from edge.fleet.alarms import Alarm
from edge.fleet.collecting import collect, store_of
from edge.fleet.register import DeviceRow
from edge.fleet.store import LedgerRow, Store
from edge.observability import log
from edge.observability.systemd import Notifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(dest="fleet_command", metavar="COMMAND", required=True)
    summary = "take in the records of all devices, verify and keep them, and receipt them"
    collecting = add_command(commands, "collect", summary)
    collecting.set_defaults(run_fleet=_collect)
    summary = "list devices, what is held of them, and the alarms that stand"
    listing = add_command(commands, "devices", summary)
    listing.set_defaults(run_fleet=_devices)
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    summary = "accept a device's alarms, and go on beyond records that are missing"
    accepting = add_command(commands, "accept", summary)
    accepting.set_defaults(run_fleet=_accept)
    accepting.add_argument("device", metavar="DEVICE", help="its name: edge fleet devices")
    summary = "write the records that are held of a device to standard output, one a line"
    exporting = add_command(commands, "export", summary)
    exporting.set_defaults(run_fleet=_export)
    exporting.add_argument("device", metavar="DEVICE", help="its name: edge fleet devices")
    exporting.add_argument(
        "--ledger", default="", metavar="NAME", help="which of its ledgers; default: the newest"
    )
    for command in (collecting, listing, accepting, exporting):
        add_config(command, "the collector's config")
    publish.add_commands(commands)
    simulate.add_simulate(commands)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    if "publish" in arguments:
        return publish.run(arguments)
    settings = config.load(arguments.config, tuple(arguments.overrides))
    status: int = arguments.run_fleet(settings, arguments)
    return status


def _collect(settings: config.CollectConfig, _arguments: argparse.Namespace) -> int:
    journal = log.goes_to_journal(os.environ.get("JOURNAL_STREAM", ""), sys.stderr.fileno())
    log.configure(settings.log, tty=sys.stderr.isatty(), journal=journal)
    with Notifier.from_environment(os.environ, os.getpid()) as notifier:
        asyncio.run(collect(settings, notifier))
    return 0


def _devices(settings: config.CollectConfig, arguments: argparse.Namespace) -> int:
    store = _opened(settings)
    devices, ledgers, alarms = store.devices(), store.ledgers(), store.alarms()
    store.close()
    if arguments.json:
        print(json.dumps({"devices": [_as_json(d, ledgers, alarms) for d in devices]}))
    else:
        console = Console()
        if devices:
            console.print(_table(devices, ledgers, alarms))
        else:
            console.print("no device has been heard yet")
        for alarm in alarms:
            line = Text(f"{alarm.device}: {alarm.kind.value}: {alarm.detail}", style="red")
            console.print(line, soft_wrap=True)
    return 1 if alarms else 0


def _as_json(device: DeviceRow, ledgers: list[LedgerRow], alarms: list[Alarm]) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(device),
        "ledgers": [
            {
                "ledger": row.ledger,
                "seq": row.seq,
                "head": row.head.hex(),
                "from": row.anchor_seq + 1,
                "ahead": row.ahead,
                "bytes": row.kept_bytes,
                "conflicts": row.conflicts,
            }
            for row in ledgers
            if row.device == device.device
        ],
        "alarms": [msgspec.to_builtins(a) for a in alarms if a.device == device.device],
    }


def _table(devices: list[DeviceRow], ledgers: list[LedgerRow], alarms: list[Alarm]) -> Table:
    table = Table()
    for column in ("device", "state", "heard", "ledger", "held", "above", "alarms"):
        justify = "right" if column in {"held", "above"} else "left"
        table.add_column(column, justify=justify)  # type: ignore[arg-type] # one of rich's words
    for device in devices:
        own = [row for row in ledgers if row.device == device.device]
        kinds = sorted({a.kind.value for a in alarms if a.device == device.device})
        for number, row in enumerate(own or [None]):
            table.add_row(
                device.device if not number else "",
                (device.state or "?") if not number else "",
                _ago(device.seen_ns) if not number else "",
                row.ledger if row else "-",
                f"{row.anchor_seq + 1} to {row.seq}" if row else "-",
                str(row.ahead) if row else "-",
                ", ".join(kinds) if not number else "",
            )
    return table


def _ago(instant_ns: int) -> str:
    ago_s = (time.time_ns() - instant_ns) / 1e9
    if ago_s < 3_600:  # noqa: PLR2004 - an hour
        return f"{max(0, round(ago_s))} s ago"
    return datetime.fromtimestamp(instant_ns / 1e9, UTC).isoformat(timespec="seconds")


def _accept(settings: config.CollectConfig, arguments: argparse.Namespace) -> int:
    store = _opened(settings)
    taken = store.accept(arguments.device)
    store.close()
    for alarm in taken.ended:
        print(f"{alarm.device}: {alarm.kind.value} accepted")
    for held in taken.held:
        print(f"{held.device}: ledger {held.ledger} goes on; held up to {held.seq}")
    if not (taken.ended or taken.held):
        print(f"edge: {arguments.device}: nothing to accept", file=sys.stderr)
        return 1
    return 0


def _export(settings: config.CollectConfig, arguments: argparse.Namespace) -> int:
    store = _opened(settings)
    names = [row.ledger for row in store.ledgers() if row.device == arguments.device]
    ledger = arguments.ledger or (names[-1] if names else "")
    if ledger not in names:
        which = f"ledger {ledger}" if ledger else "ledger"
        print(f"edge: {arguments.device}: no {which} is held of it", file=sys.stderr)
        return 1
    after = 0
    while page := store.bodies(arguments.device, ledger, after, 1_000):
        for seq, body in page:
            sys.stdout.buffer.write(body + b"\n")
            after = seq
    sys.stdout.buffer.flush()
    store.close()
    return 0


def _opened(settings: config.CollectConfig) -> Store:
    store = store_of(settings, create=False)
    store.prepare()
    return store
