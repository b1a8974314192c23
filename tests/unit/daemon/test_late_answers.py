"""An answer that comes late is nobody else's: two who ask one worker share no ticket."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec
from daemons import CONFIG, DEPLOYMENT
from incoming import incoming

from edge import config
from edge.config import BrokerSection
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, Judged, Loaded, PolicyState
from edge.contracts.verdict import Kind, Verdict, from_json
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.candidate import Candidate
from edge.daemon.intake import Frame
from edge.daemon.leases import Leases
from edge.daemon.outlets import Seen
from edge.daemon.references import Held
from edge.daemon.seat import Seat
from edge.daemon.standing import ReadyWorker
from edge.daemon.worker_process import WorkerProcess
from edge.deployment.folder import load_folder, plans
from edge.mqtt.session import Session
from edge.observability.counters import Counters

LOADED, SETTINGS = load_folder(DEPLOYMENT), config.load(CONFIG)
(WHOLE,) = plans(LOADED, SETTINGS)
PLAN = msgspec.structs.replace(WHOLE, reference="", signals=(), actions=(), budget_ms=60_000)
PASSED = Judged(0, Kind.PASS, "ok", 0.0, (), {"infer": 9.0})


class Wire(Session):
    """A session that keeps what it is to publish."""

    def __init__(self) -> None:
        super().__init__(BrokerSection(), "box1")
        self.sent: list[Verdict] = []

    def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        self.sent.append(from_json(payload))
        return True


class Slow(Seat):
    """A worker without a process, that keeps what it was asked and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(WorkerProcess(128), 0, PLAN, 1 << 20)
        self.asked: list[int] = []

    def take_up(self, policy: PolicyState) -> None:
        pass

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        self.asked.append(request.ticket)

    def answers(self, ticket: int, kind: Kind) -> None:
        self.on_answer(msgspec.structs.replace(PASSED, ticket=ticket, verdict=kind))


def test_what_a_candidate_judged_in_shadow_is_no_verdict_of_the_frame_that_follows(
    tmp_path: Path,
) -> None:
    now_ns, at_ns = time.monotonic_ns(), 1_790_000_000_000_000_000
    message = incoming(properties={"frame-id": "f-2"}, arrived_ns=now_ns, arrived_at_ns=at_ns)
    shadowed = Frame(
        *("f-1", "p-1", "", ContentType(), b"jpeg", at_ns, now_ns, now_ns, now_ns),
        *(None, (), 0, None, None, lambda: None),
    )
    judged = Verdict(
        *("box1", PLAN.name, PLAN.deployment, "f-1", "p-1", Kind.PASS, "ok", 0.0, ()),
        *(at_ns, {}, 60_000.0, "cpu"),
    )

    async def scenario() -> None:
        wire, worker = Wire(), Slow()
        ready = ReadyWorker(PLAN, worker, Loaded("cpu", {}), PASSED, 0)
        candidate = Candidate(LOADED, (PLAN,), SETTINGS, tmp_path)
        candidate.readies[PLAN.name] = ready
        # Shadow is over while its last frame is with the worker.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await candidate.shadow(shadowed, judged, Seen(None, (), PASSED), PLAN)
        pipeline = ActivePipeline(
            PLAN,
            SETTINGS,
            wire,
            Counters(),
            "boot",
            {},
            {},
            None,
            Leases(tmp_path, lambda *_: True, Counters()),
            lambda: None,
        )
        pipeline.begin_with(ready)
        pipeline.receive(message, {}, lambda: None)
        late, asked = worker.asked
        worker.answers(late, Kind.PASS)
        assert not wire.sent
        worker.answers(asked, Kind.REJECT)
        assert [(each.frame_id, each.verdict) for each in wire.sent] == [("f-2", Kind.REJECT)]

    asyncio.run(scenario())
