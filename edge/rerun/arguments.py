"""The arguments of `edge ledger replay`; the engines are imported only where it is run."""

import argparse
import math
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.contracts.verdict import Kind

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def add(commands: "Commands") -> None:
    """Add the command."""
    summary = "judge recorded frames again, and compare bit for bit"
    parser = commands.add_parser(
        "replay",
        help=summary,
        description=f"{summary.capitalize()}. Frames are there as far as they were kept. Status 0: "
        "all that could be computed is identical; 1: something differs, or nothing could be.",
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--part", metavar="ID", default="", help="the records of this part")
    chosen.add_argument("--seq", type=_count, metavar="N", default=0, help="the record here")
    chosen.add_argument("--last", type=_count, metavar="N", default=0, help="the last records")
    chosen.add_argument(
        "--since", type=_instant, metavar="TIME", help="from 2026-11-22T06:00 (UTC) or 8h ago on"
    )
    parser.add_argument(
        "--until", type=_instant, metavar="TIME", help="with --since: up to then; default: now"
    )
    parser.add_argument("--pipeline", metavar="NAME", default="", help="of this pipeline only")
    parser.add_argument(
        "--verdict", type=_kind, metavar="KIND", help="recorded as pass, reject or review only"
    )
    parser.add_argument(
        "--deployment",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where the recorded deployment lies; several may be named; one alone is used for "
        "every record, and its differences are told",
    )
    parser.add_argument(
        "--provider",
        choices=("cpu", "cuda", "tensorrt", "openvino"),
        default="",
        help="another execution provider than the recorded one",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what if: pipelines.NAME.decide.parameters.reject=0.6, signals.signal.lamp=0.3",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="state directory, or a copy of its ledger"
    )


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        known = ", ".join(Kind)
        raise argparse.ArgumentTypeError(f"expected one of {known}, found {text!r}") from None


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError("expected a number from 1")
    return int(text)


def _instant(text: str) -> int:
    """Read a time, UTC nanoseconds: ISO 8601, or how long ago (`90m`, `8h`, `7d`)."""
    ago = re.fullmatch(r"([0-9]{1,6})([smhdw])( ago)?", text)
    if ago is not None:
        return _bounded(time.time_ns() - int(ago[1]) * _UNITS_S[ago[2]] * 1_000_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a time such as 2026-11-22T06:00 (UTC), or 90m, 8h, 7d"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _bounded(math.floor(moment.timestamp()) * 1_000_000_000)


def _bounded(instant_ns: int) -> int:
    """Nothing was decided before 1970, nor after 2262, when nanoseconds no longer fit 64 bits."""
    return min(max(instant_ns, 0), (1 << 63) - 1)
