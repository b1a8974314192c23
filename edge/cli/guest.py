"""`edge guest`: make, build, inspect, test and measure guests.

Exit status 0 good, 1 a finding or a failure, 2 usage.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

import msgspec

from edge.sdk import inspection

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_MEMORY_MIB: Final = 1024
_WASM_MEMORY_MIB: Final = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(dest="guest_command", metavar="COMMAND", required=True)
    _inspect_arguments(commands.add_parser("inspect", help="what a module is, beside the ABI"))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    status: int = arguments.run_guest(arguments)
    return status


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_guest=_inspect)
    _add_module(parser)
    _add_json(parser)


def _inspect(arguments: argparse.Namespace) -> int:
    if not _is_file(arguments.file):
        return EXIT_USAGE
    found = inspection.inspect(arguments.file, arguments.memory_mib)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(found)))
    else:
        print("\n".join(inspection.lines(found)))
    return 0 if found.usable else EXIT_FAILED


def _add_module(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the guest, a .wasm file")
    parser.add_argument(
        "--memory-mib", type=_mebibytes, default=_MEMORY_MIB, metavar="MIB",
        help="memory that the host would grant (default: %(default)d)",
    )  # fmt: skip


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _mebibytes(text: str) -> int:
    return _whole(text, 1, _WASM_MEMORY_MIB)


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number {least}..{most}")
    return int(text)


def _is_file(path: Path) -> bool:
    return path.is_file() or _usage(f"{path}: no such file")


def _usage(problem: str) -> bool:
    print(f"edge guest: {problem}", file=sys.stderr)
    return False
