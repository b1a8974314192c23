"""Arguments that several commands share."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add a command; its own `--help` begins with the summary, as a sentence."""
    end = "" if summary.endswith("?") else "."
    # Not str.capitalize, which takes the capitals of "USB" and "C2SP" away.
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}{end}"
    )
    return parser


def seconds(most_s: float) -> Callable[[str], float]:
    """Read seconds, above 0 and at most `most_s`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= most_s:
            raise argparse.ArgumentTypeError(
                f"expected seconds, above 0 and at most {most_s:g}, found {text!r}"
            )
        return value

    return read


def add_config(parser: argparse.ArgumentParser, what: str = "device config") -> None:
    """Add `--config` and `--set`; `what` names the file in the help."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"{what}, TOML")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key, e.g. broker.port=1884; may be given several times",
    )


def add_deployment(parser: argparse.ArgumentParser) -> None:
    """Add `--deployment`."""
    parser.add_argument(
        "--deployment", type=Path, metavar="DIR", help="deployment folder with its manifest.toml"
    )
