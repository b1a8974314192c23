"""The channel between supervisor and worker: one local stream socket, framed.

A packet is two little-endian u32 (bytes of head, bytes of body), the MessagePack head, and the
body: image bytes, untouched. Both ends trust each other's framing but not its size: a packet over
the bounds is a bug and ends the channel.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from edge.contracts.messages import FromWorker, Message, ToWorker
from edge.contracts.plan import MAX_IMAGE_BYTES
from edge.errors import TransportError

_LENGTHS: Final = struct.Struct("<II")
MAX_HEAD_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = MAX_IMAGE_BYTES
"""Towards a worker; nothing that comes from one has a body."""
SOCKET_BUFFER_BYTES: Final = 1 << 20
"""Room for a few frames of ordinary size, so that sending one does not wait for the reader."""

_encoder = msgspec.msgpack.Encoder()
decode_for_worker: Final = msgspec.msgpack.Decoder(ToWorker)
decode_from_worker: Final = msgspec.msgpack.Decoder(FromWorker)


def head(message: Message, body_bytes: int = 0) -> bytes:
    """Return the bytes that go before a body of that size."""
    encoded = _encoder.encode(message)
    return _LENGTHS.pack(len(encoded), body_bytes) + encoded


class PacketReader:
    """Cuts a byte stream into packets; for a reader that is told when bytes arrive.

    Args:
        max_body_bytes: A larger body ends the channel.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._buffer = bytearray()
        self._max_body_bytes = max_body_bytes

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (head, body) of each packet that `chunk` completes.

        Raises:
            TransportError: A length is out of bounds.
        """
        self._buffer += chunk
        while len(self._buffer) >= _LENGTHS.size:
            lengths = _LENGTHS.unpack_from(self._buffer)
            head_bytes, body_bytes = _checked(lengths, self._max_body_bytes)
            body_at = _LENGTHS.size + head_bytes
            if len(self._buffer) < body_at + body_bytes:
                return
            packet = bytes(self._buffer[_LENGTHS.size : body_at])
            body = bytes(self._buffer[body_at : body_at + body_bytes])
            del self._buffer[: body_at + body_bytes]
            yield packet, body


class WorkerEnd:
    """The worker's end: blocking, one thread reads, one writes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self) -> tuple[ToWorker, bytearray] | None:
        """Return the next message and its body, or None when the supervisor is gone.

        Raises:
            TransportError: A length is out of bounds.
            msgspec.DecodeError, UnicodeDecodeError: The head is no message.
        """
        lengths = self._read(_LENGTHS.size)
        if lengths is None:
            return None
        head_bytes, body_bytes = _checked(_LENGTHS.unpack(lengths))
        packet, body = self._read(head_bytes), self._read(body_bytes)
        if packet is None or body is None:
            return None
        return decode_for_worker.decode(packet), body

    def send(self, message: FromWorker) -> None:
        """Send a message; a supervisor that is gone is noticed by `receive`.

        Raises:
            OSError: The supervisor is gone.
        """
        self._connection.sendall(head(message))

    def _read(self, size: int) -> bytearray | None:
        received = bytearray(size)
        view = memoryview(received)
        at = 0
        while at < size:
            try:
                count = self._connection.recv_into(view[at:])
            except ConnectionResetError:  # it was killed, and had not read our last answer
                return None
            if count == 0:
                return None
            at += count
        return received


def _checked(lengths: tuple[int, ...], max_body_bytes: int = MAX_BODY_BYTES) -> tuple[int, int]:
    head_bytes, body_bytes = lengths
    if head_bytes > MAX_HEAD_BYTES or body_bytes > max_body_bytes:
        raise TransportError(f"packet of {head_bytes} + {body_bytes} bytes on the worker channel")
    return head_bytes, body_bytes
