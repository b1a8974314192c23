"""A pipeline that ends: what its worker has not judged gets its fail-safe, and nobody else pays."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemons import CONFIG, DEPLOYMENT
from incoming import incoming

from edge import config
from edge.config import BrokerSection
from edge.contracts.messages import Judge, Judged, Loaded
from edge.contracts.verdict import Kind, from_json
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.leases import Leases
from edge.daemon.references import Held
from edge.daemon.seat import Seat
from edge.daemon.standing import ReadyWorker
from edge.daemon.worker_process import WorkerProcess
from edge.deployment.folder import load_folder, plans
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability.counters import Counters

SETTINGS = config.load(CONFIG)
(WHOLE,) = plans(load_folder(DEPLOYMENT), SETTINGS)
PLAN = msgspec.structs.replace(WHOLE, reference="", signals=(), actions=(), budget_ms=60_000)
PASSED = Judged(0, Kind.PASS, "ok", 0.0, (), {"infer": 9.0})


class Wire(Session):
    """A session that keeps what it is to publish."""

    def __init__(self) -> None:
        super().__init__(BrokerSection(), "box1")
        self.sent: list[bytes] = []

    def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        self.sent.append(payload)
        return True


class Worker(Seat):
    """A worker without a process, that answers at once or never."""

    def __init__(self, answers: bool) -> None:
        super().__init__(WorkerProcess(128), 0, PLAN, 1 << 20)
        self._answers = answers

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        if self._answers:
            answer = msgspec.structs.replace(PASSED, ticket=request.ticket)
            asyncio.get_running_loop().call_soon(self.on_answer, answer)


def frame(now_ns: int) -> Incoming:
    return incoming(properties={"frame-id": "f-1"}, arrived_ns=now_ns)


@pytest.mark.parametrize(
    ("answers", "grace_s", "reason"), [(True, 60.0, "ok"), (False, 0.0, "worker-lost")]
)
def test_a_verdict_that_our_end_costs_is_given_and_held_against_no_deployment(
    tmp_path: Path, answers: bool, grace_s: float, reason: str
) -> None:
    async def scenario() -> None:
        wire, watched = Wire(), []
        leases = Leases(tmp_path, lambda *_: True, Counters())
        pipeline = ActivePipeline(
            PLAN, SETTINGS, wire, Counters(), "boot", {}, {}, None, leases, lambda: None
        )
        pipeline.on_given = lambda _frame, verdict, _seen: watched.append(verdict.reason)
        pipeline.begin_with(ReadyWorker(PLAN, Worker(answers), Loaded("cpu", {}), PASSED, 0))
        pipeline.receive(frame(pipeline.now_ns()), {}, lambda: None)
        left = await pipeline.drain(grace_s)
        assert [from_json(sent).reason for sent in wire.sent] == [reason]
        assert (watched, left, pipeline.unanswered) == ((["ok"], 0, 0) if answers else ([], 1, 0))

    asyncio.run(scenario())
