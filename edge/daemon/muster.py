"""Workers stood up for pipelines that want one; together, where the device has them share it.

The pipelines of a deployment want their workers at the same moments: at the start, and when the
worker that they shared is lost. Whoever comes while a gathering is open stands with the others.
One that comes by itself has a worker by itself: sharing saves memory, and nothing hangs on it.
"""

import asyncio
from pathlib import Path
from typing import Final

from edge.config import DeviceConfig
from edge.contracts.messages import PolicyState
from edge.contracts.plan import PipelinePlan
from edge.daemon.standing import ReadyWorker, Unfit, Wanted, stand_up
from edge.errors import EdgeError

_OPEN_S: Final = 0.05
"""The loss of a worker reaches all its pipelines within one turn or two of the loop."""


class Muster:
    """Stands up workers.

    Args:
        config: The device config.
        cache_dir: Of compiled guests.
    """

    def __init__(self, config: DeviceConfig, cache_dir: Path) -> None:
        self._config = config
        self._cache_dir = cache_dir
        self._open: dict[str, _Gathering] = {}

    async def stand(self, plan: PipelinePlan, policy: PolicyState) -> ReadyWorker:
        """Make a worker ready; the caller ends it.

        Raises:
            DeploymentError: The pipeline cannot stand on this device.
            WorkerGoneError: The process ended, or none can be started.
        """
        if not self._config.inference.share_worker:
            (stood,) = await stand_up((Wanted(plan, policy),), self._config, self._cache_dir)
            if isinstance(stood, EdgeError):
                raise stood
            return stood
        gathering = self._open.get(plan.deployment.digest)
        if gathering is None or gathering.is_left:
            gathering = self._open[plan.deployment.digest] = _Gathering()
            gathering.standing = asyncio.create_task(
                self._stand_up(plan.deployment.digest, gathering), name="worker shared"
            )
        return await gathering.join(Wanted(plan, policy))

    async def _stand_up(self, digest: str, gathering: "_Gathering") -> None:
        try:
            await asyncio.sleep(_OPEN_S)
        finally:
            if self._open.get(digest) is gathering:
                del self._open[digest]
        try:
            stood = await stand_up(gathering.wanted, self._config, self._cache_dir)
        except Exception as bug:  # noqa: BLE001 - each of those who wait raises it
            gathering.fail(bug)
        else:
            await gathering.settle(stood)


class _Gathering:
    """Pipelines of one deployment that want a worker now.

    Attributes:
        wanted: By those that have come.
        standing: Stands them up; ended where nobody waits for it any more.
    """

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []
        self.standing: asyncio.Task[None] | None = None
        self._places: list[asyncio.Future[ReadyWorker]] = []

    @property
    def is_left(self) -> bool:
        """Whether all who came have gone: nobody may join who stands up no more."""
        return all(each.cancelled() for each in self._places)

    async def join(self, wanted: Wanted) -> ReadyWorker:
        """Come, and wait for a worker."""
        place: asyncio.Future[ReadyWorker] = asyncio.get_running_loop().create_future()
        self.wanted.append(wanted)
        self._places.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled() and place.exception() is None:  # it came in this very moment
                await place.result().worker.end(grace_s=0)
            elif self.is_left and self.standing is not None:
                self.standing.cancel()
                await asyncio.wait((self.standing,))
            raise

    async def settle(self, stood: list[ReadyWorker | Unfit]) -> None:
        """Give each its worker, or why it has none; the seat of who has left is given up."""
        for place, each in zip(self._places, stood, strict=True):
            if isinstance(each, EdgeError):
                if not place.done():
                    place.set_exception(each)
            elif place.done():
                await each.worker.end(grace_s=0)
            else:
                place.set_result(each)

    def fail(self, bug: Exception) -> None:
        """Tell all of them of a failure that is none of a deployment."""
        for place in self._places:
            if not place.done():
                place.set_exception(bug)
