"""`edge console`: the operator's page, as a process of its own beside the daemon."""

import argparse
import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Final

from edge import config
from edge.cli.arguments import add_config
from edge.console.serving import Options, read_token, serve
from edge.daemon.control import Override, ask
from edge.errors import EdgeError
from edge.ledger.entry import Correction
from edge.observability import log

LISTEN: Final = "127.0.0.1:8680"
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[^:\[\]]+)):(?P<port>\d{1,5})"
)
_MAX_PORT: Final = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument(
        "--listen",
        type=_address,
        default=_address(LISTEN),
        metavar="ADDRESS:PORT",
        help=f"where (default {LISTEN}); an address that others reach needs --token-file",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="state directory of the daemon (default: storage.path of the config)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="ask each visitor for the token in its first line, of 16 characters or more",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name that the page may be asked by, beside addresses; may be given often",
    )
    parser.add_argument(
        "--read-only", action="store_true", help="show, and take nobody's word on a verdict"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    settings = config.load(arguments.config, tuple(arguments.overrides))
    journal = log.goes_to_journal(os.environ.get("JOURNAL_STREAM", ""), sys.stderr.fileno())
    log.configure(settings.log, tty=sys.stderr.isatty(), journal=journal)
    host, port = arguments.listen
    state = arguments.state or settings.storage.path
    token = read_token(arguments.token_file) if arguments.token_file else ""
    options = Options(host, port, state, token, frozenset(arguments.name))

    def say(correction: Correction) -> tuple[str, int]:
        try:
            said = ask(state, Override(correction))
        except EdgeError as failed:
            return str(failed), 0
        return said.refusal, said.seq

    asyncio.run(serve(settings, options, None if arguments.read_only else say, _tell))
    return 0


def _tell(address: str) -> None:
    log.get("edge.console").info("console_ready", address=address)


def _address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise argparse.ArgumentTypeError("expected ADDRESS:PORT, e.g. 127.0.0.1:8680")
    host = match["six"] or match["four"]
    return ("127.0.0.1" if host == "localhost" else host), int(match["port"])
