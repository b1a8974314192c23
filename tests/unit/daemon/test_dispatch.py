"""Dispatch against a clock that the test turns: one verdict for every frame, in time."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.config import DeadlineSection
from edge.contracts.frame import ContentType, PixelFormat
from edge.contracts.messages import ActionWish, Failed, Judge, Judged, PolicyState
from edge.contracts.plan import GuestPlan, ImagePlan, ModelPlan, Overflow, PipelinePlan
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import DeploymentRef, Kind, Verdict, from_json
from edge.daemon.dispatch import MAX_AT_WORK, Dispatch
from edge.daemon.intake import Fault, Frame
from edge.daemon.outlets import Seen, Successor
from edge.daemon.references import Held
from edge.daemon.remembered import Remembered
from edge.daemon.underway import Underway

MS = 1_000_000
BUDGET_MS = 200
GUEST = GuestPlan("guest.wasm", "00", 1, 10)
PLAN = PipelinePlan(
    name="pcb",
    deployment=DeploymentRef("pcb", 1, "ab"),
    source="camera.top",
    reference="",
    reference_slots=0,
    budget_ms=BUDGET_MS,
    fail_safe=Kind.REVIEW,
    overflow=Overflow.LATEST,
    queue_frames=2,
    image=ImagePlan(PixelFormat.GRAY8, 64, 64),
    model=ModelPlan("model.onnx", "00", ("open",), (), ()),
    preprocess=GUEST,
    postprocess=GUEST,
    decide=GUEST,
)


class Alarm:
    """An entry of the test's own clock."""

    def __init__(self, instant_ns: int, act: Callable[[], None]) -> None:
        self.instant_ns = instant_ns
        self.act = act
        self.live = True

    def cancel(self) -> None:
        self.live = False


class Line:
    """The outlets of a dispatch under test: what went out, and a clock to turn."""

    def __init__(self, plan: PipelinePlan = PLAN) -> None:
        self.now = 1_000 * MS
        self.timers: list[Alarm] = []
        self.published: list[tuple[str, Verdict, bool, int]] = []
        self.acted: list[tuple[ActionWish, ...]] = []
        self.noted: list[str] = []
        self.hangs = 0
        self.settled: list[str] = []
        self.underway = Underway()
        self.remembered = Remembered(1_000)
        self.dispatch = Dispatch(
            "box1", plan, DeadlineSection(), self.remembered, self, self.underway
        )
        self.worker: Worker | None = None

    def now_ns(self) -> int:
        return self.now

    def call_at(self, instant_ns: int, act: Callable[[], None]) -> Alarm:
        timer = Alarm(instant_ns, act)
        self.timers.append(timer)
        return timer

    def give(self, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen) -> None:
        assert from_json(encoded) == verdict
        assert verdict.budget_ms == BUDGET_MS
        assert not seen.signals or verdict.deployment.revision > PLAN.deployment.revision
        self.published.append((frame.frame_id, verdict, False, self.now))
        frame.settle()

    def repeat(self, frame: Frame, encoded: bytes) -> None:
        self.published.append((frame.frame_id, from_json(encoded), True, self.now))
        frame.settle()

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        self.acted.append(wishes)

    def note(self, reason: str, frame: Frame, detail: str) -> None:
        assert detail
        self.noted.append(reason)

    def worker_hangs(self, detail: str) -> None:
        self.hangs += 1

    def turn_to(self, instant_ns: int) -> None:
        while due := sorted(
            (t for t in self.timers if t.live and t.instant_ns <= instant_ns),
            key=lambda t: t.instant_ns,
        ):
            due[0].live = False
            self.now = max(self.now, due[0].instant_ns)
            due[0].act()
        self.now = max(self.now, instant_ns)

    def turn(self, ms: float) -> None:
        self.turn_to(self.now + int(ms * MS))

    def ready(self) -> "Worker":
        self.worker = Worker()
        self.dispatch.attach(self.worker)
        return self.worker

    def send(
        self,
        frame_id: str,
        *,
        age_ms: float = 0,
        fault: Fault | None = None,
        fingerprint: int = 0,
        reference: Held | None = None,
    ) -> None:
        frame = self.frame(frame_id, age_ms=age_ms, fault=fault, fingerprint=fingerprint)
        self.dispatch.submit(frame, reference, ())

    def frame(
        self,
        frame_id: str,
        *,
        age_ms: float = 0,
        fault: Fault | None = None,
        fingerprint: int = 0,
    ) -> Frame:
        captured = self.now - int(age_ms * MS)
        return Frame(
            frame_id=frame_id,
            part_id="",
            reference_id="",
            content=ContentType(),
            payload=b"jpeg",
            captured_at_ns=captured,
            captured_ns=captured,
            arrived_ns=self.now,
            deadline_ns=captured + BUDGET_MS * MS,
            fault=fault,
            oddities=(),
            fingerprint=fingerprint,
            response_topic=None,
            correlation=None,
            settle=lambda: self.settled.append(frame_id),
        )

    def verdicts(self, frame_id: str) -> list[Verdict]:
        return [v for name, v, again, _ in self.published if name == frame_id and not again]

    def reason(self, frame_id: str) -> str:
        (verdict,) = self.verdicts(frame_id)
        return verdict.reason


