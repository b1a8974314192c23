"""Pipelines that share a worker: one process, one model, and everything else as if they did not."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from brokers import until
from daemons import CONFIG, Daemon, Line, line_to
from evil_guests import counting_policy
from updating import Site, deployment, doubled, edited, ending, on_the_line, policy

from edge import config
from edge.contracts.messages import PolicyState
from edge.contracts.plan import PipelinePlan
from edge.daemon.muster import Muster
from edge.daemon.standing import ReadyWorker, Wanted, stand_up
from edge.daemon.worker_process import WorkerGoneError, WorkerProcess
from edge.deployment.folder import load_folder, plans
from edge.deployment.rollout import Event, State
from edge.errors import DeploymentError, TrialError
from edge.mqtt.brokers import LocalBroker

SHARED = "inference.share_worker=true"
SETTINGS = config.load(CONFIG, (SHARED,))
BOTH = ("pcb", "second")


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A deployment of two pipelines that judge the same frames."""
    return deployment(tmp_path / "two", 1, doubled)


@pytest.fixture
def pair(two: Path) -> tuple[PipelinePlan, PipelinePlan]:
    """The plans of these."""
    first, second = plans(load_folder(two), SETTINGS)
    return first, second


async def verdicts(line: Line, name: str) -> dict[str, dict[str, Any]]:
    """A frame's verdict by each pipeline."""
    return {pipeline: await line.verdict(name, pipeline) for pipeline in BOTH}


def test_two_pipelines_have_one_worker_and_their_own_verdicts(
    mosquitto: LocalBroker, tmp_path: Path, two: Path
) -> None:
    async def scenario() -> None:
        async with line_to(mosquitto) as line:
            for part in range(8):
                name = line.inspect(part, defects=("open", "short") if part == 7 else ())
                first, second = (await verdicts(line, name)).values()
                assert (first["reason"], first["verdict"]) == (second["reason"], second["verdict"])
                assert first["defects"] == second["defects"]
                assert line.judgements(name, "pcb") == line.judgements(name, "second") == 1
            assert first["verdict"] == "reject"
            status = await line.box_ready()
            assert {status["pipelines"][p]["worker_pid"] for p in BOTH} == {daemon.worker()}

    with Daemon(mosquitto, tmp_path, deployment=two, budget_ms=0, overrides=(SHARED,)) as daemon:
        run(scenario)


def test_a_worker_that_is_lost_is_lost_to_both_and_comes_back_as_one(
    mosquitto: LocalBroker, tmp_path: Path, two: Path
) -> None:
    async def scenario(number: int) -> None:
        async with line_to(mosquitto, f"line-{number}") as line:
            lost = daemon.worker()

            def end(frame: int) -> None:
                if frame == 10:
                    os.kill(lost, number)

            names = await line.play(30, during=end)
            for pipeline in BOTH:
                reasons = await line.kept(names, pipeline)
                assert set(reasons) <= {"ok", "overrun", "worker-lost", "overload"}

            def stands(said: dict[str, Any]) -> bool:
                pids = {said["pipelines"][p]["worker_pid"] for p in BOTH}
                return said["ready"] and len(pids) == 1 and lost not in pids

            await line.status(stands, "another one for both")
            daemon.worker()
            for name in [line.inspect(1), line.inspect(2)]:
                assert {v["reason"] for v in (await verdicts(line, name)).values()} == {"ok"}

    with Daemon(
        mosquitto,
        tmp_path,
        deployment=two,
        budget_ms=0,
        overrides=(SHARED, "status.interval_s=0.5"),
    ) as daemon:
        for number in (signal.SIGKILL, signal.SIGSTOP):
            asyncio.run(scenario(number))


