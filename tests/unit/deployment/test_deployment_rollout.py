"""The rollout's table: whatever happens, what is active was agreed on, or there is nothing."""

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.contracts.verdict import Kind
from edge.deployment import report, rollout
from edge.deployment.report import Outcome, Report
from edge.deployment.rollout import (
    MAX_FAILURES,
    MAX_HISTORY,
    MAX_STARTS,
    TRANSITIONS,
    Deployed,
    Event,
    Journal,
    RolloutError,
    State,
    advance,
)
from edge.deployment.rules import ShadowRule
from edge.deployment.watch import Shadow
from edge.errors import DeploymentError, StorageError

ONE, TWO = (Deployed("bench", number, str(number) * 64) for number in (1, 2))


def run(journal: Journal, *events: Event, offered: Deployed = TWO) -> Journal:
    """The journal after these events."""
    for event in events:
        given = offered if event is Event.OFFERED else None
        journal = advance(journal, event, 7, offered=given, reason="x" * (event is Event.FAILED))
    return journal


TAKEN = (Event.OFFERED, Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD)
COMMITTED = run(Journal(), *TAKEN, offered=ONE)


def test_a_deployment_that_does_well_is_committed() -> None:
    after = run(COMMITTED, *TAKEN)
    assert (after.state, after.active, after.previous, after.candidate) == (
        State.IDLE,
        TWO,
        ONE,
        None,
    )
    assert [step.event for step in after.history[-5:]] == list(TAKEN)


@pytest.mark.parametrize("until", range(1, 5))
@pytest.mark.parametrize("end", [Event.FAILED, Event.WITHDRAWN])
def test_one_that_fails_anywhere_leaves_its_predecessor(until: int, end: Event) -> None:
    after = run(COMMITTED, *TAKEN[:until], end)
    assert (after.state, after.active, after.candidate) == (State.IDLE, ONE, None)
    assert after.failures == ({TWO.digest: 1} if end is Event.FAILED else {})


def test_three_failures_bar_a_deployment_and_no_other() -> None:
    after = COMMITTED
    for count in range(1, MAX_FAILURES + 1):
        after = run(after, Event.OFFERED, Event.FAILED)
        assert (TWO.digest in after.barred) == (count >= MAX_FAILURES)
    assert after.barred == {TWO.digest}


CANARY = (Event.OFFERED, Event.BEGAN, Event.PROVED, Event.ADMITTED)


def test_a_canary_is_not_active_until_it_has_done_well() -> None:
    during = run(COMMITTED, *CANARY)
    assert (during.state, during.active, during.candidate) == (State.CANARY, ONE, TWO)
    after = run(during, Event.AGREED, Event.HELD)
    assert (after.state, after.active, after.previous) == (State.IDLE, TWO, ONE)
    for end in (Event.FAILED, Event.WITHDRAWN):
        assert run(during, end).active == ONE


def test_a_start_during_a_canary_runs_the_active_one_and_counts() -> None:
    journal = run(COMMITTED, *CANARY)
    for starts in range(1, MAX_STARTS + 1):
        journal = run(journal, Event.STARTED)
        assert (journal.state, journal.active, journal.starts) == (State.FETCHED, ONE, starts)
        journal = run(journal, *CANARY[1:])
    journal = run(journal, Event.STARTED)
    assert (journal.state, journal.active, journal.history[-1].reason) == (
        State.IDLE,
        ONE,
        "restarts",
    )


def test_an_undone_swap_leaves_something_to_return_to_by_hand() -> None:
    three = Deployed("bench", 3, "3" * 64)
    journal = run(COMMITTED, *TAKEN)
    probation = run(journal, *TAKEN[:4], offered=three)
    assert probation.needed == {each.digest for each in (ONE, TWO, three)}
    after = run(probation, Event.FAILED)
    assert (after.active, after.previous, after.former) == (TWO, ONE, None)
    committed = run(probation, Event.HELD)
    assert (committed.active, committed.previous, committed.former) == (three, TWO, None)


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_start_and_a_way_out(state: State) -> None:
    assert Event.STARTED in TRANSITIONS[state]
    if state is not State.IDLE:
        assert {Event.FAILED, Event.WITHDRAWN} <= set(TRANSITIONS[state])