class Worker:
    """A worker's port that keeps what it is sent."""

    provider = "CPUExecutionProvider"

    def __init__(self) -> None:
        self.requests: list[Judge] = []
        self.taken_up: list[PolicyState] = []

    def take_up(self, policy: PolicyState) -> None:
        self.taken_up.append(policy)

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        assert payload == b"jpeg"
        assert request.reference == (reference.key if reference else "")
        self.requests.append(request)


def judged(ticket: int, **changes: object) -> Judged:
    return msgspec.structs.replace(
        Judged(ticket, Kind.PASS, "ok", 0.0, (), {"infer": 9.0}, policy=PolicyState(1, b"s")),
        **changes,
    )


@pytest.fixture
def line() -> Line:
    return Line()


def test_a_judged_frame_gets_the_workers_verdict_and_no_fail_safe(line: Line) -> None:
    worker = line.ready()
    line.send("a")
    line.turn(12)
    line.dispatch.judged(judged(worker.requests[0].ticket))
    line.turn(1_000)
    assert line.reason("a") == "ok"
    latency = line.verdicts("a")[0].latency_ms
    assert latency["total"] == 12.0
    assert latency["infer"] == 9.0
    assert latency["channel"] == 3.0
    assert line.settled == ["a"]


def test_a_silent_worker_costs_the_fail_safe_before_the_deadline(line: Line) -> None:
    line.ready()
    line.send("a")
    line.turn(1_000)
    assert line.reason("a") == "overrun"
    assert line.verdicts("a")[0].verdict is Kind.REVIEW
    assert line.published[0][3] <= (1_000 + BUDGET_MS) * MS


def test_an_answer_after_the_fail_safe_is_counted_and_not_published(line: Line) -> None:
    worker = line.ready()
    line.send("a")
    line.turn(190)
    line.dispatch.judged(judged(worker.requests[0].ticket, actions=(ActionWish(0, 1.0, 5),)))
    assert len(line.published) == 1
    assert line.noted == ["overrun", "late"]
    assert line.acted == []


def test_a_worker_silent_long_past_a_deadline_is_reported_as_hanging_once(line: Line) -> None:
    line.ready()
    line.send("a")
    line.turn(BUDGET_MS + DeadlineSection().hang_ms - 1)
    assert line.hangs == 0
    line.turn(2)
    assert line.hangs == 1


def test_a_worker_that_answered_late_is_not_reported_as_hanging(line: Line) -> None:
    worker = line.ready()
    line.send("a")
    line.turn(190)
    line.dispatch.judged(judged(worker.requests[0].ticket))
    line.turn(10_000)
    assert line.hangs == 0


