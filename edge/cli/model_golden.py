"""`edge model golden`: known inputs run on this box, and what came out written into the card."""

import argparse
import platform
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from edge import durable
from edge.cli.model_plan import CARD, How, add_limits, chosen, planned, read_card
from edge.deployment.card import Card, Variant
from edge.deployment.golden import tables
from edge.errors import DeploymentError, TrialError
from edge.inference.inspect import inspect
from edge.inference.trial import WALL_S, GoldenInput, Request, trial

SEED: Final = 7
_MARK: Final = "\n[[golden]]\n"
_LEVELS: Final = ("avx512_vnni", "avx_vnni", "avx512f", "avx2", "asimddp", "asimd")
"""Instruction sets that ONNX Runtime's kernels differ by, the widest first; of /proc/cpuinfo."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", type=Path, metavar="DIR", help=f"folder with its {CARD}")
    parser.add_argument("--variant", metavar="NAME", help="one variant of the card; default: all")
    parser.add_argument(
        "--seed", type=_seed, default=SEED, metavar="N", help=f"of the pattern (default {SEED})"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"put the tables into {CARD}, in the place of those it has; default: print them",
    )
    add_limits(parser, 1, WALL_S)


def _seed(text: str) -> int:
    """Read a number that a card takes."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at most 18 digits, found {text!r}"
        )
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the model on the CPU, print or write."""
    folder: Path = arguments.path
    if arguments.write and arguments.variant:
        raise DeploymentError("--write renews all golden tables: leave --variant out")
    card = read_card(folder)
    variants = chosen(card, folder, arguments.variant)
    seed, wall_s = arguments.seed, float(arguments.timeout)
    made = [_made(folder, card, each, seed, wall_s) for each in variants]
    if arguments.json:
        print(msgspec.json.encode({"golden": [facts for facts, _ in made]}).decode())
    text = "".join(table for _, table in made)
    if arguments.write:
        write(folder, text)
    elif not arguments.json:
        print(text.lstrip("\n"), end="")
    return 0


def renew(folder: Path) -> None:
    """Run all variants of a card and write what came out into it: the last step of a recipe.

    Raises:
        DeploymentError: The folder has no card.
        TrialError: A variant is refused or fails.
    """
    card = read_card(folder)
    made = [_made(folder, card, each, SEED, WALL_S) for each in card.model.variants]
    write(folder, "".join(table for _, table in made))


def write(folder: Path, text: str) -> None:
    """Put golden tables at the end of a card, in the place of those it has.

    Raises:
        DeploymentError: Something else follows the tables that it has, or it cannot be written.
    """
    path = folder / CARD
    head, mark, rest = path.read_text(encoding="utf-8").partition(_MARK)
    if mark and any(
        line.startswith("[") and not line.startswith(("[[golden]]", "[[golden.outputs]]"))
        for line in rest.splitlines()
    ):
        raise DeploymentError(f"{path}: other tables follow [[golden]]; move them before it")
    try:
        durable.replace(path, (head.rstrip("\n") + "\n" + text).encode(), 0o644)
    except OSError as failed:
        raise DeploymentError(f"{path}: cannot be written: {failed.strerror}") from failed


def _made(
    folder: Path, card: Card, variant: Variant, seed: int, wall_s: float
) -> tuple[dict[str, Any], str]:
    plan = planned(folder, card, variant, How("cpu", True, 1, {}, None, ""))
    report = trial(Request(plan, 1, wall_s, golden=(GoldenInput(seed),)))
    if findings := report.findings():
        raise TrialError(f"{plan.path}: is no golden model: {findings[0]}")
    (outputs,) = report.golden
    quantised = any("Quantize" in name or "QLinear" in name for name in _operators(plan.path))
    made = (report.provider, report.runtime, _machine())
    return (
        {"variant": variant.name, "seed": seed, "outputs": outputs},
        tables(variant.name, seed, outputs, made, quantised=quantised),
    )


def _operators(path: str) -> dict[str, int]:
    return inspect(Path(path)).operators


def _machine() -> str:
    """Architecture and the widest instruction set: what decides how kernels round."""
    text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    known = set(text.split())
    level = next((each for each in _LEVELS if each in known), "")
    return f"{platform.machine()} {level}".strip()
