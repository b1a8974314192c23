"""The watchdog is fed while every part makes progress, and not a moment longer."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from brokers import until

from edge.config import DeviceConfig, parse
from edge.daemon.liveness import Liveness
from edge.daemon.supervisor import Supervisor
from edge.ledger.ledger import Ledger
from edge.ledger.store import Retention
from edge.ledger.writer import Ask
from edge.observability.systemd import Notifier


def device(folder: Path) -> DeviceConfig:
    return parse({"broker": {"port": 1}, "storage": {"path": str(folder)}}, "test")


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def listen(self) -> list[str]:
        """All that has come so far."""
        while True:
            try:
                self.heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.heard

    def fed(self) -> int:
        """How often the watchdog was."""
        return sum("WATCHDOG=1" in message for message in self.listen())

    def close(self) -> None:
        self._socket.close()


def test_a_part_is_stuck_when_it_has_not_come_round_for_longer_than_it_may() -> None:
    now_s, round_s = 100.0, {"quick": 99.0, "slow": 60.0}
    liveness = Liveness(lambda: now_s)
    liveness.watch("quick", lambda: round_s["quick"], 5.0)
    liveness.watch("slow", lambda: round_s["slow"], 50.0)
    assert liveness.stuck() == []
    now_s = 105.0
    assert liveness.stuck() == ["quick for 6 s (at most 5 s may be)"]
    round_s["quick"] = 105.0
    assert liveness.stuck() == []


def test_the_watchdog_is_fed_until_a_part_is_stuck_and_again_when_it_goes_on(
    tmp_path: Path,
) -> None:
    systemd = Systemd(tmp_path)

    async def scenario() -> None:
        with Notifier(systemd.address, watchdog_interval_s=0.02) as notifier:
            supervisor = Supervisor(device(tmp_path / "state"), (), notifier)
            stands = True
            since = time.monotonic()
            supervisor._liveness.watch(
                "a part", lambda: time.monotonic() if stands else since - 100, 50.0
            )
            running = asyncio.create_task(supervisor.keep_status())
            await until(lambda: systemd.fed() > 5, "the watchdog is fed")
            stands = False
            await until(
                lambda: any("no progress: a part" in said for said in systemd.listen()),
                "systemd is told which part",
            )
            fed = systemd.fed()
            await asyncio.sleep(0.2)  # ten intervals in which a sign of life would have come
            assert systemd.fed() == fed
            stands = True
            await until(lambda: systemd.fed() > fed + 5, "the watchdog is fed again")
            running.cancel()
            await asyncio.wait((running,))

    try:
        asyncio.run(scenario())
    finally:
        systemd.close()


def test_the_ledgers_thread_comes_round_without_work_and_not_while_its_storage_hangs(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ledger = Ledger(
            tmp_path / "ledger", "box1", loop.call_soon_threadsafe, retention=Retention()
        )
        hangs = threading.Event()

        def hang(_store: object) -> Callable[[], None]:
            hangs.wait(120)
            return lambda: None

        try:
            began = time.monotonic()
            await until(lambda: ledger.came_round_at > began, "it comes round, idle")
            ledger._inbox.put(Ask(hang, lambda: None))
            await until(lambda: time.monotonic() - ledger.came_round_at > 2.5, "it hangs")
            hangs.set()
            await until(lambda: time.monotonic() - ledger.came_round_at < 1.0, "it goes on")
        finally:
            hangs.set()
            await asyncio.to_thread(ledger.close, 60.0)

    asyncio.run(scenario())


def test_a_session_without_a_broker_comes_round_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(device(tmp_path), (), Notifier())
        session = supervisor.session
        running = asyncio.create_task(session.run())
        before = session.came_round_at
        await until(lambda: session.came_round_at > before, "it tries again")
        running.cancel()
        await asyncio.wait((running,))

    asyncio.run(scenario())
