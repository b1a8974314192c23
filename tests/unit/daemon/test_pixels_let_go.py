"""A frame's pixels are let go with its verdict: what may wait for longer holds none of them."""

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemons import CONFIG, DEPLOYMENT
from incoming import incoming

from edge import config
from edge.config import BrokerSection, LedgerSection
from edge.contracts.messages import Judge, Judged, Loaded
from edge.contracts.verdict import Kind
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.frame_traces import FrameTraces
from edge.daemon.inputs import Inputs
from edge.daemon.leases import Leases
from edge.daemon.recording import Recording
from edge.daemon.references import Held
from edge.daemon.seat import Seat
from edge.daemon.standing import ReadyWorker
from edge.daemon.throttle import Throttle
from edge.daemon.worker_process import WorkerProcess
from edge.deployment.folder import load_folder, plans
from edge.ledger import ledger
from edge.mqtt.messages import Incoming, Receipt
from edge.mqtt.session import Session
from edge.observability.counters import Counters

SETTINGS = config.load(CONFIG)
(WHOLE,) = plans(load_folder(DEPLOYMENT), SETTINGS)
PLAN = msgspec.structs.replace(WHOLE, reference="", signals=(), actions=(), budget_ms=60_000)
PASSED = Judged(0, Kind.PASS, "ok", 0.0, (), {"infer": 9.0})


class Wire(Session):
    """A session that keeps who receives, and to whose publications the broker says nothing."""

    def __init__(self) -> None:
        super().__init__(BrokerSection(), "box1")
        self.sent: list[tuple[bytes, Any]] = []
        self.receive: list[Callable[[Incoming], None]] = []

    def subscribe(self, topic_filter: str, qos: int, receive: Callable[[Incoming], None]) -> None:
        self.receive.append(receive)

    def publish(self, topic: str, payload: bytes, *, on_done: Any = None, **_: Any) -> bool:
        self.sent.append((payload, on_done))
        return True


class Worker(Seat):
    """A worker without a process, that answers at once, but keeps nothing; or never."""

    answers = True

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        if self.answers:
            self.on_answer(msgspec.structs.replace(PASSED, ticket=request.ticket))


def message(number: int, payload: bytes, now_ns: int) -> Incoming:
    return incoming(
        payload=payload,
        properties={"frame-id": f"f-{number}"},
        arrived_ns=now_ns,
        receipt=Receipt(number, 1),
    )


def test_neither_a_slow_disk_nor_a_silent_broker_keeps_pixels_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_WAITING_BYTES", 0)  # the ledger takes one frame at a time

    async def scenario() -> None:
        wire, counters = Wire(), Counters()
        standing, moving = threading.Event(), threading.Event()

        def stand(_store: object) -> bool:
            standing.set()
            return moving.wait(60)

        recording = Recording(
            LedgerSection(), tmp_path / "ledger", "box1", Wire(), counters, lambda: None
        )
        pipeline = ActivePipeline(
            PLAN,
            SETTINGS,
            wire,
            counters,
            "boot",
            {},
            {},
            recording,
            Leases(tmp_path, lambda *_: True, counters),
            lambda: None,
            FrameTraces(1.0, 1e6, lambda _spans: None, lambda: 0),
        )
        worker = Worker(WorkerProcess(128), 0, PLAN, 1 << 20)
        pipeline.begin_with(ReadyWorker(PLAN, worker, Loaded("cpu", {}), PASSED, 0))
        inputs = Inputs(SETTINGS, wire, Wire(), counters, Throttle(lambda: 0), lambda _key: None)
        inputs.connect(pipeline)

        def arrives(number: int) -> int:
            """Bring a frame; return how often its pixels are held once it was taken in."""
            payload = b"pixels of %d" % number
            before = sys.getrefcount(payload)
            wire.receive[0](message(number, payload, pipeline.now_ns()))
            return sys.getrefcount(payload) - before

        try:
            worker.answers = False
            assert arrives(0) > 0, "it is to be judged"
            assert arrives(0) == 0, "the one that is under way has its pixels"
            worker.answers = True
            recording._ledger._ask(stand, lambda _: None, False)
            assert await asyncio.to_thread(standing.wait, 60)  # or it might take a frame first
            arrives(1)  # the ledger's, which is to digest it
            assert arrives(2) == 0, "its verdict is given, its record kept back"
            assert recording.status()["waiting"] == 2
            assert len(wire.sent) == 2, "the broker has answered neither"
            assert arrives(2) == 0, "it has its verdict, and is not recorded yet"
        finally:
            moving.set()
            await recording.close(5)

    asyncio.run(scenario())
