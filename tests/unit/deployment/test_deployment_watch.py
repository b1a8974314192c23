"""The watches' statistics: a good deployment is almost never reverted, a bad one is."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from edge.contracts.verdict import Kind, Reason
from edge.deployment.rules import ProbationRule, ShadowRule
from edge.deployment.watch import Finding, Probation, Rates, Shadow, interval

RULE = ProbationRule(frames=80)
SEEDS = 2_000
Line = Callable[[random.Random], tuple[Kind, str, float]]


def line(rejects: float, *, mean: float = 0.3, overruns: float = 0.0, faults: float = 0.0) -> Line:
    """A line: shares of its verdicts, and the mean of its scores."""

    def verdict(chance: random.Random) -> tuple[Kind, str, float]:
        if chance.random() < overruns:
            return Kind.REVIEW, Reason.OVERRUN, 0.0
        if chance.random() < faults:
            return Kind.REVIEW, Reason.GUEST_TRAP, 0.0
        kind = Kind.REJECT if chance.random() < rejects else Kind.PASS
        return kind, "", min(1.0, max(0.0, chance.gauss(mean, 0.1)))

    return verdict


def watched(seed: int, before: Line, after: Line, *, earlier: int = 300) -> tuple[Finding, int]:
    """What a probation comes to, and after how many verdicts."""
    chance = random.Random(seed)
    rates = Rates()
    for _ in range(earlier):
        rates.add(*before(chance))
    probation = Probation(RULE, rates)
    for count in range(1, RULE.frames + 1):
        finding = probation.add(*after(chance))
        if finding is not None:
            return finding, count
    raise AssertionError("it came to nothing")


@pytest.mark.parametrize(
    ("rejects", "earlier"), [(0.0, 300), (0.02, 300), (0.05, 50), (0.2, 300), (0.5, 100)]
)
def test_a_good_deployment_is_almost_never_reverted(rejects: float, earlier: int) -> None:
    """At no more than 1 in 200, over 2,000 lines in all; each judged at every verdict."""
    same = line(rejects)
    reverted = Counter(
        watched(seed, same, same, earlier=earlier)[0].reason for seed in range(SEEDS // 5)
    )
    assert reverted[""] >= SEEDS // 5 * 0.995, reverted


@pytest.mark.parametrize(
    ("before", "after", "reason", "soon"),
    [
        (line(0.02), line(1.0), "reject-rate", 12),
        (line(0.02), line(0.5), "reject-rate", 60),
        (line(0.5), line(0.0), "reject-rate", 80),
        (line(0.05), line(0.05, mean=0.9), "score-shift", 20),
        (line(0.02), line(0.02, overruns=0.5), "overrun", 20),
        (line(0.02), line(0.02, faults=0.5), "guest-trap", 20),
    ],
    ids=["rejects all", "rejects half", "lets all pass", "other scores", "late", "traps"],
)
def test_a_bad_deployment_is_reverted_soon(
    before: Line, after: Line, reason: str, soon: int
) -> None:
    found = [watched(seed, before, after) for seed in range(100)]
    assert {finding.reason for finding, _ in found} == {reason}
    assert sorted(count for _, count in found)[50] <= soon


def test_three_rejects_in_a_row_at_the_beginning_revert_nothing() -> None:
    rates = Rates()
    for _ in range(300):
        rates.add(Kind.PASS, "", 0.3)
    rates.add(Kind.REJECT, "", 0.3)
    probation = Probation(RULE, rates)
    for _ in range(3):
        assert probation.add(Kind.REJECT, "", 0.3) is None


def test_without_a_predecessor_only_what_is_late_or_fails_counts() -> None:
    probation = Probation(RULE, None)
    for _ in range(RULE.frames - 1):
        assert probation.add(Kind.REJECT, "", 1.0) is None
    finding = probation.add(Kind.REJECT, "", 1.0)
    assert finding is not None
    assert (finding.reason, finding.evidence["rejects"]) == ("", RULE.frames)


@pytest.mark.parametrize("reason", [Reason.STORAGE, Reason.ID_REUSED])
def test_a_full_disk_and_a_camera_that_counts_anew_are_no_fault_of_the_deployment(
    reason: Reason,
) -> None:
    before = Rates()
    for _ in range(200):
        before.add(Kind.PASS, Reason.OK, 0.3)
    probation = Probation(RULE, before)
    for _ in range(10 * RULE.frames):
        assert probation.add(Kind.REVIEW, reason, 0.0) is None
    # They are no verdicts of its own either: it is judged by as many as ever.
    found = [probation.add(Kind.PASS, Reason.OK, 0.3) for _ in range(RULE.frames)]
    assert found[:-1] == [None] * (RULE.frames - 1)
    assert found[-1] is not None
    assert found[-1].reason == ""
    # Control: what it may have brought about counts.
    probation = Probation(RULE, before)
    told = [probation.add(Kind.REVIEW, Reason.DECODE_ERROR, 0.0) for _ in range(RULE.frames)]
    assert any(finding and finding.reason == "reject-rate" for finding in told)


def test_when_the_time_is_up_few_verdicts_are_judged_as_many_are() -> None:
    probation = Probation(ProbationRule(frames=100), None)
    assert probation.over().reason == ""
    probation.add(Kind.REVIEW, Reason.OVERRUN, 0.0)
    assert probation.over().reason == ""
    found = probation.add(Kind.REVIEW, Reason.OVERRUN, 0.0)
    assert found is not None
    assert found.reason == Reason.OVERRUN


def test_rates_outlive_a_restart() -> None:
    rates, chance = Rates(), random.Random(1)
    for _ in range(500):
        rates.add(*line(0.3)(chance))
    again = Rates.of_figures(rates.as_figures())
    assert again is not None
    assert (again.judged, again.rejects, again.shift(rates)) == (500, rates.rejects, 0.0)
    assert Rates.of_figures({}) is Rates.of_figures({"scores": [1]}) is None


@pytest.mark.parametrize(("count", "total"), [(0, 0), (0, 10), (5, 10), (10, 10), (1, 10_000)])
def test_an_interval_holds_the_share_and_lies_in_0_to_1(count: int, total: int) -> None:
    low, high = interval(count, total)
    assert 0 <= low <= (count / total if total else 0.5) <= high <= 1


def test_a_candidate_in_shadow_that_agrees_is_let_through_and_one_that_does_not_is_not() -> None:
    rule = ShadowRule(frames=20)
    reverted = Counter[str]()
    for seed in range(200):
        for share, name in ((0.03, "good"), (0.6, "bad")):
            chance, shadow, found = random.Random(seed), Shadow(rule), None
            while found is None:
                other = Kind.REJECT if chance.random() < share else Kind.PASS
                took = chance.uniform(4, 6)
                found = shadow.add(f"f{shadow.compared}", Kind.PASS, 5.0, other, took)
            assert shadow.compared == rule.frames
            assert found.reason in {"", "disagreement"}
            reverted[name] += bool(found.reason)
    assert reverted["good"] <= 1
    assert reverted["bad"] >= 198


def test_a_slow_candidate_and_one_that_fails_once_are_told() -> None:
    shadow = Shadow(ShadowRule(frames=2))
    assert shadow.add("a", Kind.PASS, 5.0, Kind.PASS, 11.0) is None
    found = shadow.add("b", Kind.PASS, 5.0, Kind.PASS, 11.0)
    assert found is not None
    assert found.reason == "latency"
    assert shadow.fault("guest-trap", "x").reason == "guest-trap"
