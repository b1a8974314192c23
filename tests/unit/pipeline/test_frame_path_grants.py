"""What a deployment grants its guests, on the frame path: fuel, instances, state, log lines."""

import gc
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from daemons import DEPLOYMENT, part_jpeg
from deployments import with_policy
from evil_guests import (
    ENDLESS,
    FAIL,
    counting_policy,
    forgetful_policy,
    hidden_count_policy,
    logging_policy,
    policy,
    unrestorable_policy,
)
from path_bench import EVIL, Bench, plan_of

from edge.contracts.messages import GuestLine, PolicyState
from edge.contracts.plan import GuestPlan, PipelinePlan
from edge.contracts.verdict import Kind
from edge.errors import GuestBudgetError, GuestError, IncompatibleError
from edge.wasm.engine import GuestEngine

Plan = Callable[..., PipelinePlan]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as opened:
        yield opened


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    """The reference plan with another policy, and other grants for it."""

    def plan(wasm: bytes, call_ms: int = 1_000, **grants: object) -> PipelinePlan:
        folder = with_policy(DEPLOYMENT, tmp_path / f"with-{len(list(tmp_path.iterdir()))}", wasm)
        found = plan_of(folder)
        decide = msgspec.structs.replace(found.decide, call_ms=call_ms, **grants)
        return msgspec.structs.replace(found, decide=decide)

    return plan


def taught(plan: PipelinePlan, engine: GuestEngine, state: PolicyState | None = None) -> Bench:
    bench = Bench(plan, engine, state)
    bench.teach(3)
    return bench


# Log


def test_lines_come_with_the_answer_and_cannot_steer_a_terminal(
    planned: Plan, engine: GuestEngine
) -> None:
    long = "x" * 300
    text = f"warm\\1b[31m\\0d\\0a\\0a{long}\\0a\\e2\\80\\ae\\ff"
    judged = taught(planned(logging_policy(text)), engine).judge()
    assert judged.lines == (
        GuestLine("decide", "warm\\x1b[31m\\r"),
        GuestLine("decide", "x" * 255),
        GuestLine("decide", "\\u202e\ufffd"),
    )


def test_a_frame_that_fails_brings_its_lines_and_a_trap_brings_none(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(logging_policy("as it was")), engine)
    frame = bench.decode(part_jpeg(3, 0), lamp=EVIL)
    with pytest.raises(GuestError) as failure:
        bench.path.judge(frame)
    assert bench.path.failed(frame, failure.value).lines == (GuestLine("decide", "as it was"),)
    evil = taught(planned(counting_policy()), engine)
    frame = evil.decode(part_jpeg(3, 0), lamp=EVIL)
    with pytest.raises(GuestError) as failure:
        evil.path.judge(frame)
    assert evil.path.failed(frame, failure.value).lines == ()


def test_more_lines_than_a_call_may_log_are_cut_off(planned: Plan, engine: GuestEngine) -> None:
    text = "".join(f"{n}\\0a" for n in range(30))
    lines = taught(planned(logging_policy(text)), engine).judge().lines
    assert [line.text for line in lines] == list("01234567")


# Fuel


def test_fuel_ends_a_call_that_time_would_not_end_and_the_next_frame_is_judged(
    planned: Plan, engine: GuestEngine
) -> None:
    plan = planned(policy(ENDLESS), call_ms=60_000, fuel=100_000)
    bench = taught(plan, engine)
    for _ in range(2):
        with pytest.raises(GuestBudgetError, match="decide used up its fuel of 100000"):
            bench.judge(lamp=EVIL)
        assert bench.judge().verdict is Kind.PASS


def test_fuel_of_every_guest_judges_as_before(engine: GuestEngine) -> None:
    plan = plan_of(DEPLOYMENT)
    metered = msgspec.structs.replace(
        plan,
        **{
            role: msgspec.structs.replace(getattr(plan, role), fuel=10**9)
            for role in ("preprocess", "postprocess", "decide")
        },
    )
    one, other = taught(plan, engine).judge(1, "short"), taught(metered, engine).judge(1, "short")
    assert (one.verdict, one.defects, one.score) == (other.verdict, other.defects, other.score)
    assert one.verdict is Kind.REJECT


def test_too_little_fuel_is_found_before_any_frame(planned: Plan, engine: GuestEngine) -> None:
    with pytest.raises(IncompatibleError, match="used up its fuel of 1 "):
        taught(planned(counting_policy(), fuel=1), engine)


# State


@pytest.mark.parametrize(("granted", "good"), [(4, True), (3, False)])
def test_a_state_beyond_its_grant_is_refused_at_set_up(
    planned: Plan, engine: GuestEngine, granted: int, good: bool
) -> None:
    plan = planned(hidden_count_policy(with_state=True), state_bytes=granted)
    if good:
        assert taught(plan, engine).judge().policy == PolicyState(1, struct.pack("<i", 1))
        return
    with pytest.raises(IncompatibleError, match="within the 3 bytes of state_bytes"):
        taught(plan, engine)


def test_a_policy_that_claims_more_than_its_capacity_is_refused_too(
    planned: Plan, engine: GuestEngine
) -> None:
    # It writes 4 bytes whatever capacity it is told.
    with pytest.raises(IncompatibleError, match="claims 4 bytes; it was given room for 3"):
        taught(planned(counting_policy(), state_bytes=3), engine)


def test_without_a_granted_state_a_policy_begins_anew_after_a_trap(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(counting_policy(), state_bytes=0), engine)
    assert [bench.count() for _ in range(2)] == [1, 2]
    bench.trap()
    judged = bench.judge()
    assert (judged.score, judged.policy) == (0.01, PolicyState(3, b""))


