"""What the line says now: the daemon's status and the last verdicts, heard as one more client.

Verdicts are heard at QoS 0: what a busy page misses is in the ledger, and the broker keeps no queue
for it. Messages that are too large or are no verdict are counted and left.
"""

import asyncio
import os
import time
from collections import deque
from typing import Any, Final

import msgspec

from edge.config import DeviceConfig
from edge.contracts.verdict import Defect, Kind
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session

MAX_VERDICTS: Final = 120
"""Some 30 KB, each second, for each visitor."""
MAX_VERDICT_BYTES: Final = 64 << 10
MAX_STATUS_BYTES: Final = 256 << 10
OUTDATED_INTERVALS: Final = 3
"""A daemon speaks each interval; one that missed so many has gone without its last will."""
_GOODBYE_S: Final = 0.5


class _Said(msgspec.Struct, frozen=True):
    """A verdict as the line hears it; other keys are ignored."""

    pipeline: str
    frame_id: str
    part_id: str
    verdict: Kind
    reason: str
    captured_at_ns: int
    score: float | None = None
    defects: tuple[Defect, ...] = ()
    latency_ms: dict[str, float] = {}
    budget_ms: float = 0.0


class Heard(msgspec.Struct, frozen=True):
    """A verdict, for the page.

    Attributes:
        number: Counts what was heard, from 1.
    """

    number: int
    pipeline: str
    frame_id: str
    part_id: str
    verdict: Kind
    reason: str
    captured_at_ns: int
    score: float | None
    defects: int
    latency_ms: float | None
    budget_ms: float


class Now(msgspec.Struct, frozen=True):
    """What is known now.

    Attributes:
        time_ns: UTC, of this process.
        broker: Why nothing is heard; empty: the broker is there.
        status: The daemon's last word, as it came; None: none yet.
        outdated_s: Age of an online status whose next ones did not come; 0 while it is fresh.
        verdicts: The last ones, newest first.
        unread: Messages that were too large, or not what they should be.
    """

    device: str
    time_ns: int
    broker: str
    status: dict[str, Any] | None
    outdated_s: float
    verdicts: list[Heard]
    unread: int


_verdicts: Final = msgspec.json.Decoder(_Said)
_statuses: Final = msgspec.json.Decoder(dict[str, Any])


class Live:
    """Hears one device. All methods belong to the loop that runs `run`.

    Raises:
        ConfigError: A password, certificate or key file of the broker's section cannot be used.
    """

    def __init__(self, settings: DeviceConfig) -> None:
        self._device = settings.device.id
        self._interval_s = settings.status.interval_s
        self._at = f"{settings.broker.host}:{settings.broker.port}"
        # A client of its own, forgotten by the broker when it goes.
        broker = settings.broker.model_copy(update={"session_expiry_s": 0})
        self._session = Session(broker, f"edge-console-{os.urandom(4).hex()}")
        self._session.subscribe(f"edge/{self._device}/status", 1, self._hear_status)
        self._session.subscribe(f"edge/{self._device}/+/verdict", 0, self._hear_verdict)
        self._status: dict[str, Any] | None = None
        self._verdicts: deque[Heard] = deque(maxlen=MAX_VERDICTS)
        self._number = 0
        self._unread = 0

    async def run(self) -> None:
        """Hear until cancelled."""
        running = asyncio.create_task(self._session.run(), name="broker")
        try:
            await asyncio.shield(running)  # so that it can say goodbye
        finally:
            await self._session.close(_GOODBYE_S)
            running.cancel()

    def now(self) -> Now:
        """Return what is known now."""
        time_ns = time.time_ns()
        trouble = ""
        if not self._session.connected:
            trouble = self._session.last_error or f"broker {self._at}: not connected yet"
        elif self._session.refused_filters:
            refused = ", ".join(sorted(self._session.refused_filters))
            trouble = f"broker {self._at} refuses {refused}: grant it in its access list"
        return Now(
            device=self._device,
            time_ns=time_ns,
            broker=trouble,
            status=self._status,
            outdated_s=self._outdated_s(time_ns),
            verdicts=list(self._verdicts),
            unread=self._unread,
        )

    def _outdated_s(self, time_ns: int) -> float:
        if self._status is None or self._status.get("state") != "online":
            return 0.0
        said_ns = self._status.get("time_ns")
        if not isinstance(said_ns, int):
            return 0.0
        age_s = (time_ns - said_ns) / 1e9
        return age_s if age_s > OUTDATED_INTERVALS * self._interval_s else 0.0

    def _hear_status(self, message: Incoming) -> None:
        self._session.acknowledge(message)
        try:
            if len(message.payload) > MAX_STATUS_BYTES:
                raise ValueError
            self._status = _statuses.decode(message.payload)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            self._unread += 1

    def _hear_verdict(self, message: Incoming) -> None:
        self._session.acknowledge(message)
        try:
            if len(message.payload) > MAX_VERDICT_BYTES:
                raise ValueError
            said = _verdicts.decode(message.payload)
        except (ValueError, RecursionError):
            self._unread += 1
            return
        self._number += 1
        self._verdicts.appendleft(
            Heard(
                number=self._number,
                pipeline=said.pipeline,
                frame_id=said.frame_id,
                part_id=said.part_id,
                verdict=said.verdict,
                reason=said.reason,
                captured_at_ns=said.captured_at_ns,
                score=said.score,
                defects=len(said.defects),
                latency_ms=said.latency_ms.get("total"),
                budget_ms=said.budget_ms,
            )
        )
