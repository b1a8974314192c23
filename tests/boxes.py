"""The recording half of a daemon in the test's own loop: real ledger, outbox and session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from brokers import until
from ledgers import entry, frame

from edge.config import BrokerSection, LedgerSection
from edge.daemon.recording import Recording
from edge.ledger import reading
from edge.ledger.proving import audited
from edge.ledger.signing import NO_KEYS, Keys
from edge.mqtt.session import Session
from edge.observability.counters import Counters

DEADLINE_S = 60.0


class Box:
    """Use by `box`.

    Attributes:
        committed: Frames whose commit was told.
        recording: What is under test.
        counters: The daemon's.
    """

    def __init__(
        self, folder: Path, broker: BrokerSection, first: int = 1, keys: Keys = NO_KEYS
    ) -> None:
        self.folder = folder / "ledger"
        self.committed: set[int] = set()
        self.counters = Counters()
        self._next = first
        self.session = Session(
            broker,
            "box1",
            on_connected=self._connected,
            on_disconnected=lambda _reason: self.recording.disconnected(),
        )
        section = LedgerSection.model_validate({"frames": {"enabled": False}})
        self.recording = Recording(
            section, self.folder, "box1", self.session, self.counters, lambda: None, keys
        )

    def _connected(self) -> None:
        self.recording.connected()

    async def record(self, count: int) -> None:
        """Record verdicts, and wait until they are committed."""
        numbers = range(self._next, self._next + count)
        self._next += count
        for number in numbers:
            self.recording.record(
                entry(number),
                frame(number),
                lambda number=number: self.committed.add(number),  # type: ignore[misc] # bound now
            )
        await until(lambda: self.committed >= set(numbers), "all is committed", DEADLINE_S)

    async def all_receipted(self) -> None:
        """Wait until the cloud has receipted all."""
        await until(lambda: not self.recording.status()["owed"], "all is receipted", DEADLINE_S)

    def refused(self) -> int:
        """Receipts refused so far."""
        return int(self.counters.snapshot().get("receipts_refused", 0))

    def bodies(self) -> list[bytes]:
        """The records in the ledger, which must be sound."""
        path = reading.find(self.folder)
        assert path is not None
        with reading.opened(path) as ledger:
            report, _ = audited(ledger)
            assert report.finding is None, report.finding
            return [row.body for row in ledger.rows()]


@asynccontextmanager
async def box(
    folder: Path, broker: BrokerSection, *, first: int = 1, keys: Keys = NO_KEYS
) -> AsyncIterator[Box]:
    """A box that is connected; `first` is the number of its first frame, `keys` sign."""
    made = Box(folder, broker, first, keys)
    tasks = [
        asyncio.create_task(made.session.run(), name="session"),
        asyncio.create_task(made.recording.keep_sending(), name="records"),
    ]
    try:
        await until(lambda: made.session.connected, "the box is connected")
        yield made
    finally:
        await made.session.close(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await made.recording.close(5.0) == 0
