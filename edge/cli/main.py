"""`edge`: finds the command, imports its room alone, and turns errors into exit statuses.

0 done, 1 a finding or a failure, 2 usage, 78 configuration (sysexits' EX_CONFIG; the systemd unit
does not restart on it).
"""

import argparse
import errno
import importlib
import io
import os
import sys
from typing import Final, Protocol

from edge import __version__
from edge.cli.arguments import add_command
from edge.errors import ConfigError, EdgeError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_CONFIG: Final = 78
EXIT_INTERRUPTED: Final = 130

_OUTER: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        *(errno.EIO, errno.ENAMETOOLONG),
    }
)
"""Rights, media, and names that no medium has: nothing that a command could do otherwise, wherever
it meets them."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("edge.demo.command", "play a simulated line through the real daemon and score it"),
    "run": ("edge.cli.run", "run the daemon"),
    "check": ("edge.cli.check", "check a device config, and a deployment against it"),
    "status": ("edge.cli.status", "show what the daemon says of itself, once or live"),
    "console": ("edge.cli.console", "serve the operator's page of this box"),
    "doctor": ("edge.cli.doctor", "examine this box: broker, clock, disk, engines, cameras"),
    "model": ("edge.cli.model", "inspect a model file, or try it on this box"),
    "replay": ("edge.replay.command", "play parts with known truth through a broker, and score"),
    "camera": ("edge.camera.command", "publish a folder, a camera or a stream as frames"),
    "ledger": ("edge.cli.ledger", "recorded verdicts: verify, show, prove, replay, override"),
    "deploy": ("edge.cli.deploy", "deployments of this device: history, why, pin, roll back, USB"),
    "drift": ("edge.cli.drift", "what this device has learnt as usual; learn it anew"),
    "fleet": ("edge.cli.fleet", "many devices: publish deployments to them, collect their records"),
    "bench": ("edge.bench.command", "measure the frame path beside the bare script"),
    "guest": ("edge.cli.guest", "make, build, inspect and test guests"),
}


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run it and return the exit status."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; the console script's entry."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may lack our arrows, and a file's name be no text: no reason to end.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        # Here, where it can be said that it failed; the interpreter's own flush comes too late.
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as wrong:
        print(f"edge: configuration: {_harmless(str(wrong))}", file=sys.stderr)
        return EXIT_CONFIG
    except EdgeError as failed:
        print(f"edge: {_harmless(str(failed))}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, say) has enough.
        _say_no_more()
        return 0
    except OSError as failed:
        if failed.errno not in _OUTER:
            raise
        if failed.filename is None:
            _say_no_more()
        print(f"edge: {failed.filename or 'standard output'}: {failed.strerror}", file=sys.stderr)
        return EXIT_FAILED
    return status


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="edge",
        description="Camera frames in over MQTT, verdicts out within their budget.",
        epilog="edge COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    module: Command | None = None
    for name, (where, summary) in COMMANDS.items():
        subparser = add_command(commands, name, summary)
        if name == next((word for word in words if not word.startswith("-")), ""):
            # Only the chosen command's room is imported: the daemon must not carry OpenCV.
            module = importlib.import_module(where)
            module.add_arguments(subparser)
    if not words:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    arguments = parser.parse_args(words)
    assert module is not None, "argparse accepts no other command"
    return module.run(arguments)


def _say_no_more() -> None:
    """Point stdout elsewhere, so that what is left in its buffer does not fail at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _harmless(sentence: str) -> str:
    """An error's words, some of them from outside: they must not steer the terminal."""
    return "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in sentence
    )


if __name__ == "__main__":
    sys.exit(main())
