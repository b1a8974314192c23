"""`edge ledger verify`, `verify-proof`: is a ledger whole, does a proof hold?

0: sound; 1: a finding; 2: there is nothing to look at. Neither needs a network, a daemon or a key
other than public ones.
"""

import argparse
import contextlib
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge.cli import ledger_text
from edge.cli.arguments import add_command
from edge.errors import ProofError, StorageError
from edge.ledger import note as notes
from edge.ledger import proof as proofs
from edge.ledger import reading
from edge.ledger import record as records
from edge.ledger.note import LOG, Verifier
from edge.ledger.proof import Proved
from edge.ledger.proving import audited
from edge.ledger.verify import Finding, Place, Report

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COMMANDS: Final = ("verify", "verify-proof")
_USAGE: Final = 2
_MAX_KEYS_BYTES: Final = 64 << 10
_KEYS_HELP: Final = (
    "a public key (vkey), or a file of them, one a line; may be given several times, for the keys "
    "before and after a change, and for cosigners"
)


class Audited(msgspec.Struct, frozen=True):
    """What was verified of tree and checkpoints.

    Attributes:
        checkpoints: Found sound.
        signed: Up to which record.
        incomparable: Checkpoints of which only the signatures could be checked.
        keys: That were believed.
    """

    checkpoints: int = 0
    signed: int = 0
    incomparable: int = 0
    keys: tuple[str, ...] = ()


def add(commands: "Commands") -> None:
    """Add the commands."""
    summary = "check chain, tree and checkpoints: is any record altered, removed, put in or moved?"
    verifying = add_command(commands, "verify", summary)
    verifying.add_argument(
        "--head",
        type=_place,
        metavar="SEQ:HEX",
        help="a head known from elsewhere, e.g. the cloud's last receipt",
    )
    verifying.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a checkpoint kept elsewhere; finds a ledger that was rewritten or put back",
    )
    add_keys(verifying, "default: those that the ledger itself lists")
    verifying.add_argument(
        "folder", type=Path, metavar="DIR", help="state directory, or a copy of its ledger"
    )
    summary = "check a proof made by `edge ledger prove`"
    proving = add_command(commands, "verify-proof", summary)
    add_keys(proving, "", required=True)
    proving.add_argument(
        "--record", type=Path, metavar="FILE", help="the record's bytes, where the proof has none"
    )
    proving.add_argument("file", type=Path, metavar="FILE", help="the proof")
    for command in (verifying, proving):
        command.add_argument("--json", action="store_true", help="print one JSON object")


def add_keys(parser: argparse.ArgumentParser, default: str, *, required: bool = False) -> None:
    """Add `--key`."""
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        required=required,
        metavar="VKEY",
        help="; ".join(part for part in (_KEYS_HELP, default) if part),
    )


def keys_in(words: list[str]) -> list[Verifier]:
    """Read keys as they were given: vkeys, or files of them.

    Raises:
        ProofError: One is none.
    """
    found = []
    for word in words:
        lines = [word]
        if word and "+" not in word and not Path(word).exists():
            raise ProofError(f"--key {word!r}: is no public key (vkey), and there is no such file")
        if word and ("+" not in word or Path(word).is_file()):
            lines = _read(Path(word), _MAX_KEYS_BYTES).decode("utf-8", "replace").splitlines()
        keys = [notes.parse_vkey(line) for line in lines if line.strip() and line[0] != "#"]
        if not keys:
            raise ProofError(f"--key {word!r}: holds no key (edge ledger key show DIR prints them)")
        found += keys
    return found


def run(arguments: argparse.Namespace) -> int:
    """Run one of them."""
    if arguments.ledger_command == "verify-proof":
        return _verify_proof(arguments)
    path = ledger_text.found(arguments.folder)
    if path is None:
        return _USAGE
    try:
        elsewhere = [_read(file, notes.MAX_NOTE_BYTES + 1) for file in arguments.checkpoint]
        known = keys_in(arguments.key)
    except ProofError as wrong:
        print(f"edge: {wrong}", file=sys.stderr)
        return _USAGE
    return _verify(path, arguments.head, known, elsewhere, as_json=arguments.json)


def _verify(
    path: Path,
    expected: Place | None,
    known: list[Verifier],
    elsewhere: list[bytes],
    *,
    as_json: bool,
) -> int:
    looked_at = Audited()
    try:
        with reading.opened(path) as ledger:
            anchor = ledger.marks["anchor"].seq
            if expected is not None and expected.seq < anchor:
                print(
                    f"edge: --head {expected.seq}: pruned; the oldest head here is {anchor}",
                    file=sys.stderr,
                )
                return _USAGE
            report, audit = audited(ledger, known, expected, elsewhere)
            keys = tuple(key.vkey for key in audit.known)
            looked_at = Audited(audit.checkpoints, audit.signed, audit.incomparable, keys)
    except StorageError as failed:
        report = Report("", "", 0, 0, "", 0, 0, Finding(0, "unreadable", str(failed)))
    except ProofError as wrong:
        report = Report("", "", 0, 0, "", 0, 0, Finding(0, "checkpoint", f"its keys: {wrong}"))
    if as_json:
        print(_json(msgspec.to_builtins(report) | msgspec.to_builtins(looked_at)))
    elif report.finding is not None:
        print(f"{path}: {report.finding.kind}: {ledger_text.shown(report.finding.detail)}")
        print(f"{report.records} records before that are sound")
    else:
        _print_sound(path, report, looked_at, own=not known)
    return 0 if report.finding is None else 1


