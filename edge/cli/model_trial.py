"""`edge model trial`: a model loaded, run and measured on this box, in a process with limits."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

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
    chosen,
    configured,
    flags,
    planned,
    read_card,
    show_findings,
    whole,
)
from edge.deployment.card import Card, Variant
from edge.deployment.golden import Parity, compare
from edge.errors import TrialError
from edge.inference.trial import RUNS, WALL_S, Report, Request, trial

_SHOWN_NODES: Final = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", type=Path, metavar="DIR", help=f"folder with its {CARD}")
    parser.add_argument("--variant", metavar="NAME", help="one variant of the card; default: all")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="device config: its provider, options and threads, its folder of compiled engines; "
        "the flags below are then left out",
    )
    parser.add_argument(
        "--provider",
        default="cpu",
        metavar="NAME",
        help="execution provider, required as the daemon does: cpu, cuda, tensorrt, openvino, or "
        "the plug-in's (default cpu)",
    )
    parser.add_argument(
        "--threads", type=whole(MAX_THREADS), default=1, metavar="N",
        help="of ONNX Runtime (default %(default)s)",
    )  # fmt: skip
    add_provider(parser)
    parser.add_argument("--nodes", action="store_true", help="list each node with its provider")
    add_limits(parser, RUNS, WALL_S)


def run(arguments: argparse.Namespace) -> int:
    """Try; status 1 with a finding."""
    folder: Path = arguments.path
    card = read_card(folder)
    how = (
        configured(arguments.config)
        if arguments.config
        else flags(arguments, arguments.provider, arguments.threads)
    )
    console = Console(soft_wrap=True)
    tried: list[dict[str, Any]] = []
    for variant in chosen(card, folder, arguments.variant):
        report, parities, findings = _try(folder, card, variant, how, arguments)
        tried.append(
            {
                "variant": variant.name,
                "report": report,
                "golden": parities,
                "findings": findings,
            }
        )
        if not arguments.json:
            name = f"{card.model.name} {variant.name}"
            _show(console, name, report, parities, nodes=arguments.nodes)
            show_findings(console, findings)
    if arguments.json:
        print(json.dumps({"model": card.model.name, "trials": msgspec.to_builtins(tried)}))
    return int(any(each["findings"] for each in tried))


def _try(
    folder: Path, card: Card, variant: Variant, how: How, arguments: argparse.Namespace
) -> tuple[Report | None, list[Parity], list[str]]:
    golden = [each for each in card.golden if each.variant == variant.name]
    request = Request(
        planned(folder, card, variant, how),
        arguments.runs,
        float(arguments.timeout),
        golden=tuple(each.request(folder) for each in golden),
    )
    try:
        report = trial(request)
    except TrialError as failed:
        return None, [], [str(failed)]
    parities, findings = [], report.findings()
    for each, found in zip(golden, report.golden, strict=True):
        near, against = compare(each, found, report.provider)
        parities += near
        findings += against
    return report, parities, findings


def _show(
    console: Console, name: str, report: Report | None, parities: list[Parity], *, nodes: bool
) -> None:
    console.print(f"[bold]{escape(name)}[/bold]")
    if report is None:
        return
    count = ", ".join(f"{count} nodes on {where}" for where, count in report.placement.items())
    table = Table.grid(padding=(0, 2))
    for key, value in (
        ("provider", f"{report.provider} ({count}), ONNX Runtime {report.runtime}"),
        ("load", f"{report.load_ms} ms, first run {report.first_ms} ms"),
        ("engines", report.engines),
        (
            "latency",
            f"p50 {report.p50_ms} ms, p99 {report.p99_ms} ms, max {report.max_ms} ms of "
            f"{report.runs} runs on {report.threads} thread(s)",
        ),
        ("memory", f"{report.resident_mib} MiB resident, {report.bare_mib} without the model"),
        ("same again", "yes, bit for bit" if report.repeatable else "no"),
        *(("golden", _parity(each)) for each in parities),
        ("golden", "" if parities else "none in the card: `edge model golden` writes them"),
    ):
        if value:
            table.add_row(f"  {key}", escape(value))
    console.print(table)
    if nodes:
        for node in report.nodes[:_SHOWN_NODES]:
            console.print(
                f"    {node.provider}  {escape(node.operator)}  {escape(node.name)}",
                highlight=False,
            )


def _parity(parity: Parity) -> str:
    if parity.identical:
        return f"{parity.output}: bit for bit"
    said = (
        f"{parity.output}: {parity.distance.max_abs:.3g} at most, "
        f"{parity.distance.mean_abs:.3g} on average from the card"
    )
    if parity.from_cpu is not None:
        said += (
            f"; {parity.from_cpu.max_abs:.3g} and {parity.from_cpu.mean_abs:.3g} from the CPU here"
        )
    return said
