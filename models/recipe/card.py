"""What every model card is made of; a recipe's own card adds what only it knows.

A card is written by a command, never by hand: every figure in it comes from a report.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from edge.cli.model_golden import renew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

VARIANTS = {"int8": "model.int8.onnx", "fp32": "model.onnx"}
"""The first is what a deployment should take unless it has a reason."""


def whole(
    models: Path,
    reports: dict[str, dict[str, Any]],
    version: str,
    model: dict[str, Any],
    tensors: str,
    thresholds: dict[str, Any],
    rows: Mapping[str, Callable[[str, dict[str, Any]], Iterable[dict[str, Any]]]],
) -> str:
    """The text of a card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
        model: the section of that name, but for the version.
        tensors: inputs, outputs and preprocessing, as TOML.
        thresholds: the section of that name.
        rows: by the name of a table, what gives its rows from a variant and its report.
    """
    return "".join(
        (
            head(model, version),
            variants(models, reports),
            tensors,
            section("thresholds", thresholds),
            *(
                tables(name, rows_of(variant, report))
                for name, rows_of in rows.items()
                for variant, report in reports.items()
            ),
            latency(reports),
        )
    )


def head(model: dict[str, Any], version: str) -> str:
    """The first section: who the model is; `model` holds its name and the rest of the section."""
    rest = {key: value for key, value in model.items() if key != "name"}
    name = model["name"]
    return (
        f"# Written by `python -m models.{name}.recipe.card`: change the recipe, not this file.\n"
        f"[model]\n{lines({'name': name, 'version': version, **rest})}"
    )


def variants(models: Path, names: Iterable[str] = VARIANTS) -> str:
    """The files of the model, with digests."""
    return tables("model.variants", (_variant(models, name) for name in names))


def tables(name: str, rows: Iterable[dict[str, Any]]) -> str:
    """An array of tables."""
    return "".join(f"\n[[{name}]]\n{lines(row)}" for row in rows)


def section(name: str, values: dict[str, Any]) -> str:
    """One table."""
    return f"\n[{name}]\n{lines(values)}"


def latency(reports: dict[str, dict[str, Any]]) -> str:
    """How long each variant took, from reports that hold what `measure_latency` gave."""
    return tables(
        "latency",
        (
            {
                "variant": name,
                "provider": "cpu",
                "threads": report["latency"]["threads"],
                "p50_ms": report["latency"]["p50_ms"],
                "machine": f"{report['latency']['machine']}, shared with other work",
            }
            for name, report in reports.items()
        ),
    )


def verdicts(variant: str, parts: str, found: dict[str, Any], threshold: float) -> dict[str, Any]:
    """One row of verdict-level figures; `found` holds `escape` and `overkill` as rates."""
    return {
        "variant": variant,
        "parts": parts,
        "escape": found["escape"]["rate"],
        "escape_interval": found["escape"]["interval"],
        "overkill": found["overkill"]["rate"],
        "overkill_interval": found["overkill"]["interval"],
        "threshold": threshold,
    }


def lines(values: dict[str, Any]) -> str:
    """Keys and values, one a line."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def count_parameters(model: onnx.ModelProto) -> int:
    """Weights and biases of the convolutions and products in a file, whatever their type."""
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    sizes = {item.name: onnx.numpy_helper.to_array(item).size for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            sizes[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t).size
    counted: set[str] = set()
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            for name in node.input:
                # A quantised weight reaches its convolution through DequantizeLinear.
                producer = producers.get(name)
                through = producer is not None and producer.op_type == "DequantizeLinear"
                counted.add(producer.input[0] if producer is not None and through else name)
    return sum(sizes.get(name, 0) for name in counted)


def _variant(models: Path, name: str) -> dict[str, Any]:
    content = (models / VARIANTS[name]).read_bytes()
    return {
        "name": name,
        "file": VARIANTS[name],
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": count_parameters(onnx.load_model_from_string(content)),
    }


def _toml(value: object) -> str:
    """A TOML value; strings, numbers and lists are written as JSON writes them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def main(
    card: Callable[[Path, dict[str, dict[str, Any]], str], str],
    documentation: str | None,
    names: Iterable[str] = VARIANTS,
) -> None:
    """The command of a recipe's card: reads `reports/`, writes `model.toml`.

    Args:
        card: makes the text of the card from the model's folder, its reports and a version.
        documentation: of the recipe's module.
        names: of the variants that the model has.
    """
    parser = argparse.ArgumentParser(description=(documentation or "").split("\n", 1)[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--version", required=True, help="of the weights")
    arguments = parser.parse_args()
    folder: Path = arguments.models
    reports = {
        name: json.loads((folder / "reports" / f"{name}.json").read_text()) for name in names
    }
    (folder / "model.toml").write_text(card(folder, reports, arguments.version))
    renew(folder)  # golden tensors: known inputs, and what this machine's CPU makes of them
    print(f"wrote {folder / 'model.toml'}")