@pytest.mark.parametrize("until", [1, 2, 3])
def test_a_start_before_the_swap_begins_the_trial_anew(until: int) -> None:
    after = run(COMMITTED, *TAKEN[:until], Event.STARTED)
    assert (after.state, after.active, after.candidate) == (State.FETCHED, ONE, TWO)


def test_a_deployment_that_takes_the_daemon_down_with_it_is_undone() -> None:
    after = run(COMMITTED, *TAKEN[:4])
    for starts in range(1, MAX_STARTS + 1):
        after = run(after, Event.STARTED)
        assert (after.state, after.active, after.starts) == (State.PROBATION, TWO, starts)
    after = run(after, Event.STARTED)
    assert (after.state, after.active, after.history[-1].reason) == (State.IDLE, ONE, "restarts")
    assert run(after, *TAKEN[:4]).starts == 0


def test_what_the_table_does_not_have_is_a_bug_of_the_caller() -> None:
    with pytest.raises(RolloutError):
        advance(Journal(), Event.AGREED, 0)
    with pytest.raises(RolloutError):
        advance(Journal(), Event.OFFERED, 0)
    with pytest.raises(RolloutError):
        advance(run(Journal(), Event.OFFERED), Event.BEGAN, 0, offered=ONE)


def test_a_deployment_that_cannot_be_loaded_gives_way_to_the_one_before_and_then_to_none() -> None:
    after = rollout.fallen_back(run(COMMITTED, *TAKEN), 9, "rotten")
    assert (after.active, after.previous, after.history[-1].reason) == (ONE, None, "unreadable")
    after = rollout.fallen_back(after, 9, "rotten")
    assert after.active is None
    assert run(after, *TAKEN).active == TWO


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"state":"asleep"}', b'{"v":2}', b"\xff", b"\x00" * 4_096,
        b'{"active":{"name":"x","revision":0,"digest":"../../x"}}',
        b'{"history":[{"at_ns":1,"event":"held","deployment":{"name":"x","revision":1,"digest":"'
        + b"a" * 64 + b'"},"evidence":' + b'{"a":' * 20_000,
        b'{"active":{"name":"\xff","revision":1,"digest":"' + b"a" * 64 + b'"}}',
    ],
    ids=range(10),
)  # fmt: skip
def test_a_damaged_journal_is_told_with_its_remedy(content: bytes) -> None:
    with pytest.raises(StorageError, match=r"j\.json: is no journal.*remove the file"):
        rollout.decode(content, "j.json")


@pytest.mark.parametrize(
    "content", [b"", b"[" * 9_000, b'{"device":1}', b" " * 20_000, b'{"device":"\xff"}']
)
def test_a_report_of_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(DeploymentError, match="topic"):
        report.decode(content, "topic")


def test_a_report_of_a_newer_device_may_say_more_wherever_it_likes() -> None:
    outcome = Outcome(Event.HELD, ONE, 1)
    said = Report("box1", "press", State.IDLE, 1, ONE, TWO, TWO, outcome)
    more = msgspec.to_builtins(said)
    for place in (more, more["active"], more["candidate"], more["outcome"]["deployment"]):
        place["channel"] = "new"
    assert report.decode(msgspec.json.encode(more), "topic") == said


deployments = st.builds(
    lambda number, signed: Deployed("bench", number, f"{number:064x}", signed),
    st.integers(1, 5),
    st.booleans(),
)


