"""`edge model`: what a model file holds, and how it does on this box.

`inspect` reads the file and runs nothing; `trial`, `bench` and `golden` load and run it in a
process with limits. All hold it to the card `model.toml` that lies beside it.
"""

import argparse
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.cli import model_bench, model_golden, model_trial
from edge.cli.arguments import add_command
from edge.cli.model_plan import CARD, read_card, show_findings, specs
from edge.deployment.card import Card
from edge.errors import IncompatibleError
from edge.inference.inspect import Facts, differences, inspect

_SHOWN_OPERATORS: Final = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    looks = add_command(actions, "inspect", "read a model's graph without running it")
    looks.add_argument("path", type=Path, metavar="FILE|DIR", help="ONNX file, or folder of a card")
    looks.add_argument("--json", action="store_true", help="print one JSON object")
    looks.set_defaults(act=_inspect)
    for name, module, text in (
        ("trial", model_trial, "load and run a model on this box, with limits"),
        ("bench", model_bench, "measure a model's variants, threads and providers in turn"),
        ("golden", model_golden, "run known inputs and write what comes out into the card"),
    ):
        parser_of = add_command(actions, name, text)
        module.add_arguments(parser_of)
        parser_of.set_defaults(act=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; status 1 with a finding."""
    return int(arguments.act(arguments))


def _inspect(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    folder = path if path.is_dir() else path.parent
    card = read_card(folder) if path.is_dir() or (folder / CARD).exists() else None
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
    found = differences(facts, specs(card.inputs), specs(card.outputs))
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
    show_findings(console, findings)
