"""The whole examination, in the order in which an operator would look."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from edge import config
from edge.config import DeviceConfig
from edge.contracts.plan import PipelinePlan
from edge.deployment.folder import check_topics, load_folder, plans
from edge.doctor import broker, certificates, disk, engines, machine, unit
from edge.doctor.check import Check, finding, ok
from edge.errors import ConfigError, DeploymentError


def examine(
    path: Path,
    overrides: tuple[str, ...] = (),
    deployment: Path | None = None,
    wait_s: float | None = None,
) -> Iterator[Check]:
    """Look at everything; each check comes as soon as it is made.

    Args:
        path: The device config.
        overrides: Laid over it, `key=value`.
        deployment: Folder whose models and guests are tried too.
        wait_s: How long a frame of each camera is waited for; None: it is not missed.
    """
    try:
        settings = config.load(path, overrides)
        check_topics(settings.bindings)
    except ConfigError as wrong:
        yield finding(
            "config", f"{wrong.where}: {wrong.problem}", wrong.remedy or "correct it: edge check"
        )
        yield from _box(None, ())
        return
    yield ok("config", f"{path}: sound; device {settings.device.id}")
    pipelines: tuple[PipelinePlan, ...] = ()
    if deployment is not None:
        check, pipelines = _deployment(deployment, settings)
        yield check
    yield from asyncio.run(broker.examine(settings, wait_s))
    yield from certificates.certificates(settings)
    yield from disk.storage(settings.storage.path)
    yield from _box(settings, pipelines)
    yield engines.provider(settings.inference)
    yield from engines.models(pipelines)
    yield engines.guests(pipelines)


def _box(settings: DeviceConfig | None, pipelines: tuple[PipelinePlan, ...]) -> Iterator[Check]:
    yield machine.clock()
    yield machine.processor(settings.inference.threads if settings else 1, len(pipelines))
    yield machine.memory()
    yield machine.temperature()
    yield machine.throttling()
    yield unit.hardening()


def _deployment(folder: Path, settings: DeviceConfig) -> tuple[Check, tuple[PipelinePlan, ...]]:
    try:
        loaded = load_folder(folder)
        found = plans(loaded, settings)
    except (DeploymentError, ConfigError) as unfit:
        text = "see docs/deployments.md; a changed file needs new pins"
        return finding("deployment", str(unfit), text), ()
    ref = loaded.ref
    names = ", ".join(plan.name for plan in found)
    said = f"{ref.name} revision {ref.revision} ({ref.digest[:12]}, unsigned): {names}"
    return ok("deployment", said), found