def test_frames_at_work_in_a_lost_worker_get_worker_lost_at_once(line: Line) -> None:
    line.ready()
    line.send("a")
    line.send("b")
    line.turn(5)
    line.dispatch.detach()
    assert (line.reason("a"), line.reason("b")) == ("worker-lost", "worker-lost")
    assert all(at == 1_005 * MS for _, _, _, at in line.published)


def test_frames_that_wait_for_the_next_worker_are_judged_by_it(line: Line) -> None:
    line.ready()
    line.dispatch.detach()
    line.send("a")
    line.turn(50)
    worker = line.ready()
    line.dispatch.judged(judged(worker.requests[0].ticket))
    assert line.reason("a") == "ok"


def test_frames_for_which_no_worker_stood_in_time_get_worker_lost(line: Line) -> None:
    line.ready()
    line.dispatch.detach()
    line.send("a")
    line.turn(BUDGET_MS)
    assert line.reason("a") == "worker-lost"


def test_frames_before_the_first_probe_are_answered_at_once(line: Line) -> None:
    line.send("a")
    assert line.reason("a") == "not-ready"
    assert line.published[0][3] == 1_000 * MS


def test_with_latest_the_oldest_waiting_frame_yields(line: Line) -> None:
    line.ready()
    for name in "abcde":
        line.send(name)
    # a and b are at work, two may wait: c yields to e.
    assert [name for name, *_ in line.published] == ["c"]
    assert line.reason("c") == "overload"


def test_with_queue_the_newest_frame_yields() -> None:
    line = Line(msgspec.structs.replace(PLAN, overflow=Overflow.QUEUE))
    line.ready()
    for name in "abcde":
        line.send(name)
    assert [name for name, *_ in line.published] == ["e"]
    assert line.reason("e") == "overload"


def test_at_most_two_frames_are_with_the_worker(line: Line) -> None:
    worker = line.ready()
    for name in "abcd":
        line.send(name)
    assert len(worker.requests) == MAX_AT_WORK
    line.dispatch.judged(judged(worker.requests[0].ticket))
    assert len(worker.requests) == MAX_AT_WORK + 1


def test_a_frame_that_comes_again_gets_the_verdict_that_it_had(line: Line) -> None:
    worker = line.ready()
    line.send("a")
    line.dispatch.failed(Failed(worker.requests[0].ticket, "guest-trap", "unreachable"))
    line.turn(1)
    line.send("a")
    assert len(worker.requests) == 1
    (_, first, _, _), (_, second, again, _) = line.published
    assert again
    assert first == second
    assert line.settled == ["a", "a"]


def test_a_frame_that_comes_again_while_it_is_judged_shares_the_one_verdict(line: Line) -> None:
    worker = line.ready()
    line.send("a")
    line.send("a")
    line.dispatch.judged(judged(worker.requests[0].ticket))
    assert len(worker.requests) == 1
    assert [again for _, _, again, _ in line.published] == [False, True]
    assert line.settled == ["a", "a"]


def test_other_pixels_under_a_known_id_get_the_fail_safe_and_never_its_verdict(line: Line) -> None:
    worker = line.ready()
    line.send("a", fingerprint=1)
    line.send("a", fingerprint=2)
    line.dispatch.judged(judged(worker.requests[0].ticket))
    line.send("a", fingerprint=3)
    line.send("a", fingerprint=1)
    assert len(worker.requests) == 1
    assert [(verdict.reason, again) for _, verdict, again, _ in line.published] == [
        ("id-reused", False),
        ("ok", False),
        ("id-reused", False),
        ("ok", True),
    ]
    assert line.noted == ["id-reused", "id-reused"]
    assert line.settled == ["a"] * 4


