"""What a candidate judges in shadow: the frame as its own plan would have seen it."""

import asyncio

import msgspec
import pytest
from daemons import CONFIG, DEPLOYMENT

from edge import config
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, Judged, Loaded, PolicyState
from edge.contracts.plan import PipelinePlan, SignalGrant
from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import DeploymentRef, Kind, Verdict
from edge.daemon.candidate import Candidate
from edge.daemon.intake import Frame
from edge.daemon.outlets import Seen
from edge.daemon.references import Held
from edge.daemon.seat import Seat
from edge.daemon.standing import ReadyWorker
from edge.daemon.worker_process import WorkerProcess
from edge.deployment.folder import load_folder, plans

LOADED = load_folder(DEPLOYMENT)
SETTINGS = config.load(CONFIG)
(PLAN,) = plans(LOADED, SETTINGS)
MS = 1_000_000
LAMP, OVEN = SignalGrant("signal.lamp", 500), SignalGrant("signal.oven", 500)
ACTIVE = msgspec.structs.replace(PLAN, signals=(LAMP, OVEN))
HELD = Held.of(ContentType(), b"reference")
JUDGED = Judged(0, Kind.PASS, "ok", 0.0, (), {"infer": 9.0})
SEEN = Seen(
    HELD,
    (
        SignalValue(1.0, 100 * MS, SignalState.FRESH),
        SignalValue(240.0, 400 * MS, SignalState.FRESH),
    ),
    JUDGED,
)
FRAME = Frame(
    frame_id="f-1",
    part_id="p-1",
    reference_id="board",
    content=ContentType(),
    payload=b"jpeg",
    captured_at_ns=0,
    captured_ns=0,
    arrived_ns=0,
    deadline_ns=0,
    fault=None,
    oddities=(),
    fingerprint=0,
    response_topic=None,
    correlation=None,
    settle=lambda: None,
)
VERDICT = Verdict(
    "box1",
    PLAN.name,
    DeploymentRef("pcb", 1, ""),
    "f-1",
    "p-1",
    Kind.PASS,
    "ok",
    0.0,
    (),
    0,
    {},
    200.0,
    "cpu",
)


class Overheard(Seat):
    """A worker without a process, that passes every frame and keeps what it was asked."""

    def __init__(self, plan: PipelinePlan) -> None:
        super().__init__(WorkerProcess(128), 0, plan, 1 << 20)
        self.asked: list[Judge] = []

    def take_up(self, policy: PolicyState) -> None:
        assert policy == PolicyState()

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        assert (payload, reference) == (b"jpeg", HELD)
        self.asked.append(request)
        self.on_answer(msgspec.structs.replace(JUDGED, ticket=request.ticket))


def asked(plan: PipelinePlan) -> list[Judge]:
    """Shadow the frame by a plan; return what its worker was asked."""

    async def scenario() -> list[Judge]:
        worker = Overheard(plan)
        candidate = Candidate(LOADED, (plan,), SETTINGS, DEPLOYMENT)
        worker.on_answer = candidate._answered
        candidate.readies[plan.name] = ReadyWorker(plan, worker, Loaded("cpu", {}), JUDGED, 0)
        answer = await candidate.shadow(FRAME, VERDICT, SEEN, ACTIVE)
        assert (answer is None) == (not worker.asked)
        return worker.asked

    return asyncio.run(scenario())


def signals(*granted: SignalGrant) -> tuple[SignalValue, ...]:
    (request,) = asked(msgspec.structs.replace(PLAN, signals=granted))
    return request.signals


def test_a_signal_is_found_by_its_name_and_not_by_its_place() -> None:
    lamp, oven = SEEN.signals
    assert signals(LAMP, OVEN) == (lamp, oven)
    assert signals(OVEN, LAMP) == (oven, lamp)
    assert signals(OVEN) == (oven,)


def test_a_signal_that_the_active_plan_has_not_is_absent() -> None:
    lamp, _ = SEEN.signals
    assert signals(SignalGrant("signal.speed", 500), LAMP) == (SignalValue(), lamp)


@pytest.mark.parametrize(
    ("max_age_ms", "state"), [(399, SignalState.STALE), (400, SignalState.FRESH)]
)
def test_a_signals_age_is_held_to_the_candidates_own_grant(
    max_age_ms: int, state: SignalState
) -> None:
    assert signals(SignalGrant("signal.oven", max_age_ms))[0].state is state


def test_a_frame_is_not_judged_beside_the_reference_of_another_name() -> None:
    assert asked(msgspec.structs.replace(ACTIVE, reference="reference.side")) == []
