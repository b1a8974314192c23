"""`edge ledger override`: what a person says of a verdict, as a record of its own.

The running daemon writes it (`edge.daemon.control`): the ledger has one writer.
"""

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge.contracts.verdict import Kind
from edge.daemon.control import WORDS, Override, ask
from edge.ledger.entry import Correction

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_USAGE: Final = 2


def add(commands: "Commands") -> None:
    """Add the command."""
    summary = "record what a person says of a verdict"
    overriding = commands.add_parser(
        "override",
        help=summary,
        description=f"{summary.capitalize()}, as a record of its own. The daemon writes it: it "
        "must run, and DIR must be its state directory.",
    )
    meant = overriding.add_mutually_exclusive_group(required=True)
    meant.add_argument("--part", metavar="ID", default="", help="the last verdict of this part")
    meant.add_argument(
        "--seq", type=_place, metavar="N", default=0, help="the verdict recorded at this place"
    )
    overriding.add_argument(
        "--pipeline", metavar="NAME", default="", help="where several have judged the part"
    )
    overriding.add_argument(
        "--verdict", choices=[kind.value for kind in Kind], required=True, help="what is right"
    )
    overriding.add_argument("--by", metavar="ROLE", required=True, help="who says so")
    overriding.add_argument("--reason", metavar="TEXT", required=True, help="why")
    overriding.add_argument("--json", action="store_true", help="print one JSON object")
    overriding.add_argument(
        "folder", type=Path, metavar="DIR", help="state directory of the running daemon"
    )


def run(arguments: argparse.Namespace) -> int:
    """Record it; 1 where it was refused."""
    folder = arguments.folder
    with contextlib.suppress(PermissionError):  # which `ask` meets too, and explains
        if not (folder / WORDS).exists() and (folder.parent / WORDS).exists():
            folder = folder.parent  # the ledger's own folder was named
    correction = Correction(
        verdict=Kind(arguments.verdict),
        by=arguments.by,
        reason=arguments.reason,
        part_id=arguments.part,
        seq=arguments.seq,
        pipeline=arguments.pipeline,
    )
    if problem := correction.problem():
        print(f"edge: {problem}", file=sys.stderr)
        return _USAGE
    said = ask(folder, Override(correction))
    if arguments.json:
        print(msgspec.json.encode(said).decode())
    elif said.refusal:
        print(f"edge: refused: {said.refusal}", file=sys.stderr)
    else:
        print(f"recorded as {said.seq}")
    return 1 if said.refusal else 0


def _place(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError("expected the place of a record, from 1")
    return int(text)
