"""`edge ledger`: verify, show and export the ledger of a state directory, or a copy of one.

Nothing is changed, and no daemon or network is needed. `verify` ends with 0 when the ledger is
sound, 1 with a finding, 2 where there is no ledger.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from edge.cli import override
from edge.errors import StorageError
from edge.ledger import reading
from edge.ledger import record as records
from edge.ledger.entry import Runtime
from edge.ledger.record import Override, Record
from edge.ledger.verify import Finding, Place, Report, Row, verify

_USAGE: Final = 2
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
    summary = "check the whole chain: is any record altered, removed, put in or moved?"
    verifying = commands.add_parser("verify", help=summary, description=summary.capitalize())
    verifying.add_argument(
        "--head",
        type=_place,
        metavar="SEQ:HEX",
        help="a head known from elsewhere, e.g. the cloud's last receipt",
    )
    verifying.add_argument("--json", action="store_true", help="print one JSON object")
    summary = "print records"
    showing = commands.add_parser("show", help=summary, description=f"{summary.capitalize()}.")
    chosen = showing.add_mutually_exclusive_group()
    chosen.add_argument("--part", metavar="ID", help="the records of this part")
    chosen.add_argument("--frame", metavar="ID", help="the records of this frame")
    chosen.add_argument(
        "--last", type=_count, default=10, metavar="N", help="the last records; default 10"
    )
    showing.add_argument("--json", action="store_true", help="print one JSON object")
    summary = "write all records to standard output"
    exporting = commands.add_parser("export", help=summary, description=f"{summary.capitalize()}.")
    exporting.add_argument(
        "--format",
        choices=("jsonl", "csv"),
        required=True,
        help="jsonl: the hashed bytes, one record a line; csv: a table for people",
    )
    override.add(commands)
    for command in (verifying, showing, exporting):
        command.add_argument(
            "folder", type=Path, metavar="DIR", help="state directory, or a copy of its ledger"
        )


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    if arguments.ledger_command == "override":
        return override.run(arguments)
    path = reading.find(arguments.folder)
    if path is None:
        print(
            f"edge: {arguments.folder}: no ledger here: expected ledger.db or ledger/ledger.db",
            file=sys.stderr,
        )
        return _USAGE
    match arguments.ledger_command:
        case "verify":
            return _verify(path, arguments.head, as_json=arguments.json)
        case "show":
            return _show(path, arguments)
        case _:
            return _export(path, arguments.format)


def _verify(path: Path, expected: Place | None, *, as_json: bool) -> int:
    try:
        with reading.opened(path) as ledger:
            anchor = ledger.marks["anchor"].seq
            if expected is not None and expected.seq < anchor:
                print(
                    f"edge: --head {expected.seq}: pruned; the oldest head here is {anchor}",
                    file=sys.stderr,
                )
                return _USAGE
            report = verify(ledger.origin, ledger.marks, ledger.rows(), expected)
    except StorageError as failed:
        report = Report("", "", 0, 0, "", 0, 0, Finding(0, "unreadable", str(failed)))
    if as_json:
        print(msgspec.json.encode(report).decode())
    elif report.finding is not None:
        print(f"{path}: {report.finding.kind}: {report.finding.detail}")
        print(f"{report.records} records before that are sound")
    else:
        print(
            f"{path}: sound; ledger {report.ledger} of {report.device}, {report.records} records, "
            f"{report.first} to {report.last}, receipted up to {report.receipted}"
        )
        print(f"head {report.last}:{report.head}")
    return 0 if report.finding is None else 1


def _show(path: Path, arguments: argparse.Namespace) -> int:
    with reading.opened(path) as ledger:
        if arguments.part is not None:
            rows = ledger.of_part(arguments.part)
        elif arguments.frame is not None:
            rows = ledger.of_frame(arguments.frame)
        else:
            rows = ledger.last(arguments.last)
        if arguments.json:
            print(json.dumps({"records": [json.loads(row.body) for row in rows]}))
            return 0
        shown = 0
        for row, record in _decoded(rows):
            shown += 1
            print(_line(record))
            if arguments.part is not None or arguments.frame is not None:
                print(_details(row, record))
    if not shown:
        print("no record", file=sys.stderr)
    return 0 if shown else 1


def _export(path: Path, form: str) -> int:
    with reading.opened(path) as ledger:
        if form == "jsonl":
            for row in ledger.rows():
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


def _cells(row: Row, record: Record | Override) -> tuple[object, ...]:
    if isinstance(record, Override):
        known = {
            "seq": record.seq,
            "type": "override",
            "decided_at": _time(record.decided_at_ns),
            "pipeline": record.pipeline,
            "frame_id": record.frame_id,
            "part_id": record.part_id,
            "verdict": record.verdict.value,
            "reason": record.reason,
            "of": record.of,
            "by": record.by,
            "head": row.head.hex(),
        }
        return tuple(known.get(column, "") for column in _CSV_COLUMNS)
    return (
        record.seq,
        "verdict",
        _time(record.captured_at_ns),
        _time(record.decided_at_ns),
        record.pipeline,
        record.frame_id,
        record.part_id,
        record.verdict.value,
        record.reason,
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


def _line(record: Record | Override) -> str:
    if isinstance(record, Override):
        return (
            f"{record.seq:>8}  {_time(record.decided_at_ns)}  {record.pipeline}  "
            f"{record.verdict.value:<6} said of record {record.of}, a {record.was.value}, "
            f"by {_shown(record.by)}: {_shown(record.reason)}"
        )
    score = "" if record.score is None else f" {record.score:.3f}"
    return (
        f"{record.seq:>8}  {_time(record.decided_at_ns)}  {record.pipeline}  "
        f"{record.verdict.value:<6} {_shown(record.reason)}{score}  frame {_shown(record.frame_id)}"
        + (f"  part {_shown(record.part_id)}" if record.part_id else "")
    )


def _details(row: Row, record: Record | Override) -> str:
    if isinstance(record, Override):
        pairs = {"part": record.part_id, "frame": record.frame_id, "came in": record.via}
        return _indented({**pairs, "head": row.head.hex()})
    deployment, runtime = record.deployment, record.runtime
    pairs = {
        "deployment": f"{deployment.name} revision {deployment.revision} ({deployment.digest})",
        "latency": ", ".join(f"{name} {ms:.1f} ms" for name, ms in record.latency_ms.items()),
        "provider": record.provider or "none",
        **{
            f"defect {n}": f"{defect.label} {defect.score:.3f} at {list(defect.box)}"
            for n, defect in enumerate(record.defects, start=1)
        },
        **{
            name: f"{seen.value} ({seen.state.value}, {seen.age_ns / 1e6:.0f} ms old)"
            for name, seen in record.signals.items()
        },
        **({"runtime": _runtime(runtime)} if runtime.versions else {}),
        **{
            f"{name} sha256": digest
            for name, digest in msgspec.structs.asdict(record.digests).items()
            if digest
        },
        "head": row.head.hex(),
    }
    return _indented(pairs)


def _runtime(runtime: Runtime) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions.items())
    return f"{versions}; {runtime.threads} threads"


def _indented(pairs: dict[str, str]) -> str:
    return "\n".join(f"          {_shown(name)}: {_shown(text)}" for name, text in pairs.items())


def _shown(text: str) -> str:
    """Keep what a camera or a forger named a thing from steering the terminal."""
    return text if text.isprintable() else repr(text)


def _time(instant_ns: int) -> str:
    try:
        return datetime.fromtimestamp(instant_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{instant_ns} ns"


def _place(text: str) -> Place:
    match = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-fA-F]{64})", text)
    if match is None:
        raise argparse.ArgumentTypeError("expected SEQ:HEX, e.g. 120:9f86…, 64 hex digits")
    return Place(int(match[1]), bytes.fromhex(match[2]))


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError("expected a number from 1")
    return int(text)
