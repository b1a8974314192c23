"""`edge check`: would this box run with this config, and this deployment on it?"""

import argparse
import json

from edge import config
from edge.cli.arguments import add_config, add_deployment
from edge.contracts.plan import PipelinePlan
from edge.daemon.checkpoints import cosigners_of
from edge.deployment.folder import load_folder, plans
from edge.errors import ConfigError, DeploymentError
from edge.ledger.note import read_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_deployment(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check; status 78 with the finding where something does not fit."""
    settings = config.load(arguments.config, tuple(arguments.overrides))
    cosigners_of(settings.ledger.cosigners)
    for key in (settings.ledger.key, settings.ledger.retiring_key):
        if key is not None:
            read_key(key)
    pipelines: tuple[PipelinePlan, ...] = ()
    if arguments.deployment is not None:
        try:
            pipelines = plans(load_folder(arguments.deployment), settings)
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
    return 0
