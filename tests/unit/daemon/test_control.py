"""The control sockets on a bad day."""

import asyncio
import json
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brokers import until
from structlog.testing import capture_logs

from edge.daemon import running
from edge.daemon.control import CONTROL, Control, Deployments, LearnAnew


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0


async def _done(_: Deployments) -> str:
    return "not today"


async def _learnt(_: LearnAnew, _peer: str) -> str:
    return ""


def test_who_speaks_while_no_descriptor_is_left_is_answered_later_and_ends_no_daemon(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(running._fail_by(stop))
        serving = asyncio.create_task(Control(tmp_path, None, _done, _learnt).serve())
        await until(lambda: listens(tmp_path / CONTROL), "it listens")
        with socket.socket(socket.AF_UNIX) as speaker:
            speaker.setblocking(False)
            with capture_logs() as events, no_descriptor_left():
                await loop.sock_connect(speaker, str(tmp_path / CONTROL))
                await loop.sock_sendall(speaker, b'{"type":"deployments","act":"pin"}\n')
                await until(lambda: bool(events), "the loop has tried to take it")
            assert not stop.done(), stop
            assert {each["event"] for each in events} == {"connection_not_taken"}
            async with asyncio.timeout(30):
                assert json.loads(await loop.sock_recv(speaker, 1_000))["refusal"] == "not today"
        serving.cancel()
        await asyncio.wait((serving,))

    asyncio.run(scenario())