def _print_sound(path: Path, report: Report, found: Audited, *, own: bool) -> None:
    print(
        f"{path}: sound; ledger {ledger_text.shown(report.ledger)} of "
        f"{ledger_text.shown(report.device)}, {report.records} records, "
        f"{report.first} to {report.last}, receipted up to {report.receipted}"
    )
    print(f"head {report.last}:{report.head}")
    unsigned = report.last - found.signed
    print(
        f"{found.checkpoints} checkpoint{'' if found.checkpoints == 1 else 's'}, "
        f"signed up to {found.signed}"
        + (f"; the last {unsigned} records are not signed yet" if unsigned else "")
    )
    if found.incomparable:
        print(
            f"{found.incomparable} more are of records whose leaf hashes were dropped: only their "
            "signatures were checked"
        )
    for vkey in found.keys:
        print(f"key {vkey}")
    if own and found.keys:
        print("These keys are the ledger's own word: give --key to hold it to one that you know.")


def _verify_proof(arguments: argparse.Namespace) -> int:
    try:
        content = _read(arguments.file, proofs.MAX_FILE_BYTES + 1)
        beside = _read(arguments.record, proofs.MAX_FILE_BYTES) if arguments.record else None
        known = keys_in(arguments.key)
        if not any(key.kind == LOG for key in known):
            raise ProofError("--key: none of these is the key of a ledger; all are cosigners'")
    except ProofError as wrong:
        print(f"edge: {wrong}", file=sys.stderr)
        return _USAGE
    proved: list[Proved] = []
    finding = ""
    try:
        for proof in proofs.parse(content):
            proved.append(proofs.verify(proof, known, beside))
            _check_claims(proved[-1])
    except ProofError as wrong:
        finding = f"proof {len(proved) + 1}: {wrong}" if proved else str(wrong)
    if arguments.json:
        holding = [] if finding else [_proved_json(one) for one in proved]
        print(_json({"finding": finding or None, "proofs": holding}))
    elif finding:
        print(f"{arguments.file}: does not hold: {ledger_text.shown(finding)}")
    else:
        for one in proved:
            _print_proved(arguments.file, one)
    return 1 if finding else 0


def _check_claims(proved: Proved) -> None:
    """Compare what the record says of itself with where it lies.

    Raises:
        ProofError: The log signed a record that calls itself another's. It never does.
    """
    with contextlib.suppress(StorageError):  # of a later version: its bytes are proved all the same
        record = records.decode(proved.record)
        origin = proved.opened.checkpoint.origin
        if (record.seq, f"edge/{record.device}/{record.ledger}") != (proved.index + 1, origin):
            raise ProofError(
                f"leaf {proved.index} of {origin!r} calls itself record {record.seq} of ledger "
                f"{record.ledger} of {record.device!r}"
            )


def _print_proved(path: Path, proved: Proved) -> None:
    opened = proved.opened
    tree = opened.checkpoint
    whose = ledger_text.shown(tree.origin)
    print(f"{path}: holds: record {proved.index + 1} of {tree.size} of {whose}")
    for key in opened.logs:
        print(f"signed by {key.name}+{key.key_id.hex()}")
    for key, time_s in opened.cosigners.items():
        print(f"cosigned by {key.name}+{key.key_id.hex()} at {_when(time_s)}")
    try:
        record = records.decode(proved.record)
    except StorageError:
        print(ledger_text.shown(proved.record.decode("utf-8", "backslashreplace")))
        return
    print(ledger_text.line(record))
    print(ledger_text.details(record))


def _proved_json(proved: Proved) -> dict[str, Any]:
    opened = proved.opened
    return {
        "origin": opened.checkpoint.origin,
        "size": opened.checkpoint.size,
        "seq": proved.index + 1,
        "keys": [key.vkey for key in opened.logs],
        "cosigned": {key.vkey: time_s for key, time_s in opened.cosigners.items()},
        "record": msgspec.Raw(proved.record),
    }


def _json(document: object) -> str:
    return msgspec.json.encode(document).decode()


def _when(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_s} s"


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as failed:
        raise ProofError(f"{path}: cannot be read: {failed.strerror}") from failed


def _place(text: str) -> Place:
    match = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-fA-F]{64})", text)
    if match is None:
        raise argparse.ArgumentTypeError("expected SEQ:HEX, e.g. 120:9f86…, 64 hex digits")
    return Place(int(match[1]), bytes.fromhex(match[2]))
