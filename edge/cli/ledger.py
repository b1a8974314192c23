"""`edge ledger`: show and export the ledger of a state directory, or a copy of one, and more.

The other commands are in the modules beside this one. Nothing is changed, and no daemon or network
is needed, but for `override`.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.cli import ledger_prove, ledger_text, ledger_verify, override
from edge.cli.arguments import add_command
from edge.errors import StorageError
from edge.ledger import reading
from edge.ledger import record as records
from edge.ledger.record import Override, Record
from edge.ledger.verify import Row
from edge.rerun import arguments as replaying

_USAGE: Final = 2
_FORMULAS: Final = ("=", "+", "-", "@")
_CSV_COLUMNS: Final = (
    "seq",
    "type",
    "captured_at",
    "decided_at",
    "pipeline",
    "frame_id",
    "part_id",
    "verdict",
    "reason",
    "score",
    "defects",
    "latency_ms",
    "provider",
    "deployment",
    "revision",
    "deployment_digest",
    "frame_digest",
    "of",
    "by",
    "head",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own commands."""
    commands = parser.add_subparsers(dest="ledger_command", metavar="COMMAND", required=True)
    summary = "print records"
    showing = add_command(commands, "show", summary)
    chosen = showing.add_mutually_exclusive_group()
    chosen.add_argument("--part", metavar="ID", help="the records of this part")
    chosen.add_argument("--frame", metavar="ID", help="the records of this frame")
    chosen.add_argument(
        "--last", type=_count, default=10, metavar="N", help="the last records; default 10"
    )
    showing.add_argument("--json", action="store_true", help="print one JSON object")
    summary = "write all records to standard output"
    exporting = add_command(commands, "export", summary)
    exporting.add_argument(
        "--format",
        choices=("jsonl", "csv"),
        required=True,
        help="jsonl: the hashed bytes, one record a line; csv: a table for people",
    )
    ledger_verify.add(commands)
    ledger_prove.add(commands)
    override.add(commands)
    replaying.add(commands)
    for command in (showing, exporting):
        command.add_argument(
            "folder", type=Path, metavar="DIR", help="state directory, or a copy of its ledger"
        )


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    if arguments.ledger_command == "override":
        return override.run(arguments)
    if arguments.ledger_command == "replay":
        return _replay(arguments)
    if arguments.ledger_command in _ELSEWHERE:
        return _ELSEWHERE[arguments.ledger_command](arguments)
    path = ledger_text.found(arguments.folder)
    if path is None:
        return _USAGE
    if arguments.ledger_command == "show":
        return _show(path, arguments)
    return _export(path, arguments.format)


_ELSEWHERE: Final = {
    **dict.fromkeys(ledger_verify.COMMANDS, ledger_verify.run),
    **dict.fromkeys(ledger_prove.COMMANDS, ledger_prove.run),
}


def _show(path: Path, arguments: argparse.Namespace) -> int:
    with reading.opened(path) as ledger:
        if arguments.part is not None:
            rows = ledger.of_part(arguments.part)
        elif arguments.frame is not None:
            rows = ledger.of_frame(arguments.frame)
        else:
            rows = ledger.last(arguments.last)
        if arguments.json:
            print(json.dumps({"records": [_parsed(row) for row in rows]}))
            return 0
        shown = 0
        for row, record in _decoded(rows):
            shown += 1
            print(ledger_text.line(record))
            if arguments.part is not None or arguments.frame is not None:
                print(ledger_text.details(record, row.head.hex()))
    if not shown:
        print("no record", file=sys.stderr)
    return 0 if shown else 1


def _replay(arguments: argparse.Namespace) -> int:
    # The engines take half a second to import, and the other commands need none.
    from edge.rerun import command  # noqa: PLC0415

    return command.run(arguments)


def _export(path: Path, form: str) -> int:
    with reading.opened(path) as ledger:
        if form == "jsonl":
            for row in ledger.rows():
                if b"\n" in row.body:  # it could show a reader records that there are not
                    raise StorageError(f"record {row.seq}: more than one line (edge ledger verify)")
                sys.stdout.buffer.write(row.body + b"\n")
            sys.stdout.buffer.flush()
            return 0
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(_CSV_COLUMNS)
        for row, record in _decoded(ledger.rows()):
            table.writerow(_cells(row, record))
    return 0


def _decoded(rows: Iterator[Row]) -> Iterator[tuple[Row, Record | Override]]:
    for row in rows:
        try:
            yield row, records.decode(row.body)
        except StorageError as wrong:
            raise StorageError(f"record {row.seq}: {wrong} (run `edge ledger verify`)") from wrong


def _parsed(row: Row) -> object:
    try:
        return json.loads(row.body)
    except (ValueError, RecursionError) as wrong:
        raise StorageError(f"record {row.seq}: no JSON (run `edge ledger verify`)") from wrong


def _cell(text: str) -> str:
    """What came from outside, which a spreadsheet must not take for a formula."""
    return f"'{text}" if text[:1] in _FORMULAS else text


def _cells(row: Row, record: Record | Override) -> tuple[object, ...]:
    if isinstance(record, Override):
        known = {
            "seq": record.seq,
            "type": "override",
            "decided_at": ledger_text.time(record.decided_at_ns),
            "pipeline": record.pipeline,
            "frame_id": _cell(record.frame_id),
            "part_id": _cell(record.part_id),
            "verdict": record.verdict.value,
            "reason": _cell(record.reason),
            "of": record.of,
            "by": _cell(record.by),
            "head": row.head.hex(),
        }
        return tuple(known.get(column, "") for column in _CSV_COLUMNS)
    return (
        record.seq,
        "verdict",
        ledger_text.time(record.captured_at_ns),
        ledger_text.time(record.decided_at_ns),
        record.pipeline,
        _cell(record.frame_id),
        _cell(record.part_id),
        record.verdict.value,
        _cell(record.reason),
        record.score,
        len(record.defects),
        record.latency_ms.get("total", ""),
        record.provider,
        record.deployment.name,
        record.deployment.revision,
        record.deployment.digest,
        record.digests.frame,
        "",
        "",
        row.head.hex(),
    )


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError("expected a number from 1")
    return int(text)