def test_other_pixels_that_come_again_get_the_refusal_that_they_had(line: Line) -> None:
    worker = line.ready()
    line.send("a", fingerprint=1)
    for fingerprint in (2, 3, 2, 3):
        line.send("a", fingerprint=fingerprint)
        line.turn(1)
    line.dispatch.judged(judged(worker.requests[0].ticket))
    line.send("a", fingerprint=2)
    refused = [(verdict, again) for _, verdict, again, _ in line.published]
    assert [again for _, again in refused] == [False, False, True, True, False, True]
    assert refused[0][0] == refused[2][0] == refused[5][0]
    assert refused[1][0] == refused[3][0]
    assert refused[4][0].reason == "ok"


def test_without_a_worker_frames_that_yield_are_not_called_an_overload(line: Line) -> None:
    line.ready()
    line.dispatch.detach()
    for name in "abc":
        line.send(name)
    assert line.reason("a") == "worker-lost"


def test_the_reference_that_a_frame_was_accepted_with_goes_with_it() -> None:
    line = Line(msgspec.structs.replace(PLAN, reference="reference.top"))
    worker = line.ready()
    held = Held.of(ContentType(), b"golden")
    line.send("a", reference=held)
    assert worker.requests[0].reference == held.key


def test_a_faulty_frame_gets_its_reason_without_the_worker(line: Line) -> None:
    worker = line.ready()
    line.send("a", fault=Fault("decode-error", "not an image"))
    assert line.reason("a") == "decode-error"
    assert worker.requests == []


def test_a_missing_reference_is_named() -> None:
    line = Line(msgspec.structs.replace(PLAN, reference="reference.top"))
    line.ready()
    line.send("a")
    assert line.reason("a") == "no-reference"


def test_a_frame_whose_time_is_all_but_over_is_answered_at_once(line: Line) -> None:
    worker = line.ready()
    line.send("a", age_ms=BUDGET_MS - 5)
    assert line.reason("a") == "stale"
    assert worker.requests == []


def test_the_policys_state_is_kept_for_the_next_worker(line: Line) -> None:
    worker = line.ready()
    line.send("a")
    line.dispatch.judged(judged(worker.requests[0].ticket))
    line.dispatch.detach()
    assert line.dispatch.policy == PolicyState(1, b"s")


def test_an_answer_that_nobody_waits_for_moves_no_policy(line: Line) -> None:
    """A worker that was a candidate may still owe an answer from its shadow."""
    worker = line.ready()
    line.send("a")
    line.dispatch.judged(judged(worker.requests[0].ticket + 1, policy=PolicyState(9, b"shadow")))
    assert line.dispatch.policy == PolicyState()
    line.turn(BUDGET_MS)
    line.dispatch.judged(judged(worker.requests[0].ticket))
    assert line.dispatch.policy == PolicyState(1, b"s"), "late, and the policy has moved on"


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever happens in whatever order: at most one verdict, and one by the deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.sent: dict[str, int] = {}
        self.timely: set[str] = set()

    @rule(age_ms=st.integers(0, 250))
    def a_frame_arrives(self, age_ms: int) -> None:
        name = f"f{len(self.sent)}"
        self.sent[name] = self.line.now + (BUDGET_MS - age_ms) * MS
        if age_ms < BUDGET_MS:
            self.timely.add(name)
        self.line.send(name, age_ms=age_ms)

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 10_000))
    def a_frame_comes_again(self, which: int) -> None:
        self.line.send(list(self.sent)[which % len(self.sent)])

    @rule(ms=st.integers(1, 400))
    def time_passes(self, ms: int) -> None:
        self.line.turn(ms)

    @precondition(lambda self: self.line.worker is None)
    @rule()
    def a_worker_stands(self) -> None:
        self.line.ready()

    @precondition(lambda self: self.line.worker is not None)
    @rule()
    def the_worker_is_lost(self) -> None:
        self.line.worker = None
        self.line.dispatch.detach()

    @precondition(lambda self: self.line.worker and self.line.worker.requests)
    @rule(trap=st.booleans())
    def the_worker_answers(self, trap: bool) -> None:
        assert self.line.worker is not None
        ticket = self.line.worker.requests.pop(0).ticket
        if trap:
            self.line.dispatch.failed(Failed(ticket, "guest-trap", "unreachable"))
        else:
            self.line.dispatch.judged(judged(ticket))

    @invariant()
    def no_frame_has_two_verdicts(self) -> None:
        for name in self.sent:
            assert len(self.line.verdicts(name)) <= 1

    @invariant()
    def every_frame_past_its_deadline_has_its_verdict(self) -> None:
        for name, deadline in self.sent.items():
            if deadline <= self.line.now:
                assert len(self.line.verdicts(name)) == 1, name

    @invariant()
    def no_verdict_came_after_the_deadline_of_a_timely_frame(self) -> None:
        for name, _, again, at in self.line.published:
            if not again and name in self.timely:
                assert at <= self.sent[name], name

    @invariant()
    def idle_means_that_nothing_is_owed(self) -> None:
        answered = {name for name, _, again, _ in self.line.published if not again}
        assert len(self.line.underway) == len(self.sent.keys() - answered)


