"""Notification of systemd, on a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.observability.systemd import MAX_STATUS_CHARS, Notifier


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@edge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind("\0" + name[1:] if name.startswith("@") else name)
        receiving.settimeout(60)
        yield name, receiving


def test_the_states_arrive_as_systemd_reads_them(listener: tuple[str, socket.socket]) -> None:
    address, receiving = listener
    with Notifier(address) as notifier:
        notifier.status("loading pcb")
        notifier.ready("pcb on cpu")
        notifier.watchdog()
        notifier.stopping("draining")
    received = [receiving.recv(4096) for _ in range(4)]
    assert received == [
        b"STATUS=loading pcb",
        b"READY=1\nSTATUS=pcb on cpu",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=draining",
    ]


def test_a_status_cannot_smuggle_in_a_state_of_its_own(
    listener: tuple[str, socket.socket],
) -> None:
    address, receiving = listener
    with Notifier(address) as notifier:
        notifier.status("bad frame\nREADY=1\n" + "x" * 10_000)
    (line,) = receiving.recv(65_536).splitlines()
    assert line.startswith(b"STATUS=bad frame READY=1 x")
    assert len(line) == len("STATUS=") + MAX_STATUS_CHARS


def test_without_systemd_nothing_is_sent_and_nothing_fails() -> None:
    with Notifier.from_environment({}, os.getpid()) as notifier:
        notifier.ready()
        notifier.watchdog()
        assert not notifier.enabled
        assert notifier.watchdog_interval_s is None
        assert notifier.failed == 0


def test_an_address_of_another_family_is_no_listener() -> None:
    assert not Notifier("vsock:2:1234").enabled


def test_a_listener_that_is_gone_costs_a_count_and_nothing_else(tmp_path: Path) -> None:
    with Notifier(str(tmp_path / "nobody")) as notifier:
        notifier.ready()
        notifier.watchdog()
        assert notifier.failed == 2


def test_a_listener_that_does_not_read_never_blocks_us(
    listener: tuple[str, socket.socket],
) -> None:
    address, _ = listener
    with Notifier(address) as notifier:
        for _ in range(10_000):
            notifier.watchdog()
        assert notifier.failed > 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_systemd_demands(
    environment: dict[str, str], expected: float | None
) -> None:
    with Notifier.from_environment(environment, pid=42) as notifier:
        assert notifier.watchdog_interval_s == expected


def test_a_closed_notifier_is_silent() -> None:
    notifier = Notifier("@edge-test-closed")
    notifier.close()
    notifier.ready()
    assert notifier.failed == 0
