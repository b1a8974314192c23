"""Arguments that several commands share."""

import argparse
from pathlib import Path


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
