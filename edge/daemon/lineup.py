"""The pipelines that run: a deployment's, exchanged as a whole for those of another."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edge.contracts.plan import PipelinePlan
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.inputs import Inputs
from edge.daemon.muster import Muster
from edge.daemon.standing import ReadyWorker


class Former(NamedTuple):
    """What an exchange put aside, so that it can be undone at once.

    Attributes:
        plans: Of all pipelines that ran before.
        workers: The workers that stood before, by pipeline; whoever has them ends them.
        parked: Pipelines that the new deployment has not; they get no frames.
    """

    plans: tuple[PipelinePlan, ...]
    workers: dict[str, ReadyWorker]
    parked: dict[str, ActivePipeline]

    @classmethod
    def none(cls) -> "Former":
        """Nothing was put aside."""
        return cls((), {}, {})


class Lineup:
    """The pipelines that run.

    Args:
        make: Makes a pipeline of a plan.
        inputs: Where frames come from.
        muster: Stands up workers.
    """

    def __init__(
        self, make: Callable[[PipelinePlan], ActivePipeline], inputs: Inputs, muster: Muster
    ) -> None:
        self._make = make
        self._inputs = inputs
        self._muster = muster
        self._pipelines: dict[str, ActivePipeline] = {}
        self._keepers: dict[ActivePipeline, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[ActivePipeline]:
        return iter(tuple(self._pipelines.values()))

    def __len__(self) -> int:
        return len(self._pipelines)

    @property
    def plans(self) -> tuple[PipelinePlan, ...]:
        """Of the pipelines that run."""
        return tuple(pipeline.plan for pipeline in self)

    def want(self, plan: PipelinePlan) -> None:
        """Take in what a plan needs beside frames."""
        self._inputs.want(plan)

    async def add(self, plan: PipelinePlan, ready: ReadyWorker | None = None) -> None:
        """Begin a pipeline, with a worker that is ready, where there is one."""
        self._inputs.want(plan)
        pipeline = self._make(plan)
        await pipeline.recall()
        if ready is not None:
            pipeline.begin_with(ready)
        self._pipelines[plan.name] = pipeline
        self._inputs.connect(pipeline)
        self._keep(pipeline)

    async def keep(self) -> None:
        """Keep a worker standing for each pipeline, until cancelled; on return all are gone."""
        async with asyncio.TaskGroup() as self._tasks:
            for pipeline in self:
                self._keep(pipeline)
            await asyncio.get_running_loop().create_future()

    async def exchange(
        self,
        readies: dict[str, ReadyWorker],
        parked: Mapping[str, ActivePipeline],
        former: Former,
    ) -> None:
        """Go on with the pipelines of another deployment, each between two of its frames.

        Args:
            readies: A worker for each of its pipelines; one that has taken its place is removed.
            parked: Pipelines that an earlier exchange put aside; they go on as they were.
            former: Takes what is put aside, also where it fails half way.

        Raises:
            WorkerGoneError: A worker was lost before it came to it; pipelines that were exchanged
                before stay so, and `former` has what undoes it.
        """
        for ready in readies.values():
            self._inputs.want(ready.plan)
        kept = {*readies, *parked}
        for name, ready in tuple(readies.items()):
            pipeline = self._pipelines.get(name)
            if pipeline is None:
                await self.add(ready.plan, ready)
                del readies[name]
                continue
            before = await pipeline.exchange(ready)
            del readies[name]
            if before is not None:
                former.workers[name] = before
            self._inputs.connect(pipeline)
        for name, pipeline in parked.items():
            self._pipelines[name] = pipeline
            self._inputs.connect(pipeline)
        for name in self._pipelines.keys() - kept:
            former.parked[name] = self._pipelines.pop(name)
            self._inputs.disconnect(former.parked[name])

    async def retire(self, pipeline: ActivePipeline, grace_s: float) -> None:
        """End a pipeline that was put aside, once its frames are answered."""
        await pipeline.drain(grace_s)
        keeper = self._keepers.pop(pipeline, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))

    def _keep(self, pipeline: ActivePipeline) -> None:
        if self._tasks is not None and pipeline not in self._keepers:
            self._keepers[pipeline] = self._tasks.create_task(
                pipeline.keep_worker(self._muster), name=f"worker {pipeline.plan.name}"
            )
