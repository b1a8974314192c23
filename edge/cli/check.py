"""`edge check`: would this box run with this config, and this deployment on it?"""

import argparse
import json
from pathlib import Path
from typing import Final

from edge import config
from edge.cli.arguments import add_config, add_deployment
from edge.contracts.plan import PipelinePlan, RefinePlan
from edge.daemon.checkpoints import cosigners_of
from edge.deployment import files
from edge.deployment.folder import LoadedDeployment, check_topics, load_folder, plans
from edge.deployment.pins import MANIFEST, MAX_GUEST_BYTES
from edge.errors import ConfigError, DeploymentError, IncompatibleError
from edge.inference.inspect import differences, inspect
from edge.ledger.note import read_key
from edge.wasm.section import declared_pages

_PAGES_IN_A_MIB: Final = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_deployment(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check; status 78 with the finding where something does not fit."""
    settings = config.load(arguments.config, tuple(arguments.overrides))
    check_topics(settings.bindings)
    cosigners_of(settings.ledger.cosigners)
    for key in (settings.ledger.key, settings.ledger.retiring_key):
        if key is not None:
            read_key(key)
    pipelines: tuple[PipelinePlan, ...] = ()
    if arguments.deployment is not None:
        try:
            deployment = load_folder(arguments.deployment)
            _hold_memory(deployment)
            pipelines = plans(deployment, settings)
            _hold_models(pipelines)
        except DeploymentError as unfit:
            raise ConfigError("--deployment", str(unfit)) from unfit
    if arguments.json:
        print(
            json.dumps(
                {
                    "config": str(arguments.config),
                    "device": settings.device.id,
                    "pipelines": [pipeline.name for pipeline in pipelines],
                }
            )
        )
        return 0
    print(f"{arguments.config}: sound; device {settings.device.id}")
    for pipeline in pipelines:
        reference = pipeline.deployment
        print(
            f"pipeline {pipeline.name}: {reference.name} revision {reference.revision} "
            f"({reference.digest[:12]}, unsigned), {pipeline.source} to verdict in "
            f"{pipeline.budget_ms} ms on {pipeline.model.provider}"
        )
        if pipeline.refine is not None:
            print(f"pipeline {pipeline.name}: {_cascade(pipeline, pipeline.refine)}")
        for way, topics in _topics(pipeline, settings).items():
            print(f"  {way:5}  {', '.join(topics)}")
    return 0


def _topics(pipeline: PipelinePlan, settings: config.DeviceConfig) -> dict[str, list[str]]:
    """What a pipeline hears and says on this line, for whoever grants it at the broker."""
    heard = [pipeline.source, *filter(None, [pipeline.reference])]
    heard += [signal.name for signal in pipeline.signals]
    said = [action.name for action in pipeline.actions]
    bound = {name: settings.bindings.find(name) for name in heard + said}
    topics = {name: binding.topic for name, binding in bound.items() if binding is not None}
    verdict = f"edge/{settings.device.id}/{pipeline.name}/verdict"
    return {
        "hears": [topics[name] for name in heard],
        "says": [verdict, *(topics[name] for name in said)],
    }


def _hold_memory(deployment: LoadedDeployment) -> None:
    """Compare the memory that guests declare with what they are granted; their worker does, too.

    Raises:
        IncompatibleError: A guest declares more; every one is named.
    """
    wrong = []
    for name, pipeline in deployment.manifest.pipelines.items():
        for role, guest in pipeline.guests:
            wasm = files.read(deployment.root, guest.path, MAX_GUEST_BYTES, guest.sha256)
            pages = declared_pages(wasm)
            if pages > guest.memory_mib * _PAGES_IN_A_MIB:
                wrong.append(
                    f"pipelines.{name}.{role}.memory_mib is {guest.memory_mib}, and {guest.path} "
                    f"declares {pages / _PAGES_IN_A_MIB:g} MiB (grant that, or build it with less)"
                )
    if wrong:
        raise IncompatibleError(f"{deployment.root / MANIFEST}: {'; '.join(wrong)}")


def _hold_models(pipelines: tuple[PipelinePlan, ...]) -> None:
    """Compare each model file with its card, without running it; its worker does, too.

    Raises:
        IncompatibleError: A file is refused, or is not what its card says; all of it is named.
    """
    for pipeline in pipelines:
        refine = pipeline.refine
        for model in (pipeline.model, *([refine.model] if refine is not None else [])):
            path = Path(model.path)
            if wrong := differences(inspect(path), model.inputs, model.outputs):
                raise IncompatibleError(
                    f"{path}: {'; '.join(wrong)} (write the card as `edge model inspect` shows it)"
                )


def _cascade(pipeline: PipelinePlan, refine: RefinePlan) -> str:
    """How the two models go together, for a person to hold against what they meant."""
    said = [
        f"a second model looks at the {refine.max_crops} strongest findings, {refine.batch} a run",
        f"the policy sees {', '.join(pipeline.classes)}",
    ]
    if refine.drop:
        said.append(f"{', '.join(refine.drop)} drops a finding")
    unknown = [name for name in pipeline.model.classes if name not in refine.model.classes]
    if unknown:
        said.append(
            f"the second model has no word for {', '.join(unknown)}: only findings that it does "
            "not name, or does not look at, stay so"
        )
    return "; ".join(said)