AnyOrderOfEvents.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase


NEXT = msgspec.structs.replace(
    PLAN, deployment=msgspec.structs.replace(PLAN.deployment, revision=2)
)


class Exchange:
    """A successor under way."""

    def __init__(self, line: Line, plan: PipelinePlan = NEXT) -> None:
        self.worker = Worker()
        self.done = 0
        self.on_done: Callable[[], None] = lambda: None
        self.fresh = (SignalValue(),)
        line.dispatch.exchange(Successor(plan, self.worker, self._renew, self._done))

    def _renew(self, _frame: Frame) -> Seen:
        return Seen(None, self.fresh)

    def _done(self) -> None:
        self.done += 1
        self.on_done()


def test_an_idle_pipeline_goes_on_with_its_successor_at_once(line: Line) -> None:
    before = line.ready()
    exchange = Exchange(line)
    assert exchange.done == 1
    line.send("a")
    assert not before.requests
    assert len(exchange.worker.requests) == 1
    assert line.dispatch.plan.deployment.revision == 2


def test_frames_at_work_are_answered_by_the_old_worker_before_the_new_one_gets_any(
    line: Line,
) -> None:
    before = line.ready()
    line.send("a")
    line.send("b")
    line.send("c")
    exchange = Exchange(line)
    line.dispatch.judged(judged(before.requests[0].ticket))
    assert exchange.done == 0
    assert len(before.requests) == 2, "the third waits for the successor"
    line.dispatch.judged(judged(before.requests[1].ticket, policy=PolicyState(2, b"t")))
    assert exchange.done == 1
    assert exchange.worker.taken_up == [PolicyState(2, b"t")], "the state after the last frame"
    assert [request.signals for request in exchange.worker.requests] == [exchange.fresh]
    line.dispatch.judged(judged(exchange.worker.requests[0].ticket))
    assert [verdict.deployment.revision for _, verdict, _, _ in line.published] == [1, 1, 2]


def test_an_old_worker_that_hangs_holds_its_successor_up_until_the_deadline_and_no_longer(
    line: Line,
) -> None:
    line.ready()
    line.send("a")
    exchange = Exchange(line)
    line.turn(BUDGET_MS)
    assert [verdict.reason for _, verdict, _, _ in line.published] == ["overrun"]
    assert exchange.done == 1
    line.send("b")
    assert len(exchange.worker.requests) == 1


def test_the_loss_of_the_old_worker_lets_its_successor_in(line: Line) -> None:
    line.ready()
    line.send("a")
    exchange = Exchange(line)
    line.dispatch.detach()
    assert exchange.done == 1
    assert line.dispatch.ready
    assert [verdict.reason for _, verdict, _, _ in line.published] == ["worker-lost"]


def test_an_exchange_that_is_called_off_leaves_the_old_worker_at_work(line: Line) -> None:
    before = line.ready()
    line.send("a")
    line.send("b")
    line.send("c")
    exchange = Exchange(line)
    line.dispatch.call_off()
    line.dispatch.judged(judged(before.requests[0].ticket))
    assert len(before.requests) == 3
    assert exchange.done == 0


