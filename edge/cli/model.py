"""`edge model`: what a model file holds, and how it does on this box.

`inspect` reads the file and runs nothing; `trial` loads and runs it in a process with limits. Both
hold it to the card `model.toml` that lies beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.contracts.plan import ModelPlan, TensorSpec
from edge.deployment import files
from edge.deployment.card import Card, Tensor, Variant
from edge.deployment.schema import parse
from edge.errors import DeploymentError, IncompatibleError, TrialError
from edge.inference.inspect import Facts, differences, inspect
from edge.inference.trial import RUNS, WALL_S, Report, Request, trial

CARD: Final = "model.toml"
MAX_CARD_BYTES: Final = 256 << 10
MAX_RUNS: Final = 100_000
MAX_THREADS: Final = 64
MAX_WALL_S: Final = 3_600
_SHOWN_OPERATORS: Final = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    looks = actions.add_parser("inspect", help="read a model's graph without running it")
    looks.add_argument("path", type=Path, metavar="FILE|DIR", help="ONNX file, or folder of a card")
    tries = actions.add_parser("trial", help="load and run a model on this box, with limits")
    tries.add_argument("path", type=Path, metavar="DIR", help=f"folder with its {CARD}")
    tries.add_argument("--variant", metavar="NAME", help="one variant of the card; default: all")
    tries.add_argument(
        "--provider",
        default="cpu",
        choices=("cpu", "cuda", "tensorrt", "openvino"),
        help="execution provider, required as the daemon does (default cpu)",
    )
    tries.add_argument("--threads", type=_whole(MAX_THREADS), default=1, metavar="N")
    tries.add_argument("--runs", type=_whole(MAX_RUNS), default=RUNS, metavar="N")
    tries.add_argument(
        "--timeout",
        type=_whole(MAX_WALL_S),
        default=int(WALL_S),
        metavar="SECONDS",
        help="most that each variant may take",
    )
    for action in (looks, tries):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _whole(most: int) -> Any:
    def read(text: str) -> int:
        value = int(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not in 1..{most}")
        return value

    return read


def run(arguments: argparse.Namespace) -> int:
    """Inspect or try; status 1 with a finding."""
    return _inspect(arguments) if arguments.action == "inspect" else _trial(arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    folder = path if path.is_dir() else path.parent
    card = _card(folder) if path.is_dir() or (folder / CARD).exists() else None
    names = [each.file for each in card.model.variants] if card and path.is_dir() else [path.name]
    models: list[dict[str, Any]] = []
    console = Console(soft_wrap=True)
    for name in names:
        findings: list[str] = []
        facts: Facts | None = None
        try:
            facts = inspect(folder / name)
        except IncompatibleError as refused:
            findings.append(str(refused))
        else:
            findings += _against_card(facts, name, card)
        models.append({"file": str(folder / name), "facts": facts, "findings": findings})
        if not arguments.json:
            _show_facts(console, str(folder / name), facts, findings, carded=card is not None)
    if arguments.json:
        print(msgspec.json.encode({"models": models}).decode())
    return int(any(model["findings"] for model in models))


def _against_card(facts: Facts, name: str, card: Card | None) -> list[str]:
    if card is None:
        return []
    variant = next((each for each in card.model.variants if each.file == name), None)
    if variant is None:
        return [f"{CARD} beside it does not name {name}"]
    found = differences(facts, _specs(card.inputs), _specs(card.outputs))
    if facts.sha256 != variant.sha256:
        found.append(f"its sha256 is {facts.sha256}, the card says {variant.sha256}")
    return found


def _show_facts(
    console: Console, file: str, facts: Facts | None, findings: list[str], *, carded: bool
) -> None:
    console.print(f"[bold]{escape(file)}[/bold]")
    if facts is not None:
        table = Table.grid(padding=(0, 2))
        shown = list(facts.operators.items())
        operators = ", ".join(f"{name} {count}" for name, count in shown[:_SHOWN_OPERATORS])
        more = f", {len(shown) - _SHOWN_OPERATORS} more" if len(shown) > _SHOWN_OPERATORS else ""
        for key, value in (
            ("size", f"{facts.bytes:,} bytes, sha256 {facts.sha256[:16]}"),
            ("made by", f"{facts.producer or 'unnamed'}, IR {facts.ir_version}"),
            ("operator sets", ", ".join(f"{k} {v}" for k, v in facts.opsets.items())),
            ("parameters", f"{facts.parameters:,}"),
            ("nodes", f"{facts.nodes}: {operators}{more}"),
            *(("input", str(port)) for port in facts.inputs),
            *(("output", str(port)) for port in facts.outputs),
            ("card", "as it says" if carded and not findings else "none" if not carded else ""),
        ):
            if value:
                table.add_row(f"  {key}", escape(value))
        console.print(table)
    _show_findings(console, findings)


def _show_findings(console: Console, findings: list[str]) -> None:
    for finding in findings:
        console.print(f"  [red]finding[/red]  {escape(finding)}")


def _trial(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.path
    card = _card(folder)
    variants = [each for each in card.model.variants if arguments.variant in (None, each.name)]
    if not variants:
        offered = ", ".join(each.name for each in card.model.variants)
        raise DeploymentError(
            f"{folder / CARD}: has no variant {arguments.variant!r}; it offers {offered}"
        )
    console = Console(soft_wrap=True)
    tried: list[dict[str, Any]] = []
    for variant in variants:
        report, findings = _try(folder, card, variant, arguments)
        tried.append({"variant": variant.name, "report": report, "findings": findings})
        if not arguments.json:
            _show_report(console, f"{card.model.name} {variant.name}", report, findings)
    if arguments.json:
        print(json.dumps({"model": card.model.name, "trials": msgspec.to_builtins(tried)}))
    return int(any(each["findings"] for each in tried))


def _try(
    folder: Path, card: Card, variant: Variant, arguments: argparse.Namespace
) -> tuple[Report | None, list[str]]:
    plan = ModelPlan(
        path=str((folder / variant.file).absolute()),
        sha256=variant.sha256,
        classes=card.model.classes,
        inputs=_specs(card.inputs),
        outputs=_specs(card.outputs),
        provider=arguments.provider,
        require=True,
        threads=arguments.threads,
    )
    try:
        report = trial(Request(plan, arguments.runs, float(arguments.timeout)))
    except TrialError as failed:
        return None, [str(failed)]
    return report, report.findings()


def _show_report(console: Console, name: str, report: Report | None, findings: list[str]) -> None:
    console.print(f"[bold]{escape(name)}[/bold]")
    if report is not None:
        nodes = ", ".join(f"{count} nodes on {where}" for where, count in report.placement.items())
        table = Table.grid(padding=(0, 2))
        for key, value in (
            ("provider", f"{report.provider} ({nodes}), ONNX Runtime {report.runtime}"),
            ("load", f"{report.load_ms} ms, first run {report.first_ms} ms"),
            (
                "latency",
                f"p50 {report.p50_ms} ms, p99 {report.p99_ms} ms, max {report.max_ms} ms of "
                f"{report.runs} runs on {report.threads} thread(s)",
            ),
            ("memory", f"{report.resident_mib} MiB resident, {report.bare_mib} without the model"),
            ("same again", "yes, bit for bit" if report.repeatable else "no"),
        ):
            table.add_row(f"  {key}", escape(value))
        console.print(table)
    _show_findings(console, findings)


def _card(folder: Path) -> Card:
    return parse(files.read(folder.absolute(), CARD, MAX_CARD_BYTES), Card, str(folder / CARD))


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in tensors)
