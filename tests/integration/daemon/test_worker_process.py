"""One worker process as the supervisor sees it: what it is lent, and every way that it ends."""

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from brokers import until
from daemons import CONFIG, DEPLOYMENT, part_jpeg, reference_jpeg

from edge import config
from edge.contracts.frame import ContentType
from edge.contracts.messages import ActionWish, Failed, GuestLine, Judge, Judged, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import Defect, Kind
from edge.daemon.references import ReferenceShelf
from edge.daemon.seat import Seat
from edge.daemon.worker_process import _GREY, WorkerGoneError, WorkerProcess
from edge.deployment.folder import load_folder, plans
from edge.errors import DeploymentError, TrialError
from edge.worker.channel import head

START_S = 120.0
MEMORY_MIB = 4_096
S = 1_000_000_000
(PLAN,) = plans(load_folder(DEPLOYMENT), config.load(CONFIG))


class Bench:
    """A loaded worker and its answers."""

    def __init__(self, worker: Seat) -> None:
        self.worker = worker
        self.answers: list[Judged | Failed] = []
        worker.on_answer = self.answers.append
        self._tickets = 0
        self._shelf = ReferenceShelf(1 << 30, lambda _key, _evicted: None)

    def send(self, seed: int) -> None:
        """Send a good part of a board with the reference of that board."""
        self._tickets += 1
        self._shelf.put(str(seed), ContentType(), reference_jpeg(seed))
        held = self._shelf.find(str(seed))
        assert held is not None
        request = Judge(
            self._tickets,
            ContentType(),
            time.monotonic_ns() + 60 * S,
            time.time_ns(),
            held.key,
            (SignalValue(),),
        )
        self.worker.judge(request, part_jpeg(seed, 0), held)

    async def answer(self, count: int = 1) -> list[Judged | Failed]:
        await until(lambda: len(self.answers) >= count, f"{count} answers")
        return self.answers


@asynccontextmanager
async def standing(folder: Path, reference_bytes: int = 64 << 20) -> AsyncIterator[Bench]:
    """A worker that has loaded and passed its probe."""
    worker = (await WorkerProcess.spawn(MEMORY_MIB)).seat(PLAN, reference_bytes)
    try:
        await worker.load(folder, PolicyState(), START_S)
        await worker.probe(START_S)
        yield Bench(worker)
    finally:
        await worker.end(grace_s=0)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_a_reference_travels_once_and_again_where_it_had_to_give_way(tmp_path: Path) -> None:
    # Room for two encoded references in the worker: the third sends the first away.
    room = len(reference_jpeg(50)) + len(reference_jpeg(51)) + 1_000

    async def scenario() -> None:
        async with standing(tmp_path, room) as bench:
            lent = []
            send = bench.worker._process.send

            def spy(message: Any, body: bytes = b"") -> None:
                lent.append(type(message).__name__)
                send(message, body)

            bench.worker._process.send = spy  # type: ignore[method-assign]
            for seed in (50, 50, 51, 50, 52, 51, 50):
                bench.send(seed)
            answers = await bench.answer(7)
            assert [getattr(answer, "reason", "") for answer in answers] == ["ok"] * 7
            assert [answer.ticket for answer in answers] == [1, 2, 3, 4, 5, 6, 7]
            # 50 and 51 fit; 52 pushes out 51, whose next frame pushes out 50, and so on.
            assert lent.count("Reference") == 5
            assert lent.count("Forget") == 3

    run(scenario)