def test_a_frame_without_the_reference_that_the_successor_wants_gets_its_reason(
    line: Line,
) -> None:
    line.ready()
    line.send("a")
    line.send("b")
    line.send("c")
    before = line.dispatch
    exchange = Exchange(line, msgspec.structs.replace(NEXT, reference="reference.top"))
    before.detach()
    assert exchange.done == 1
    assert line.published[-1][1].reason == "no-reference"


def test_a_verdict_by_the_successors_plan_comes_when_it_has_taken_the_place(line: Line) -> None:
    """What is recorded of a verdict hangs on the plan of whoever stands in the place."""
    revisions: list[int] = []
    line.ready()
    for name in "abc":
        line.send(name)
    exchange = Exchange(line, msgspec.structs.replace(NEXT, reference="reference.top"))
    exchange.on_done = lambda: revisions.append(line.published[-1][1].deployment.revision)
    line.dispatch.detach()
    assert (revisions, line.published[-1][1].deployment.revision) == ([1], 2)


def test_a_dispatch_that_gives_up_owes_nobody_a_verdict_and_gives_no_second(line: Line) -> None:
    worker = line.ready()
    for name in "abc":
        line.send(name)
    line.dispatch.give_up("the daemon stops")
    assert [(name, v.reason, v.verdict) for name, v, _, _ in line.published] == [
        (name, "worker-lost", Kind.REVIEW) for name in "abc"
    ]
    line.dispatch.judged(judged(worker.requests[0].ticket, actions=(ActionWish(0, 1.0, 5),)))
    line.turn(10_000)
    assert (len(line.published), line.acted, line.hangs) == (3, [], 0)
    assert not line.dispatch.owes


def test_frames_given_back_are_answered_once_by_who_adopts_them(line: Line) -> None:
    beside = Dispatch("box1", NEXT, DeadlineSection(), line.remembered, line, line.underway)
    canary, active = Worker(), line.ready()
    beside.attach(canary)
    for name in "abc":
        beside.submit(line.frame(name), None, ())
    assert [request.ticket for request in canary.requests] == [0, 1]
    back = beside.give_back()
    line.dispatch.adopt([(frame, Seen(None, ())) for frame in back])
    assert [frame.frame_id for frame in back] == list("abc")
    for ticket in (0, 1):
        beside.judged(judged(ticket))
    assert line.published == [], "what was given back is no longer its to answer"
    for request in active.requests:
        line.dispatch.judged(judged(request.ticket))
    assert [name for name, *_ in line.published] == list("abc")
    assert {verdict.deployment.revision for _, verdict, _, _ in line.published} == {1}
    line.turn(1_000)
    assert len(line.published) == 3
    assert not beside.owes


def test_a_frame_that_comes_again_at_the_other_dispatch_shares_its_verdict(line: Line) -> None:
    beside = Dispatch("box1", NEXT, DeadlineSection(), line.remembered, line, line.underway)
    canary, active = Worker(), line.ready()
    beside.attach(canary)
    beside.submit(line.frame("a"), None, ())
    line.send("a")
    assert not active.requests
    beside.judged(judged(canary.requests[0].ticket))
    line.send("a")
    assert [again for _, _, again, _ in line.published] == [False, True, True]
    assert {verdict.deployment.revision for _, verdict, _, _ in line.published} == {2}


def test_a_canary_that_says_nothing_costs_the_fail_safe_in_time(line: Line) -> None:
    beside = Dispatch("box1", NEXT, DeadlineSection(), line.remembered, line, line.underway)
    beside.attach(Worker())
    beside.submit(line.frame("a"), None, ())
    line.turn(BUDGET_MS)
    assert line.reason("a") == "overrun"
    assert line.published[0][3] <= (1_000 + BUDGET_MS) * MS
