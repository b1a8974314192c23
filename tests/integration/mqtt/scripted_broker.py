"""A broker that does what a test tells it, byte by byte: what no real one does on request."""

import asyncio
import ssl
from typing import Self

from edge.config import BrokerSection

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_3 = b"\x20\x02\x00\x00"


class ScriptedBroker:
    """Accepts connections, reads CONNECT, and then does what it is told.

    Args:
        answer: Sent after CONNECT; None: nothing, and the connection stays open.
        behind: Sent right after the answer.
        suback: Reason codes of each SUBACK; None: there is none.
        after_suback: Sent in one write with the SUBACK.
        hang_up: End the connection after the answer.
        tls: Speak TLS.
    """

    def __init__(
        self,
        *,
        answer: bytes | None = CONNACK_5,
        behind: bytes = b"",
        suback: bytes | None = b"\x01",
        after_suback: bytes = b"",
        hang_up: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.behind = behind
        self.suback = suback
        self.after_suback = after_suback
        self.hang_up = hang_up
        self.tls = tls
        self.connects: list[int] = []  # the protocol level of each CONNECT
        self.packets: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections; the next ones are taken."""
        for writer in self._writers:
            writer.close()

    def section(self, **changes: object) -> BrokerSection:
        fields = {"port": self.port, "connect_timeout_s": 5.0, **changes}
        return BrokerSection.model_validate(fields)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            connect = await self._packet(reader)
            self.connects.append(connect[connect.index(b"MQTT") + 4])
            if self.answer is not None:
                writer.write(self.answer + self.behind)
            if self.hang_up:
                return
            while True:
                packet = await self._packet(reader)
                self.packets.append(packet)
                if (
                    packet[0] == 0x82 and self.suback is not None
                ):  # SUBSCRIBE: its packet id lies behind two bytes
                    codes = b"\x00" + self.suback if self.connects[-1] == 5 else self.suback
                    suback = bytes([0x90, 2 + len(codes)]) + packet[2:4] + codes
                    writer.write(suback + self.after_suback)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    @staticmethod
    async def _packet(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(2)
        assert head[1] < 0x80, "this script reads short packets only"
        return head + await reader.readexactly(head[1])