def test_a_forerunners_state_that_is_too_large_is_refused_and_said(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(counting_policy(), state_bytes=4), engine, PolicyState(9, b"12345"))
    refusal = bench.path.take_state_refusal()
    assert "is granted a state of 4 bytes; its forerunner left 5" in refusal
    assert bench.count() == 1


def test_a_state_that_is_lost_after_a_trap_is_said_with_the_next_answer(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(forgetful_policy()), engine)
    assert bench.judge().state_refused == ""
    frame = bench.decode(part_jpeg(3, 0), lamp=EVIL)
    with pytest.raises(GuestError) as failure:
        bench.path.judge(frame)
    told = bench.path.failed(frame, failure.value)
    assert "edge_state_restore" in told.state_refused
    after = bench.judge()
    assert after.state_refused == ""
    assert after.policy == PolicyState(1, struct.pack("<i", 7))


def test_a_frame_after_one_that_the_policy_failed_says_the_state_that_it_was_decided_from(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(counting_policy(FAIL)), engine)
    assert bench.count() == 1
    for _ in range(2):
        with pytest.raises(GuestError, match="reason of its own"):
            bench.judge(lamp=EVIL)
    judged = bench.judge()
    assert (judged.before, judged.score) == (PolicyState(1, struct.pack("<i", 3)), 0.04)
    bench.path.take_up(judged.before)
    assert bench.judge().score == judged.score


@pytest.mark.parametrize("evil", [FAIL, "unreachable"])
def test_a_probe_that_fails_leaves_the_policy_as_it_was(
    planned: Plan, engine: GuestEngine, evil: str
) -> None:
    bench = taught(planned(counting_policy(evil)), engine)
    assert bench.count() == 1
    with pytest.raises(GuestError):
        bench.path.judge(bench.decode(part_jpeg(3, 0), lamp=EVIL, probe=True))
    assert bench.count() == 2


def test_a_frame_is_judged_by_its_pixels_where_the_policy_traps_on_its_state(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(unrestorable_policy(), fresh=True), engine)
    first = bench.judge(1, "short")
    assert [defect.label for defect in first.defects] == ["short"]
    # The trap brings another set of guests, into whose memory the pixels must come again.
    second = bench.judge(1, "short")
    assert second.defects == first.defects
    assert "edge_state_restore trapped" in second.state_refused


# Instances


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_hidden_in_an_instance_survives_only_where_instances_are_kept(
    planned: Plan, engine: GuestEngine, fresh: bool
) -> None:
    bench = taught(planned(hidden_count_policy(with_state=False), fresh=fresh), engine)
    counts = []
    for number in range(4):
        counts.append(bench.count())
        if number % 2:  # the worker renews between frames; whoever does not loses nothing
            bench.path.mend()
    assert counts == ([1, 1, 1, 1] if fresh else [1, 2, 3, 4])


def test_a_fresh_instance_goes_on_from_the_state(planned: Plan, engine: GuestEngine) -> None:
    bench = taught(planned(hidden_count_policy(with_state=True), fresh=True), engine)
    assert [bench.count() for _ in range(3)] == [1, 2, 3]
    bench.path.judge(bench.decode(part_jpeg(3, 0), probe=True))
    assert bench.count() == 4


@pytest.mark.parametrize("role", ["preprocess", "postprocess"])
def test_fresh_instances_beside_the_policy_judge_as_kept_ones(
    engine: GuestEngine, role: str
) -> None:
    plan = plan_of(DEPLOYMENT)
    grant: GuestPlan = msgspec.structs.replace(getattr(plan, role), fresh=True)
    kept, fresh = (
        taught(each, engine) for each in (plan, msgspec.structs.replace(plan, **{role: grant}))
    )
    frames = [(0, ()), (1, ("short",)), (2, ()), (3, ("open", "spur"))]
    for index, (part, defects) in enumerate(frames):
        one, other = kept.judge(part, *defects), fresh.judge(part, *defects)
        assert (one.verdict, one.score, one.defects) == (other.verdict, other.score, other.defects)
        if index % 2:
            fresh.path.mend()
    probe = fresh.path.judge(fresh.decode(part_jpeg(3, 0), probe=True))
    assert probe.policy is None
    assert fresh.judge().policy == kept.judge().policy


def test_views_of_an_instance_that_was_replaced_stay_readable(engine: GuestEngine) -> None:
    plan = plan_of(DEPLOYMENT)
    grant = msgspec.structs.replace(plan.preprocess, fresh=True)
    bench = taught(msgspec.structs.replace(plan, preprocess=grant), engine)
    views = []
    for number in range(6):
        frame = bench.decode(part_jpeg(3, number % 2))
        assert isinstance(frame.slot.pixels, np.ndarray)
        views.append((frame.slot.pixels, frame.slot.pixels.sum()))
        bench.path.judge(frame)
        bench.path.mend()
    del frame
    gc.collect()
    assert [view.sum() for view, _ in views] == [total for _, total in views]


# References


def test_a_frame_keeps_the_reference_that_it_was_sent_with(
    planned: Plan, engine: GuestEngine
) -> None:
    bench = taught(planned(counting_policy()), engine)
    evil = bench.decode(part_jpeg(3, 0), lamp=EVIL)
    follower = bench.decode(part_jpeg(3, 1, ("short",)))
    bench.path.encoded.forget("3")  # withdrawn, while both are on their way
    with pytest.raises(GuestError, match="unreachable"):
        bench.path.judge(evil)
    assert [defect.label for defect in bench.path.judge(follower).defects] == ["short"]
