"""Something is done unless an event comes first; a cancellation is swallowed by none of it."""

import asyncio
from pathlib import Path

import pytest
from daemons import CONFIG
from updating import asynchronous

from edge import config
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.inputs import Inputs
from edge.daemon.lineup import Lineup
from edge.daemon.muster import Muster
from edge.daemon.unless import unless


class Slow:
    """Something that goes on until it is cancelled, and then takes until it may end."""

    def __init__(self) -> None:
        self.began, self.ending, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        try:
            self.began.set()
            await asyncio.get_running_loop().create_future()
        finally:
            self.ending.set()
            await self.may_end.wait()
            self.ended = True


@asynchronous
async def test_what_is_done_in_time_is_done_and_its_failure_is_told() -> None:
    async def fail() -> None:
        raise OSError("as told")

    await unless(asyncio.Event(), asyncio.sleep(0))
    with pytest.raises(OSError, match="as told"):
        await unless(asyncio.Event(), fail())


@asynchronous
async def test_what_is_left_has_ended_on_return() -> None:
    event, slow = asyncio.Event(), Slow()
    doing = asyncio.create_task(unless(event, slow.run()))
    await slow.began.wait()
    event.set()
    await slow.ending.wait()
    assert not doing.done()
    slow.may_end.set()
    await doing
    assert slow.ended


@asynchronous
async def test_who_is_cancelled_while_it_ends_is_cancelled() -> None:
    event, slow = asyncio.Event(), Slow()
    doing = asyncio.create_task(unless(event, slow.run()))
    await slow.began.wait()
    event.set()
    await slow.ending.wait()
    doing.cancel()
    slow.may_end.set()
    await asyncio.wait((doing,))
    assert doing.cancelled()


class Retired(ActivePipeline):
    """A pipeline without frames, whose worker takes a while to end."""

    def __init__(self, slow: Slow) -> None:
        self._slow = slow

    async def drain(self, grace_s: float) -> int:
        return 0

    async def keep_worker(self, muster: Muster) -> None:
        await self._slow.run()


@asynchronous
async def test_who_is_cancelled_while_a_pipeline_retires_is_cancelled(tmp_path: Path) -> None:
    slow = Slow()
    pipeline = Retired(slow)
    muster = Muster(config.load(CONFIG), tmp_path)
    lineup = Lineup(lambda _plan: pipeline, Inputs.__new__(Inputs), muster)
    lineup._keepers[pipeline] = asyncio.create_task(pipeline.keep_worker(muster))
    await slow.began.wait()
    retiring = asyncio.create_task(lineup.retire(pipeline, 1.0))
    await slow.ending.wait()
    retiring.cancel()
    await asyncio.sleep(0)
    slow.may_end.set()
    await asyncio.wait((retiring,))
    assert retiring.cancelled()
