"""What an evaluation leaves behind: a JSON file that `card` reads, or a check against one.

A check re-runs an evaluation from the committed model and compares every figure; only latencies may
differ, and figures by less than the last digit that is kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

ALLOWED = 1e-9
UNCHECKED = frozenset({"latency"})


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--report` and `--check`."""
    parser.add_argument("--report", type=Path, help="JSON file to write")
    parser.add_argument("--check", type=Path, metavar="REPORT", help="JSON file to agree with")


def finish(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Prints the report; writes it or holds it to another, as asked.

    Raises:
        SystemExit: with status 1, where figures differ from those of `--check`.
    """
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    if arguments.check:
        found = differences(report, json.loads(arguments.check.read_text()))
        print("\n".join(found) or f"all figures are those of {arguments.check}")
        if found:
            raise SystemExit(1)


def differences(found: Any, expected: Any, where: str = "report") -> list[str]:
    """Every place where two reports differ, latencies apart."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted((found.keys() | expected.keys()) - UNCHECKED)
        return [
            line
            for key in keys
            for line in differences(found.get(key), expected.get(key), f"{where}.{key}")
        ]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [
            line
            for index, pair in enumerate(zip(found, expected, strict=True))
            for line in differences(*pair, f"{where}[{index}]")
        ]
    numbers = isinstance(found, int | float) and isinstance(expected, int | float)
    same = abs(found - expected) <= ALLOWED if numbers else found == expected
    return [] if same else [f"{where} is {found!r}, expected {expected!r}"]
