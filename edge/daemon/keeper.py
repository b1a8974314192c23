"""Keeping a worker standing: started again after each loss, exchanged for another while it runs.

There is one place for a worker, and whoever stands in it is spoken to by dispatch. A loss empties
the place, and another worker by the same plan is stood up for it, sooner or later by how often that
was needed. An exchange fills it with a worker that was made ready elsewhere, between two frames.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from edge.config import DeviceConfig
from edge.contracts.messages import Failed, GuestLine, Judged
from edge.daemon.dispatch import Dispatch
from edge.daemon.intake import Frame
from edge.daemon.muster import Muster
from edge.daemon.outlets import Seen, Successor
from edge.daemon.seat import Seat, unheard
from edge.daemon.standing import ReadyWorker
from edge.daemon.unless import unless
from edge.daemon.worker_process import WorkerGoneError
from edge.errors import DeploymentError, StorageError
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SETTLED_S: Final = 30.0
"""A worker that stood so long was sound: its loss starts the backoff afresh."""
STOP_S: Final = 1.0
"""What an idle worker gets to end by itself."""


class WorkerKeeper:
    """The place of one pipeline's worker.

    Args:
        config: The device config.
        dispatch: Speaks to whoever stands in the place; its plan is what a worker is stood up by.
        counters: The daemon's counters.
        on_use: Called with each worker that takes the place.
        on_words: Called with what an answer brings besides: its guests' lines, a state refused.
        on_loss: Called with the reason when a worker that stood here has ended unasked.
        on_change: Called when readiness or trouble changed.

    Attributes:
        trouble: Why nobody stands in the place; empty while somebody does.
    """

    def __init__(
        self,
        config: DeviceConfig,
        dispatch: Dispatch,
        counters: Counters,
        on_use: Callable[[ReadyWorker], None],
        on_words: Callable[[tuple[GuestLine, ...], str], None],
        on_loss: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.trouble = "starting"
        self._ready: ReadyWorker | None = None
        self._config = config
        self._dispatch = dispatch
        self._counters = counters
        self._on_use = on_use
        self._on_words = on_words
        self._on_loss = on_loss
        self._on_change = on_change
        self._taken = asyncio.Event()
        cause = WorkerGoneError.__name__
        counters.count("workers_lost", by=0, pipeline=dispatch.plan.name, cause=cause)

    @property
    def worker(self) -> Seat | None:
        """Who stands in the place; None while nobody does."""
        return self._ready.worker if self._ready else None

    async def keep(self, muster: Muster) -> None:
        """Keep a worker standing, until cancelled; on return it is gone."""
        failures = 0
        began = time.monotonic()
        try:
            while True:
                try:
                    if self.worker is None:
                        began = time.monotonic()
                        await unless(self._taken, self._stand(muster))
                    await self._while_it_stands()
                except (DeploymentError, WorkerGoneError, StorageError) as failed:
                    if time.monotonic() - began > _SETTLED_S:
                        failures = 0
                    pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                    failures += 1
                    self._tell_loss(failed, pause_s)
                    await unless(self._taken, asyncio.sleep(pause_s))
        finally:
            worker, self._ready = self.worker, None
            self._dispatch.detach()
            if worker is not None:
                await worker.end(STOP_S)

    def begin_with(self, ready: ReadyWorker) -> None:
        """Have a worker that is ready stand in the place, before anyone did."""
        self._use(ready)
        self._dispatch.attach(ready.worker)

    async def exchange(
        self, ready: ReadyWorker, renew: Callable[[Frame], Seen], within_s: float
    ) -> ReadyWorker | None:
        """Give the place to a worker that is ready, between two frames; on return it has it.

        Returns:
            Who stood there before, standing still, and the caller's from now on; None where nobody
            did, or was lost.

        Raises:
            WorkerGoneError: It was lost before, or did not come to it in time; whoever stood there
                stands there still.
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        before: ReadyWorker | None = None

        def done() -> None:
            nonlocal before
            before = self._ready
            self._use(ready)
            taken.set_result(None)

        self._dispatch.exchange(Successor(ready.plan, ready.worker, renew, done))
        await asyncio.wait(
            (taken, ready.worker.gone), timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not taken.done():
            self._dispatch.call_off()
            raise WorkerGoneError("the worker that was to take over did not come to it")
        return before

    def kill(self) -> None:
        """End the worker at once; the next one is started."""
        if self.worker is not None:
            self.worker.kill()

    async def _stand(self, muster: Muster) -> None:
        self._counters.count("workers_started", pipeline=self._dispatch.plan.name)
        ready = await muster.stand(self._dispatch.plan, self._dispatch.policy)
        if self.worker is not None:  # somebody took the place in this very moment
            await ready.worker.end(grace_s=0)
            return
        self._use(ready)
        self._dispatch.attach(ready.worker)

    def _use(self, ready: ReadyWorker) -> None:
        before, self._ready = self.worker, ready
        if before is not None:
            before.on_answer = unheard
        ready.worker.on_answer = self._answered
        self.trouble = ""
        self._taken.set()
        self._on_use(ready)
        log.info(
            "pipeline_ready",
            pipeline=ready.plan.name,
            revision=ready.plan.deployment.revision,
            provider=ready.loaded.provider,
            worker_pid=ready.worker.pid,
            start_ms=ready.start_ms,
            load_ms=ready.loaded.load_ms,
            probe_ms=ready.probe.stage_ms,
            policy_restored=not ready.loaded.state_refused,
        )
        self._on_change()

    async def _while_it_stands(self) -> None:
        """Wait until the worker is lost, which raises, or has given its place to another."""
        worker = self.worker
        assert worker is not None, "whoever was stood up, or took the place"
        self._taken.clear()
        await unless(self._taken, _gone(worker))
        if self.worker is not worker:
            return  # it is whose exchange it was
        # The frames at work get their verdict at once, whatever the worker's end takes.
        self._ready = None
        self._dispatch.detach()
        loss = await worker.loss()
        await worker.end(grace_s=0)
        self._on_loss(str(loss))
        raise loss

    def _tell_loss(self, failed: Exception, pause_s: float) -> None:
        pipeline = self._dispatch.plan.name
        if self.worker is None:
            self.trouble = str(failed)
        self._counters.count("workers_lost", pipeline=pipeline, cause=type(failed).__name__)
        log.error(
            "worker_lost",
            pipeline=pipeline,
            error=type(failed).__name__,
            detail=str(failed),
            next_try_s=pause_s,
        )
        self._on_change()

    def _answered(self, answer: Judged | Failed) -> None:
        self._on_words(answer.lines, answer.state_refused)
        if isinstance(answer, Judged):
            self._dispatch.judged(answer)
        else:
            self._dispatch.failed(answer)


async def _gone(worker: Seat) -> None:
    # Shielded: who waits for it may be cancelled, the worker's end is still to be told.
    await asyncio.shield(worker.gone)