def test_a_worker_that_is_killed_is_gone_with_its_cause(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with standing(tmp_path) as bench:
            os.kill(bench.worker.pid, signal.SIGKILL)
            async with asyncio.timeout(60):
                assert await bench.worker.gone == "its channel closed"
                assert await bench.worker._process.epitaph() == "killed by SIGKILL"
            bench.send(50)  # into the void, and no error

    run(scenario)


def test_an_idle_worker_that_is_asked_to_stop_ends_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with standing(tmp_path) as bench:
            await bench.worker.end(grace_s=60)
            assert await bench.worker._process.epitaph() == "exit status 0"

    run(scenario)


def test_a_stopped_worker_is_ended_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with standing(tmp_path) as bench:
            os.kill(bench.worker.pid, signal.SIGSTOP)
            async with asyncio.timeout(60):
                await bench.worker.end(grace_s=0.2)
                assert await bench.worker._process.epitaph() == "killed by SIGKILL"

    run(scenario)


def test_a_worker_that_speaks_nonsense_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        for nonsense in (b"\xff" * 8, b"\x01\0\0\0\0\0\0\0\xc1"):
            async with standing(tmp_path) as bench:
                bench.worker._process.data_received(nonsense)
                assert "no message" in await bench.worker.gone
                assert "SIGKILL" in await bench.worker._process.epitaph()

    run(scenario)


GIVEN = Judged(1, Kind.PASS, "ok", 0.5, (), {"infer": 9.0})


def with_box(**changes: object) -> Judged:
    defect = msgspec.structs.replace(Defect("open", 0.5, (1.0, 2.0, 3.0, 4.0)), **changes)
    return msgspec.structs.replace(GIVEN, defects=(defect,))


@pytest.mark.parametrize(
    "answer",
    [
        msgspec.structs.replace(GIVEN, actions=(ActionWish(len(PLAN.actions), 1.0, 5),)),
        msgspec.structs.replace(GIVEN, actions=(ActionWish(-1, 1.0, 5),)),
        msgspec.structs.replace(GIVEN, actions=(ActionWish(0, math.nan, 5),)),
        msgspec.structs.replace(GIVEN, actions=(ActionWish(0, 1.0, -5),)),
        msgspec.structs.replace(GIVEN, actions=(ActionWish(0, 1.0, 5),) * 5),
        msgspec.structs.replace(GIVEN, score=math.nan),
        msgspec.structs.replace(GIVEN, reason="Not a code"),
        msgspec.structs.replace(GIVEN, reason="ok\n"),
        msgspec.structs.replace(GIVEN, stage_ms={"infer": math.inf}),
        msgspec.structs.replace(GIVEN, stage_ms={"infer": sys.float_info.max}),
        msgspec.structs.replace(GIVEN, stage_ms={"total": 0.0}),
        msgspec.structs.replace(GIVEN, stage_ms={"n" * 65: 0.0}),
        msgspec.structs.replace(GIVEN, stage_ms={str(n): 0.0 for n in range(17)}),
        msgspec.structs.replace(GIVEN, lines=(GuestLine("nobody", "text"),)),
        msgspec.structs.replace(GIVEN, lines=(GuestLine("decide", "\x1b[2J"),)),
        msgspec.structs.replace(GIVEN, lines=(GuestLine("decide", "text"),) * 41),
        msgspec.structs.replace(GIVEN, findings="f" * 65),
        msgspec.structs.replace(GIVEN, state_refused="r" * 4_097),
        msgspec.structs.replace(GIVEN, policy=PolicyState(1, bytes(4_097))),
        msgspec.structs.replace(GIVEN, crops=-1),
        with_box(score=math.nan),
        with_box(label="none of the plan's"),
        with_box(box=(0.0, 0.0, math.inf, 1.0)),
        msgspec.structs.replace(GIVEN, defects=with_box().defects * 301),
        Failed(1, "not a code", "detail"),
        Failed(1, "guest-trap", "detail", lines=(GuestLine("nobody", "text"),)),
    ],
)
def test_a_worker_that_says_what_its_plan_has_not_is_given_up_and_not_believed(
    answer: Judged | Failed,
) -> None:
    """It may be one that a guest has broken out into; no number of its may end the supervisor."""

    async def scenario() -> None:
        process = WorkerProcess(MEMORY_MIB)
        worker = process.seat(PLAN, 1 << 20)
        believed: list[Judged | Failed] = []
        worker.on_answer = believed.append
        process.data_received(head(GIVEN) + head(with_box()))
        assert believed == [GIVEN, with_box()], "control"
        process.data_received(head(answer))
        assert len(believed) == 2
        assert "no message" in await worker.gone

    run(scenario)


def test_a_worker_cannot_have_the_supervisor_wait_for_a_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        process = WorkerProcess(MEMORY_MIB)
        worker = process.seat(PLAN, 1 << 20)
        process.data_received(head(GIVEN, 1))
        assert "no message" in await worker.gone

    run(scenario)


def changed(**model: object) -> PipelinePlan:
    return msgspec.structs.replace(PLAN, model=msgspec.structs.replace(PLAN.model, **model))


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (changed(sha256="0" * 64), "UntrustedError"),
        (changed(provider="cuda"), "IncompatibleError"),
        (changed(path="/nowhere.onnx"), "cannot be read"),
    ],
    ids=["another model", "a provider that is not here", "no model"],
)
def test_a_plan_that_cannot_stand_here_is_refused_by_its_name(
    tmp_path: Path, plan: PipelinePlan, said: str
) -> None:
    async def scenario() -> None:
        worker = (await WorkerProcess.spawn(MEMORY_MIB)).seat(plan, 1 << 20)
        try:
            with pytest.raises(DeploymentError, match=said):
                await worker.load(tmp_path, PolicyState(), START_S)
        finally:
            await worker.end(grace_s=0)

    run(scenario)


