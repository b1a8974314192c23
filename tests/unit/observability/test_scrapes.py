"""A real port, and whoever may knock at it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from brokers import until

from edge.observability.counters import Counters
from edge.observability.scrapes import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Scrapes

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def serving(
    render: Callable[[], bytes] = lambda: b"edge_ready 1\n", listen: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[Scrapes, Counters]]:
    """Scrapes on a free port."""
    counters = Counters()
    scrapes = Scrapes(listen, render, counters)
    task = asyncio.create_task(scrapes.serve())
    try:
        await until(lambda: scrapes.port != 0 or task.done(), "it listens")
        yield scrapes, counters
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def asked(port: int, request: bytes) -> bytes:
    """Send a request and return all that comes, to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        writer.write(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = await reader.read()
    writer.close()
    return answer


def test_figures_are_answered_and_rendered_once_a_second_at_most() -> None:
    rendered = 0

    def render() -> bytes:
        nonlocal rendered
        rendered += 1
        return b"edge_ready 1\n"

    async def scenario() -> None:
        async with serving(render) as (scrapes, _):
            began = asyncio.get_running_loop().time()
            for _ in range(3):
                head, _, body = (await asked(scrapes.port, GET)).partition(b"\r\n\r\n")
                assert head.startswith(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"
                )
                assert body == b"edge_ready 1\n"
            assert rendered <= 1 + int(asyncio.get_running_loop().time() - began)
            head = await asked(scrapes.port, GET.replace(b"GET", b"HEAD"))
            assert head.endswith(b"Content-Length: 13\r\nConnection: close\r\n\r\n")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01 hello\r\n\r\n", b"400"),
        (b"A" * (MAX_REQUEST_BYTES + 1), b"400"),
    ],
)
def test_what_is_no_scrape_is_refused_and_counted(request_: bytes, status: bytes) -> None:
    async def scenario() -> None:
        async with serving() as (scrapes, counters):
            assert (await asked(scrapes.port, request_)).split(b" ")[1] == status
            assert counters.value("scrapes_refused", cause=status.decode()) == 1

    asyncio.run(scenario())


def test_those_who_say_nothing_are_closed_and_the_next_is_served() -> None:
    async def scenario() -> None:
        async with serving() as (scrapes, counters):
            with contextlib.ExitStack() as silent:
                for _ in range(MAX_CONNECTIONS):
                    at = ("127.0.0.1", scrapes.port)
                    silent.enter_context(socket.create_connection(at))
                assert b"edge_ready" in await asked(scrapes.port, GET)
                await until(
                    lambda: counters.value("scrapes_refused", cause="slow") == MAX_CONNECTIONS,
                    "all were closed",
                )

    asyncio.run(scenario())


def test_those_who_read_nothing_are_closed() -> None:
    async def scenario() -> None:
        async with serving(lambda: b"x" * (8 << 20)) as (scrapes, counters):
            with socket.create_connection(("127.0.0.1", scrapes.port)) as deaf:
                deaf.sendall(GET)
                await until(lambda: counters.value("scrapes_refused", cause="slow") == 1, "closed")

    asyncio.run(scenario())


def test_figures_that_cannot_be_made_are_an_answer_of_their_own() -> None:
    async def scenario() -> None:
        async with serving(lambda: b"") as (scrapes, _):
            assert (await asked(scrapes.port, GET)).startswith(b"HTTP/1.1 500 ")

    asyncio.run(scenario())


def test_a_port_that_is_taken_stops_nothing() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            scrapes = Scrapes(f"127.0.0.1:{other.getsockname()[1]}", bytes, Counters())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await scrapes.serve()
            assert scrapes.port == 0

    asyncio.run(scenario())