class Rollouts(RuleBasedStateMachine):
    """A device over a long time: whatever may happen does, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()
        self.agreed: set[str] = set()
        self.failed: dict[str, int] = {}

    def _take(self, event: Event, offered: Deployed | None = None) -> None:
        before = self.journal
        self.journal = advance(before, event, 1, offered=offered, evidence={"n": 1.5})
        ended = {step.deployment.digest for step in self.journal.history[-1:]}
        if event is Event.AGREED:
            assert before.candidate is not None
            self.agreed.add(before.candidate.digest)
        elif self.journal.failures != before.failures:
            (digest,) = ended
            self.failed[digest] = self.failed.get(digest, 0) + 1

    @rule(event=st.sampled_from([each for each in Event if each is not Event.OFFERED]))
    def happen(self, event: Event) -> None:
        if event in TRANSITIONS[self.journal.state]:
            self._take(event)
        else:
            with pytest.raises(RolloutError):
                advance(self.journal, event, 1)

    @precondition(lambda self: self.journal.state is State.IDLE)
    @rule(offered=deployments)
    def offer(self, offered: Deployed) -> None:
        self._take(Event.OFFERED, offered)

    @rule(wanted=st.booleans())
    def pin(self, wanted: bool) -> None:
        self.journal = rollout.pinned(self.journal, wanted)

    @precondition(lambda self: self.journal.active and self.journal.state is State.IDLE)
    @rule()
    def rot(self) -> None:
        self.journal = rollout.fallen_back(self.journal, 1, "rotten")

    @invariant()
    def what_is_active_was_agreed_on(self) -> None:
        journal = self.journal
        for each in (journal.active, journal.previous, journal.former):
            assert each is None or each.digest in self.agreed

    @invariant()
    def a_candidate_is_named_exactly_while_something_is_under_way(self) -> None:
        journal = self.journal
        assert (journal.candidate is None) == (journal.state is State.IDLE)
        if journal.state is State.PROBATION:
            assert journal.candidate == journal.active

    @invariant()
    def failures_are_counted_and_bar(self) -> None:
        assert self.journal.failures == self.failed
        barred = {digest for digest, count in self.failed.items() if count >= MAX_FAILURES}
        assert self.journal.barred == barred

    @invariant()
    def what_is_needed_is_kept_and_history_is_bounded(self) -> None:
        journal = self.journal
        named = (journal.active, journal.previous, journal.former, journal.candidate)
        assert journal.needed == {each.digest for each in named if each}
        assert len(journal.history) <= MAX_HISTORY

    @invariant()
    def it_survives_the_disk_and_the_wire(self) -> None:
        assert rollout.decode(rollout.encode(self.journal), "j") == self.journal
        said = report.report_of(self.journal, "box1", "press", 1, 0, "")
        encoded = msgspec.json.encode(said)
        assert report.decode(encoded, "t") == said
        assert len(encoded) < report.MAX_BYTES


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_report_of_many_pipelines_is_small_enough_for_its_reader() -> None:
    """As many as a manifest may have, each with as many examples, of the longest ids."""
    evidence: dict[str, Any] = {}
    for number in range(16):
        shadow = Shadow(ShadowRule(frames=5, min_agreement=0.0))
        for frame in range(5):
            shadow.add('"' * 127 + str(frame), Kind.PASS, 1.0, Kind.REJECT, 1.0)
        evidence[f"{number:064}"] = shadow.evidence()
    journal = Journal()
    for event in (Event.OFFERED, Event.BEGAN, Event.PROVED, Event.FAILED):
        journal = advance(
            journal,
            event,
            1,
            offered=TWO if event is Event.OFFERED else None,
            reason="disagreement" if event is Event.FAILED else "",
            detail="x" * 600,
            evidence={"shadow": evidence},
        )
    said = report.report_of(journal, "box1", "line-a", 1, 1, "")
    assert len(msgspec.json.encode(said)) > report.MAX_BYTES  # control: it would not be read
    heard = report.decode(report.encode(said), "box1")
    assert heard.outcome is not None
    assert (heard.outcome.event, heard.outcome.reason) == (Event.FAILED, "disagreement")
    assert heard.outcome.evidence == {}
    # Control: one that is read keeps its figures.
    small = report.report_of(Journal(), "box1", "line-a", 1, 1, "")
    assert report.decode(report.encode(small), "box1") == small


def test_a_journal_of_a_later_release_is_read_as_far_as_it_is_known() -> None:
    written = msgspec.to_builtins(run(COMMITTED, *TAKEN[:3]))
    later = {**written, "weather": "fair"}
    later["history"] = [{**step, "moon": 1} for step in written["history"]]
    later["active"] = {**written["active"], "colour": "red"}
    assert rollout.decode(msgspec.json.encode(later), "journal.json") == run(COMMITTED, *TAKEN[:3])
