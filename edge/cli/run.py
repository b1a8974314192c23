"""`edge run`: the daemon."""

import argparse
import asyncio
import os
import sys

from edge import config
from edge.cli.arguments import add_config, add_deployment
from edge.contracts.plan import PipelinePlan
from edge.daemon.running import supervise
from edge.daemon.secrecy import keep_memory_private
from edge.deployment.folder import check_topics, load_folder, plans
from edge.errors import ConfigError, DeploymentError
from edge.observability import log
from edge.observability.systemd import Notifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Run the daemon until SIGTERM: with --deployment a local folder, else what signed updates "
        "have installed (updates.repository of the config)."
    )
    add_config(parser)
    add_deployment(parser)
    parser.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="run the folder although nothing vouches for it; the status says so",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM; a configuration that cannot be used ends with status 78."""
    private = keep_memory_private()
    settings = config.load(arguments.config, tuple(arguments.overrides))
    check_topics(settings.bindings)
    journal = log.goes_to_journal(os.environ.get("JOURNAL_STREAM", ""), sys.stderr.fileno())
    log.configure(settings.log, tty=sys.stderr.isatty(), journal=journal)
    if not private:
        log.get("edge.cli").warning("memory_not_private", detail="the kernel refused it")
    pipelines = _local(arguments, settings) if arguments.deployment else None
    with Notifier.from_environment(os.environ, os.getpid()) as notifier:
        asyncio.run(supervise(settings, pipelines, notifier))
    return 0


def _local(
    arguments: argparse.Namespace, settings: config.DeviceConfig
) -> tuple[PipelinePlan, ...]:
    if arguments.deployment.is_dir() and not arguments.allow_unsigned:
        raise ConfigError(
            "--deployment",
            f"{arguments.deployment} is a local folder, and nothing vouches for it",
            "add --allow-unsigned to run it all the same",
        )
    try:
        return plans(load_folder(arguments.deployment), settings)
    except DeploymentError as unfit:
        raise ConfigError("--deployment", str(unfit)) from unfit
