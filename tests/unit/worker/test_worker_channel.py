"""The channel's framing: any cut of the stream, and bounds on what the other end may claim."""

import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contracts.frame import ContentType
from edge.contracts.messages import Failed, Forget, Judge, Reference, Stop
from edge.errors import TransportError
from edge.worker.channel import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    PacketReader,
    WorkerEnd,
    decode_for_worker,
    decode_from_worker,
    head,
)

MESSAGES = (
    (Forget("k"), b""),
    (Reference("k", ContentType()), b"\x00\xff" * 300),
    (Judge(7, ContentType(), 1, 2, "k"), b"jpeg"),
    (Stop(), b""),
)
STREAM = b"".join(head(message, len(body)) + body for message, body in MESSAGES)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_packets_come_out_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    reader = PacketReader()
    found = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        found += [
            (decode_for_worker.decode(packet), body)
            for packet, body in reader.feed(STREAM[start:end])
        ]
    assert found == list(MESSAGES)


@pytest.mark.parametrize(
    "lengths", [(MAX_HEAD_BYTES + 1, 0), (0, MAX_BODY_BYTES + 1), (2**32 - 1,) * 2]
)
def test_lengths_out_of_bounds_are_refused_before_anything_is_kept(
    lengths: tuple[int, int],
) -> None:
    raw = struct.pack("<II", *lengths)
    with pytest.raises(TransportError, match="worker channel"):
        list(PacketReader().feed(raw))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(raw)
        with pytest.raises(TransportError):
            WorkerEnd(theirs).receive()


def test_the_workers_end_reads_what_was_sent_and_notices_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = WorkerEnd(theirs)
        ours.sendall(STREAM)
        for message, body in MESSAGES:
            received = end.receive()
            assert received is not None
            assert received[0] == message
            assert bytes(received[1]) == body
        end.send(Failed(7, "guest-trap", "unreachable"))
        reader = PacketReader()
        ((packet, rest),) = reader.feed(ours.recv(4_096))
        assert decode_from_worker.decode(packet) == Failed(7, "guest-trap", "unreachable")
        assert rest == b""
        ours.sendall(STREAM[:5])
        ours.shutdown(socket.SHUT_WR)
        assert end.receive() is None


def test_a_reset_connection_is_an_end_and_no_error() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        end = WorkerEnd(theirs)
        end.send(Failed(1, "overrun", "never read"))
        ours.close()  # with our answer unread: the kernel resets
        assert end.receive() is None