def test_a_worker_that_dies_or_dawdles_while_it_loads_is_told_from_one_that_fails(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        worker = (await WorkerProcess.spawn(MEMORY_MIB)).seat(PLAN, 1 << 20)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(TrialError, match="loading took longer than"):
            await worker.load(tmp_path, PolicyState(), 0.2)
        with pytest.raises(WorkerGoneError, match=r"during loading: .*killed by SIGKILL"):
            await worker.load(tmp_path, PolicyState(), START_S)
        await worker.end(grace_s=0)

    run(scenario)


def test_a_worker_that_is_killed_takes_its_compiler_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        worker = (await WorkerProcess.spawn(MEMORY_MIB)).seat(PLAN, 1 << 20)
        children = psutil.Process(worker.pid).children
        loading = asyncio.create_task(worker.load(tmp_path, PolicyState(), START_S))
        await until(lambda: bool(children()), "a guest is being compiled")
        (compiler,) = children()
        compiler.suspend()  # it is at it for minutes
        try:
            worker.kill()
            with pytest.raises(WorkerGoneError):
                await loading
            await until(lambda: not compiler.is_running(), "it is gone")
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                compiler.kill()
            await worker.end(grace_s=0)

    run(scenario)


def test_a_probe_waits_in_slices_for_a_worker_that_does_not_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        worker = (await WorkerProcess.spawn(MEMORY_MIB)).seat(PLAN, 1 << 20)
        try:
            await worker.load(tmp_path, PolicyState(), START_S)
            os.kill(worker.pid, signal.SIGSTOP)
            stopped = psutil.Process(worker.pid)
            await until(lambda: stopped.status() == psutil.STATUS_STOPPED, "it is stopped")
            with pytest.raises(TrialError, match="probe frame was not read"):
                await worker.probe(0.5)
            assert worker._process._transport is not None
            # Both images would be 25 times as much, and malloc would keep what they once took.
            assert 0 < worker._process._transport.get_write_buffer_size() <= 3 * len(_GREY)
            assert PLAN.image.max_bytes > 20 * len(_GREY)
        finally:
            await worker.end(grace_s=0)

    run(scenario)


def test_no_process_left_for_a_worker_is_a_loss_and_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))

    async def scenario() -> None:
        with pytest.raises(WorkerGoneError, match="cannot be started"):
            await WorkerProcess.spawn(MEMORY_MIB)

    run(scenario)


def test_no_thread_left_to_wait_for_a_worker_is_a_loss_and_no_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "_make_subprocess_transport", none_left)
        with pytest.raises(WorkerGoneError, match="cannot be started: can't start new thread"):
            await WorkerProcess.spawn(MEMORY_MIB)

    run(scenario)
