"""Pipelines gather for a worker; whoever leaves takes nobody's place along."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from daemons import CONFIG, DEPLOYMENT
from updating import asynchronous

from edge import config
from edge.config import DeviceConfig
from edge.contracts.messages import PolicyState
from edge.daemon import muster
from edge.daemon.muster import Muster
from edge.daemon.standing import ReadyWorker, Unfit, Wanted
from edge.daemon.worker_process import WorkerGoneError
from edge.deployment.folder import load_folder, plans

SETTINGS = config.load(CONFIG, ("inference.share_worker=true",))
(PLAN,) = plans(load_folder(DEPLOYMENT), SETTINGS)


@pytest.fixture
def stood(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pipelines each worker was to be stood up for; none ever stands."""
    asked: list[int] = []

    async def fail(
        wanted: Sequence[Wanted], _config: DeviceConfig, _cache_dir: Path
    ) -> list[ReadyWorker | Unfit]:
        asked.append(len(wanted))
        return [WorkerGoneError("no process left")] * len(wanted)

    monkeypatch.setattr(muster, "stand_up", fail)
    return asked


@asynchronous
async def test_who_comes_right_behind_the_one_who_leaves_has_a_worker(
    tmp_path: Path, stood: list[int]
) -> None:
    gathered = Muster(SETTINGS, tmp_path)
    leaving = asyncio.create_task(gathered.stand(PLAN, PolicyState()))
    await asyncio.sleep(0)
    leaving.cancel()
    coming = [asyncio.create_task(gathered.stand(PLAN, PolicyState())) for _ in range(2)]
    done, _ = await asyncio.wait(coming, timeout=10)
    assert [type(task.exception()) for task in done] == [WorkerGoneError] * 2
    assert stood == [2]
