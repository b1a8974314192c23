"""A TCP proxy between a client and its broker that can part, reset and delay them."""

import asyncio
import contextlib
import socket
import struct
from typing import Self

from edge.mqtt.brokers import LocalBroker


class Proxy:
    """Passes bytes on, until told otherwise; `async with` runs it.

    Attributes:
        port: Where clients connect, on 127.0.0.1.
        connections: Made since the start.
    """

    def __init__(self, broker: LocalBroker) -> None:
        self._broker = broker
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drop everything."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def part(self) -> None:
        """Pass nothing on; connections stand, and nobody is told: a partition."""
        self._open.clear()

    def heal(self) -> None:
        """Pass everything on again, what waited first."""
        self._open.set()

    def reset(self) -> None:
        """Reset all connections: RST, as a firewall or a rebooted router does."""
        for writer in list(self._writers):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            from_far, far = await asyncio.open_connection(self._broker.host, self._broker.port)
            self._writers.add(far)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass(reader, far))
                ways.create_task(self._pass(from_far, writer))
        except (OSError, ExceptionGroup):
            pass  # one side has gone, and so does the other
        finally:
            for each in (writer, far):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._open.wait()
            chunk = await reader.read(1 << 16)
            await self._open.wait()
            if not chunk:
                raise ConnectionResetError("one side has closed")
            writer.write(chunk)
            await writer.drain()
