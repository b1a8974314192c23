"""What the commands below `edge model` share: the card, and the plan to run a model by.

A plan comes from flags, or with `--config` from a device config, as the daemon would make it.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from edge import config
from edge.contracts.plan import ModelPlan, PluginPlan, TensorSpec
from edge.deployment import files
from edge.deployment.card import Card, Tensor, Variant
from edge.deployment.folder import ENGINES, plugin_plan
from edge.deployment.schema import parse
from edge.errors import DeploymentError
from edge.inference.inspect import inspect

CARD: Final = "model.toml"
MAX_CARD_BYTES: Final = 256 << 10
MAX_RUNS: Final = 100_000
MAX_THREADS: Final = 64
MAX_WALL_S: Final = 3_600


@dataclasses.dataclass(frozen=True, slots=True)
class How:
    """What a model is run with; of `edge.contracts.plan.ModelPlan`."""

    provider: str
    require: bool
    threads: int
    options: dict[str, str]
    plugin: PluginPlan | None
    engines: str
    spinning: bool = False


def add_limits(parser: argparse.ArgumentParser, runs: int, wall_s: float) -> None:
    """Add how often and how long, and `--json`."""
    parser.add_argument(
        "--runs", type=whole(MAX_RUNS), default=runs, metavar="N",
        help="of each entry (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout",
        type=whole(MAX_WALL_S),
        default=int(wall_s),
        metavar="SECONDS",
        help=f"most that it may take (default {int(wall_s)})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_provider(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `How` but the provider's own and the threads."""
    parser.add_argument(
        "--plugin", type=Path, metavar="FILE", help="library of the provider, where it is a plug-in"
    )
    parser.add_argument(
        "--device",
        default="",
        choices=("", "cpu", "gpu", "npu"),
        metavar="KIND",
        help="hardware of the plug-in: cpu, gpu or npu (default: the first that it offers)",
    )
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="provider option; may be given several times",
    )
    parser.add_argument(
        "--engines", type=Path, metavar="DIR", help="where the provider keeps compiled engines"
    )


def whole(most: int) -> Callable[[str], int]:
    """Read a number from 1 to `most`."""

    def read(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number 1..{most}, found {text!r}")
        return int(text)

    return read


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def flags(arguments: argparse.Namespace, provider: str, threads: int) -> How:
    """How the flags say that a model shall run: that provider, and no other."""
    plugin = None
    if arguments.plugin is not None and provider != "cpu":
        plugin = PluginPlan(str(arguments.plugin.absolute()), arguments.device)
    engines = str(arguments.engines.absolute()) if arguments.engines else ""
    options = dict(arguments.options) if provider != "cpu" else {}
    return How(provider, True, threads, options, plugin, engines)


def configured(path: Path) -> How:
    """How a device config says that models shall run."""
    settings = config.load(path)
    inference = settings.inference
    return How(
        inference.provider,
        inference.require,
        inference.threads,
        dict(inference.options),
        plugin_plan(inference),
        str(settings.storage.path.absolute() / ENGINES),
        inference.spinning,
    )


def planned(folder: Path, card: Card, variant: Variant, how: How) -> ModelPlan:
    """The plan of one variant of a card."""
    return ModelPlan(
        path=str((folder / variant.file).absolute()),
        sha256=variant.sha256,
        classes=card.model.classes,
        inputs=specs(card.inputs),
        outputs=specs(card.outputs),
        **{field.name: getattr(how, field.name) for field in dataclasses.fields(how)},
    )


def uncarded(path: Path, how: How) -> ModelPlan:
    """The plan of a file without a card, from what it says of itself.

    Raises:
        IncompatibleError: It is refused.
        DeploymentError: A dimension is dynamic, so that only a card can say it.
    """
    facts = inspect(path)
    for port in (*facts.inputs, *facts.outputs):
        if not all(isinstance(each, int) for each in port.shape):
            raise DeploymentError(
                f"{path}: {port} has a dynamic dimension; write a {CARD} beside it that says its "
                "size, or export with static shapes"
            )
    inputs, outputs = (
        tuple(
            TensorSpec(port.name, port.dtype, tuple(int(each) for each in port.shape))
            for port in ports
        )
        for ports in (facts.inputs, facts.outputs)
    )
    return ModelPlan(
        path=str(path.absolute()),
        sha256=facts.sha256,
        classes=(),
        inputs=inputs,
        outputs=outputs,
        **{field.name: getattr(how, field.name) for field in dataclasses.fields(how)},
    )


def chosen(card: Card, folder: Path, name: str | None) -> list[Variant]:
    """The variants of that name; without a name all.

    Raises:
        DeploymentError: There is none.
    """
    variants = [each for each in card.model.variants if name in (None, each.name)]
    if not variants:
        offered = ", ".join(each.name for each in card.model.variants)
        raise DeploymentError(f"{folder / CARD}: has no variant {name!r}; it offers {offered}")
    return variants


def read_card(folder: Path) -> Card:
    """Read the card of a folder.

    Raises:
        DeploymentError: There is none, or it is not one.
    """
    return parse(files.read(folder.absolute(), CARD, MAX_CARD_BYTES), Card, str(folder / CARD))


def specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    """A card's tensors as the plan has them."""
    return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in tensors)


def show_findings(console: Console, findings: list[str]) -> None:
    """Print what speaks against a model."""
    for finding in findings:
        console.print(f"  [red]finding[/red]  {escape(finding)}")