def test_an_update_exchanges_the_shared_worker_and_a_rollback_too(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        with ending(Site(tmp_path, mosquitto, SHARED)) as site:
            async with on_the_line(site, mosquitto, rate_hz=5) as (line, stream):
                for revision in (2, 3):
                    change = (
                        policy(counting_policy()),
                        edited(r"^\[probation\]$", SCORES),
                        doubled,
                    )
                    step = await site.takes(await site.offer(revision, *change, probation=12))
                    assert step.event is Event.HELD, step
                said = await line.status(lambda s: sorted(s["pipelines"]) == [*BOTH], "both")
                await until(lambda: len(site.daemon.children()) == 1, "one worker is left")
                pids = {p["worker_pid"] for p in said["pipelines"].values()}
                assert len(pids) == 1
                # Its state went over, for each its own.
                last = await verdicts(line, line.inspect(3))
                assert all(v["score"] > 0.2 for v in last.values()), last
                assert site.ask("rollback") == ""
                await until(
                    lambda: site.running() == 2 and site.journal.state is State.IDLE, "2 runs", 120
                )
                await until(lambda: len(site.daemon.children()) == 1, "one worker is left")
                await verdicts(line, line.inspect(4))
            await line.kept(stream.names)

    run(scenario)


SCORES = "[probation]\nmax_score_shift = 1.0"


def lame(plan: PipelinePlan) -> PipelinePlan:
    """A plan that cannot stand anywhere."""
    return msgspec.structs.replace(
        plan, model=msgspec.structs.replace(plan.model, path="/nowhere.onnx")
    )


def test_one_that_cannot_stand_leaves_the_others_where_they_are(
    tmp_path: Path, pair: tuple[PipelinePlan, PipelinePlan]
) -> None:
    async def scenario() -> None:
        first, second = pair
        wanted = (Wanted(lame(first)), Wanted(second))
        unfit, ready = await stand_up(wanted, SETTINGS, tmp_path / "guests")
        assert isinstance(unfit, DeploymentError)
        assert "/nowhere.onnx: cannot be read" in str(unfit)
        assert isinstance(ready, ReadyWorker)
        assert psutil.pid_exists(ready.worker.pid)
        await ready.worker.end(grace_s=60)
        assert not psutil.pid_exists(ready.worker.pid)
        none = await stand_up((Wanted(lame(first)), Wanted(lame(second))), SETTINGS, tmp_path / "g")
        assert [type(each).__name__ for each in none] == ["DeploymentError"] * 2
        assert not psutil.Process().children()

    run(scenario)


def test_the_last_to_leave_ends_it(tmp_path: Path, pair: tuple[PipelinePlan, PipelinePlan]) -> None:
    async def scenario() -> None:
        first, second = await stand_up([Wanted(p) for p in pair], SETTINGS, tmp_path / "guests")
        assert isinstance(first, ReadyWorker)
        assert isinstance(second, ReadyWorker)
        await first.worker.end(grace_s=60)
        await first.worker.end(grace_s=60)
        assert psutil.pid_exists(second.worker.pid)
        await second.worker.end(grace_s=60)
        assert not psutil.pid_exists(second.worker.pid)

    run(scenario)


@asynccontextmanager
async def mustered(
    folder: Path, pair: tuple[PipelinePlan, PipelinePlan]
) -> AsyncIterator[list["asyncio.Task[ReadyWorker]"]]:
    """Both on their way to a worker, of a process that has no child but that."""
    muster = Muster(SETTINGS, folder / "guests")
    coming = [asyncio.create_task(muster.stand(plan, PolicyState())) for plan in pair]
    yield coming
    for task in coming:
        if task.done() and not task.cancelled() and task.exception() is None:
            await task.result().worker.end(grace_s=0)
    assert not psutil.Process().children()


def test_who_comes_at_the_same_moment_stands_with_the_others(
    tmp_path: Path, pair: tuple[PipelinePlan, PipelinePlan]
) -> None:
    async def scenario() -> None:
        async with mustered(tmp_path, pair) as coming:
            first, second = await asyncio.gather(*coming)
            assert first.worker.pid == second.worker.pid
            assert (first.plan, second.plan) == pair

    run(scenario)


@pytest.mark.parametrize("after_s", [0.0, 0.3])
@pytest.mark.parametrize("who", [(0,), (1,), (0, 1)])
def test_who_leaves_before_it_stands_costs_the_others_nothing_and_nothing_is_left_behind(
    tmp_path: Path, pair: tuple[PipelinePlan, PipelinePlan], who: tuple[int, ...], after_s: float
) -> None:
    async def scenario() -> None:
        async with mustered(tmp_path, pair) as coming:
            await asyncio.sleep(after_s)
            for number in who:
                coming[number].cancel()
            await asyncio.wait(coming)
            assert [task.cancelled() for task in coming] == [n in who for n in (0, 1)]

    run(scenario)


def test_those_who_would_wait_behind_one_that_hangs_at_its_load_are_told_at_once(
    tmp_path: Path, pair: tuple[PipelinePlan, PipelinePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = WorkerProcess.spawn

    async def hanging(memory_mib: int) -> WorkerProcess:
        process = await spawn(memory_mib)
        os.kill(process.pid, signal.SIGSTOP)
        return process

    monkeypatch.setattr(WorkerProcess, "spawn", hanging)
    settings = config.load(CONFIG, (SHARED, "deadlines.start_ms=1000"))

    async def scenario() -> None:
        wanted = [Wanted(plan) for plan in (*pair, *pair)]
        stood = await stand_up(wanted, settings, tmp_path / "guests")
        assert [type(each) for each in stood] == [TrialError, *[WorkerGoneError] * 3]

    run(scenario)
