"""A worker made ready: started, loaded, and its probe frame judged on the required provider."""

import time
from pathlib import Path
from typing import NamedTuple

from edge.config import DeviceConfig
from edge.contracts.messages import Judged, Loaded, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.daemon.worker_process import WorkerProcess
from edge.ledger.entry import Runtime


class ReadyWorker(NamedTuple):
    """A worker that stands.

    Attributes:
        plan: What it judges by.
        start_ms: From the start of its process to the answer to the probe.
    """

    plan: PipelinePlan
    worker: WorkerProcess
    loaded: Loaded
    probe: Judged
    start_ms: int

    @property
    def runtime(self) -> Runtime:
        """What runs its model and guests."""
        return Runtime(self.loaded.versions, self.plan.model.threads, self.plan.model.options)


async def stand_up(
    plan: PipelinePlan, config: DeviceConfig, cache_dir: Path, policy: PolicyState
) -> ReadyWorker:
    """Start a worker and make it ready; on any failure it is gone.

    Raises:
        DeploymentError: The pipeline cannot stand on this device.
        WorkerGoneError: The process ended, or none can be started.
    """
    began = time.monotonic()
    limits = config.limits
    worker = await WorkerProcess.spawn(plan, limits.reference_bytes, limits.worker_memory_mib)
    try:
        timeout_s = config.deadlines.start_ms / 1e3
        loaded = await worker.load(cache_dir, policy, timeout_s)
        probe = await worker.probe(
            time.monotonic_ns() + config.deadlines.start_ms * 1_000_000, timeout_s
        )
    except BaseException:
        await worker.end(grace_s=0)
        raise
    return ReadyWorker(plan, worker, loaded, probe, round((time.monotonic() - began) * 1e3))
