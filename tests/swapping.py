"""`edge run` with a second worker that stands ready: the two take turns, when they are told to.

    python swapping.py SWAPS EVERY_MS run --config FILE ...

Everything is the product's, and the exchange is that of a rollout. Only what decides on it is not:
the task that looks for updates waits for a file `go` in the storage folder instead, and then
exchanges the workers so often. The second one judges by the same deployment's next revision.
"""

import asyncio
import sys

from msgspec.structs import replace

from edge.cli.main import main
from edge.daemon.lineup import Former
from edge.daemon.standing import ReadyWorker, stand_up_all
from edge.daemon.supervisor import Supervisor, log


async def take_turns(self: Supervisor) -> None:
    """In the place of `Supervisor.keep_deployments`."""
    swaps, every_s = int(sys.argv[1]), float(sys.argv[2]) / 1e3
    (plan,) = self._plans
    other = replace(
        plan, deployment=replace(plan.deployment, revision=plan.deployment.revision + 1)
    )
    folder = self._config.storage.path
    aside: dict[str, ReadyWorker] = {}
    await stand_up_all((other,), self._config, folder / "guests", aside)
    try:
        log.info("swapping_ready")
        while not (folder / "go").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.05)
        for _ in range(swaps):
            await asyncio.sleep(every_s)
            former = Former(self.lineup.plans, {}, {})
            await self.lineup.exchange(aside, {}, former)
            aside = former.workers
        log.info("swapped", swaps=swaps)
        await asyncio.get_running_loop().create_future()
    finally:
        for ready in aside.values():
            await ready.worker.end(grace_s=0)


if __name__ == "__main__":
    Supervisor.keep_deployments = take_turns  # type: ignore[method-assign]
    sys.exit(main(sys.argv[3:]))
