"""Going back: told from going forward, and what a long sentence or a greedy candidate comes to."""

from edge.contracts.verdict import Kind
from edge.deployment.rollout import MAX_DETAIL, Deployed, Event, Journal, advance
from edge.deployment.rules import ShadowRule
from edge.deployment.watch import Finding, Shadow

ONE, TWO = (Deployed("pcb", n, f"{n:064x}") for n in (1, 2))
TO_PROBATION = (Event.BEGAN, Event.PROVED, Event.AGREED)


def after(journal: Journal, offered: Deployed, *events: Event) -> Journal:
    """The journal after an offer, and then events."""
    journal = advance(journal, Event.OFFERED, 1, offered=offered)
    for event in events:
        journal = advance(journal, event, 2)
    return journal


COMMITTED = after(Journal(), ONE, *TO_PROBATION, Event.HELD)


def test_the_one_before_is_told_from_a_candidate_of_the_repository() -> None:
    journal = after(COMMITTED, TWO, *TO_PROBATION, Event.HELD)
    assert advance(journal, Event.OFFERED, 3, offered=ONE).goes_back
    assert not advance(COMMITTED, Event.OFFERED, 3, offered=TWO).goes_back


def test_one_that_is_fetched_anew_is_no_predecessor_of_itself() -> None:
    journal = after(COMMITTED, ONE, *TO_PROBATION)
    assert (journal.active, journal.previous) == (ONE, None)


def test_what_a_guest_says_is_cut() -> None:
    journal = advance(COMMITTED, Event.OFFERED, 1, offered=TWO)
    journal = advance(journal, Event.FAILED, 1, reason="trial", detail="x" * 100_000)
    assert len(journal.history[-1].detail) == MAX_DETAIL


def greedy(frames: int) -> Finding | None:
    """What a shadow comes to in which the candidate wished more actions so often."""
    shadow = Shadow(ShadowRule(frames=20))
    finding = None
    for number in range(20):
        finding = shadow.add(
            f"f{number}", Kind.PASS, 10.0, Kind.PASS, 10.0, more_actions=number < frames
        )
    return finding


def test_a_candidate_that_floods_actions_is_told() -> None:
    few, many = greedy(2), greedy(20)
    assert few is not None
    assert many is not None
    assert (few.reason, many.reason) == ("", "actions")
