"""Workers made ready: started, loaded, and a probe frame judged on the required provider."""

import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from edge.config import DeviceConfig
from edge.contracts.messages import Judged, Loaded, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.daemon.seat import Seat
from edge.daemon.worker_process import WorkerGoneError, WorkerProcess
from edge.errors import DeploymentError, EdgeError
from edge.ledger.entry import Runtime

T = TypeVar("T")
Unfit = DeploymentError | WorkerGoneError


class Wanted(NamedTuple):
    """A pipeline that is to stand, and where its policy goes on."""

    plan: PipelinePlan
    policy: PolicyState = PolicyState()


class ReadyWorker(NamedTuple):
    """A worker that stands.

    Attributes:
        plan: What it judges by.
        worker: The pipeline's seat in it; whoever has this ends it.
        start_ms: From the start of its process to the answer to the probe.
    """

    plan: PipelinePlan
    worker: Seat
    loaded: Loaded
    probe: Judged
    start_ms: int

    @property
    def runtime(self) -> Runtime:
        """What runs its model and guests."""
        return Runtime(self.loaded.versions, self.plan.model.threads, self.plan.model.options)


async def stand_up(
    wanted: Sequence[Wanted], config: DeviceConfig, cache_dir: Path
) -> list[ReadyWorker | Unfit]:
    """Start one worker for one or more pipelines, and make it ready.

    All are loaded before the first is ready: a worker that loads judges nothing.

    Returns:
        For each in turn its seat, ready, or why it has none. Where none is ready, the worker is
        gone.
    """
    began = time.monotonic()
    limits, timeout_s = config.limits, config.deadlines.start_ms / 1e3
    try:
        process = await WorkerProcess.spawn(limits.worker_memory_mib)
    except WorkerGoneError as failed:
        return [failed] * len(wanted)
    try:
        seats = [process.seat(plan, limits.reference_bytes) for plan, _ in wanted]
        loads = [
            await _or_why(seat.load(cache_dir, policy, timeout_s))
            for seat, (_, policy) in zip(seats, wanted, strict=True)
        ]
        stood: list[ReadyWorker | Unfit] = []
        for seat, loaded in zip(seats, loads, strict=True):
            each = await _or_why(_probed(seat, loaded, timeout_s, began))
            stood.append(each)
            if isinstance(each, EdgeError):
                await seat.end(grace_s=0)
    except BaseException:
        await process.end(grace_s=0)
        raise
    return stood


async def _probed(
    seat: Seat, loaded: Loaded | Unfit, timeout_s: float, began: float
) -> ReadyWorker:
    if isinstance(loaded, EdgeError):
        raise loaded
    probe = await seat.probe(timeout_s)
    return ReadyWorker(seat.plan, seat, loaded, probe, round((time.monotonic() - began) * 1e3))


async def stand_up_all(
    plans: tuple[PipelinePlan, ...],
    config: DeviceConfig,
    cache_dir: Path,
    readies: dict[str, ReadyWorker],
) -> None:
    """Make a worker ready for each plan, one after the other, or one for all that share it.

    Args:
        plans: Of pipelines.
        config: The device config.
        cache_dir: Of compiled guests.
        readies: Takes those that stand, also where another cannot.

    Raises:
        DeploymentError: One cannot stand on this device.
        WorkerGoneError: One ended.
    """
    each = tuple(Wanted(plan) for plan in plans)
    groups = (each,) if config.inference.share_worker and each else tuple((one,) for one in each)
    for group in groups:
        stood = await stand_up(group, config, cache_dir)
        readies |= {ready.plan.name: ready for ready in stood if isinstance(ready, ReadyWorker)}
        for unfit in stood:
            if isinstance(unfit, EdgeError):
                raise unfit


async def _or_why(doing: Awaitable[T]) -> T | Unfit:
    try:
        return await doing
    except (DeploymentError, WorkerGoneError) as unfit:
        return unfit
