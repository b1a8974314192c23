"""`edge model bench`: variants, threads and providers of a model, measured in turn."""

import argparse
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.cli.model_plan import (
    CARD,
    MAX_THREADS,
    How,
    add_limits,
    add_provider,
    flags,
    planned,
    read_card,
    uncarded,
    whole,
)
from edge.contracts.plan import ModelPlan
from edge.errors import DeploymentError
from edge.inference.contest import MAX_ENTRIES, ROUNDS, WALL_S, Contest, Entry, Standings, contest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "path", type=Path, metavar="FILE|DIR", help="ONNX file, or folder of a card: all variants"
    )
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another ONNX file, such as the fp32 beside the int8; may be given several times",
    )
    parser.add_argument(
        "--threads", type=_several(whole(MAX_THREADS)), default=[1], metavar="N,N", help="default 1"
    )
    parser.add_argument(
        "--provider",
        dest="providers",
        type=_several(str),
        default=["cpu"],
        metavar="NAME,NAME",
        help="cpu, cuda, tensorrt, openvino, or the plug-in's (default cpu)",
    )
    add_provider(parser)
    add_limits(parser, ROUNDS, WALL_S)


def _several(read: Any) -> Any:
    def each(text: str) -> list[Any]:
        return [read(part) for part in text.split(",")]

    return each


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; the first entry is what the ratios are of."""
    path: Path = arguments.path
    files = [path] if not path.is_dir() else _variants(path)
    entries = tuple(
        Entry(_name(file, provider, threads), _plan(file, flags(arguments, provider, threads)))
        for file in (*files, *arguments.against)
        for provider in arguments.providers
        for threads in arguments.threads
    )
    if len(entries) > MAX_ENTRIES:
        raise DeploymentError(f"{len(entries)} combinations; at most {MAX_ENTRIES} fit one bench")
    found = contest(Contest(entries, arguments.runs, float(arguments.timeout)))
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        _show(found)
    return 0


def _variants(folder: Path) -> list[Path]:
    return [folder / each.file for each in read_card(folder).model.variants]


def _name(file: Path, provider: str, threads: int) -> str:
    return f"{file.name}, {provider}, {threads} thread{'s' if threads > 1 else ''}"


def _plan(file: Path, how: How) -> ModelPlan:
    """From the card beside it where that names the file, else from the file."""
    if (file.parent / CARD).exists():
        card = read_card(file.parent)
        for variant in card.model.variants:
            if variant.file == file.name:
                return planned(file.parent, card, variant, how)
    return uncarded(file, how)


def _show(found: Standings) -> None:
    table = Table(
        title=f"{found.rounds} rounds in turn, ONNX Runtime {found.runtime}", title_justify="left"
    )
    for column in ("entry", "p50", "p99", "ratio", "load", "nodes"):
        table.add_column(column, justify="left" if column in ("entry", "nodes") else "right")
    for each in found.entries:
        table.add_row(
            escape(each.name),
            f"{each.p50_ms:.2f} ms",
            f"{each.p99_ms:.2f} ms",
            f"{each.ratio:.2f}",
            f"{each.load_ms:.0f} ms",
            ", ".join(f"{count} {name}" for name, count in each.placement.items()),
        )
    Console(soft_wrap=True).print(table)
