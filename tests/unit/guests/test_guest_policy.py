"""The guest `policy`: rules over findings and signals, and the one thing that it remembers."""

from typing import Any

import numpy as np
import pytest
from reference_guests import ReferenceGuests

from edge.contracts import abi
from edge.contracts.messages import ActionWish
from edge.contracts.verdict import HOST_REASONS, Kind
from edge.errors import GuestError, IncompatibleError
from edge.wasm.roles import DEFECT, Decider, Decision

pytest_plugins = ("reference_guest_fixtures",)

CLASSES = ["open", "short", "spur"]
SIGNALS = ["signal.lamp", "signal.oven"]
ACTIONS = ["action.reject", "action.stop"]
FRESH, STALE, ABSENT = abi.SIGNAL_FRESH, abi.SIGNAL_STALE, abi.SIGNAL_ABSENT
GOOD = ((1.0, 0, FRESH), (200.0, 0, FRESH))
STOP = {"name": "action.stop", "ttl_ms": 4_000, "value": 0.5}
LAMP = {"signal": "signal.lamp", "min": 0.5, "max": 1.5, "reason": "lamp-failure"}


def policy(guests: ReferenceGuests, parameters: dict[str, Any]) -> Decider:
    guest = guests.configured(
        "policy", parameters, classes=CLASSES, signals=SIGNALS, actions=ACTIONS
    )
    return Decider(guest, len(SIGNALS), len(ACTIONS))


def decide(
    decider: Decider,
    *defects: tuple[str, float],
    size: float = 10.0,
    signals: tuple[tuple[float, int, int], ...] = GOOD,
) -> Decision:
    rows = [(0, 0, size, size, score, CLASSES.index(name)) for name, score in defects]
    return decider.run(np.array(rows, DEFECT), len(rows), signals, 0, 0, 640, 640)


def outcome(decision: Decision) -> tuple[Kind, str, float]:
    return decision.kind, decision.reason, round(decision.score, 4)


def test_a_clean_part_passes(guests: ReferenceGuests) -> None:
    assert outcome(decide(policy(guests, {}))) == (Kind.PASS, "ok", 0)


@pytest.mark.parametrize(
    ("score", "kind", "reason"),
    [
        (0.24, Kind.PASS, "ok"),
        (0.25, Kind.REVIEW, "defect"),
        (0.49, Kind.REVIEW, "defect"),
        (0.5, Kind.REJECT, "defect"),
    ],
)
def test_thresholds_part_pass_review_and_reject(
    guests: ReferenceGuests, score: float, kind: Kind, reason: str
) -> None:
    assert outcome(decide(policy(guests, {}), ("open", score))) == (kind, reason, score)


def test_a_class_has_its_own_thresholds(guests: ReferenceGuests) -> None:
    decider = policy(guests, {"reject": {"default": 0.9, "short": 0.3}, "review": 0.8})
    assert decide(decider, ("open", 0.7)).kind is Kind.PASS
    assert decide(decider, ("short", 0.35)).kind is Kind.REJECT


def test_a_class_can_be_kept_from_rejecting(guests: ReferenceGuests) -> None:
    decider = policy(guests, {"reject": {"spur": "never"}, "review": {"spur": 0.4}})
    assert decide(decider, ("spur", 1.0)).kind is Kind.REVIEW
    assert decide(decider, ("open", 1.0)).kind is Kind.REJECT


def test_small_findings_do_not_count(guests: ReferenceGuests) -> None:
    decider = policy(guests, {"min_area_px": {"open": 100}})
    assert outcome(decide(decider, ("open", 0.9), size=9.9)) == (Kind.PASS, "ok", 0)
    assert decide(decider, ("open", 0.9), size=10).kind is Kind.REJECT
    assert decide(decider, ("short", 0.9), size=1).kind is Kind.REJECT


def test_the_score_is_that_of_the_strongest_finding_behind_the_verdict(
    guests: ReferenceGuests,
) -> None:
    decider = policy(guests, {"reject": {"default": 0.5, "spur": "never"}})
    findings = [("spur", 0.9), ("short", 0.7), ("open", 0.6)]
    for order in (findings, findings[::-1]):
        assert outcome(decide(decider, *order)) == (Kind.REJECT, "defect", 0.7)
    assert outcome(decide(decider, ("open", 0.2), ("short", 0.1))) == (Kind.PASS, "ok", 0.2)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0.5, Kind.PASS),
        (1.5, Kind.PASS),
        (0.49, Kind.REVIEW),
        (1.51, Kind.REVIEW),
        (float("nan"), Kind.REVIEW),
    ],
)
def test_a_signal_must_lie_within_its_bounds(
    guests: ReferenceGuests, value: float, kind: Kind
) -> None:
    decider = policy(guests, {"signals": [LAMP]})
    decision = decide(decider, signals=((value, 0, FRESH), GOOD[1]))
    reason = "ok" if kind is Kind.PASS else "lamp-failure"
    assert (decision.kind, decision.reason) == (kind, reason)


def test_a_signal_may_reject(guests: ReferenceGuests) -> None:
    oven = {"signal": "signal.oven", "max": 180, "verdict": "reject", "reason": "oven-too-hot"}
    decision = decide(policy(guests, {"signals": [LAMP, oven]}))
    assert (decision.kind, decision.reason) == (Kind.REJECT, "oven-too-hot")


@pytest.mark.parametrize(("state", "key"), [(ABSENT, "on_absent"), (STALE, "on_stale")])
def test_a_missing_signal_means_review_unless_it_is_to_be_ignored(
    guests: ReferenceGuests, state: int, key: str
) -> None:
    signals = ((1.0 if state == STALE else 0.0, 0, state), GOOD[1])
    assert decide(policy(guests, {"signals": [LAMP]}), signals=signals).kind is Kind.REVIEW
    ignoring = policy(guests, {"signals": [{**LAMP, key: "ignore"}]})
    assert decide(ignoring, signals=signals).kind is Kind.PASS
    other = {"on_absent": "on_stale", "on_stale": "on_absent"}[key]
    ignoring_the_other = policy(guests, {"signals": [{**LAMP, other: "ignore"}]})
    assert decide(ignoring_the_other, signals=signals).kind is Kind.REVIEW


def test_the_worst_rule_decides_and_findings_come_before_signals(guests: ReferenceGuests) -> None:
    dark = ((0.0, 0, FRESH), GOOD[1])
    decider = policy(guests, {"signals": [LAMP, {**LAMP, "reason": "lamp-again"}]})
    assert decide(decider, ("open", 0.9), signals=dark).reason == "defect"
    assert decide(decider, ("open", 0.3), signals=dark).reason == "defect"
    assert decide(decider, signals=dark).reason == "lamp-failure"
    rejecting = policy(guests, {"signals": [{**LAMP, "verdict": "reject"}]})
    found = decide(rejecting, ("open", 0.3), signals=dark)
    assert outcome(found) == (Kind.REJECT, "lamp-failure", 0.3)


def test_each_reject_asks_for_the_reject_action(guests: ReferenceGuests) -> None:
    decider = policy(guests, {"reject_action": {"name": "action.reject", "ttl_ms": 250}})
    assert decide(decider, ("open", 0.9)).actions == (ActionWish(0, 1.0, 250),)
    assert decide(decider, ("open", 0.3)).actions == ()
    assert decide(decider).actions == ()


def test_rejects_in_a_row_stop_the_line_once(guests: ReferenceGuests) -> None:
    decider = policy(guests, {"line_stop_after": 3, "line_stop_action": STOP})
    asked = [bool(decide(decider, ("open", 0.9)).actions) for _ in range(7)]
    assert asked == [False, False, True, False, False, True, False]
    assert decide(policy(guests, {"line_stop_after": 1, "line_stop_action": STOP}),
                  ("open", 0.9)).actions == (ActionWish(1, 0.5, 4_000),)  # fmt: skip


@pytest.mark.parametrize("between", [(), (("open", 0.3),)])
def test_any_other_verdict_ends_the_row(
    guests: ReferenceGuests, between: tuple[tuple[str, float], ...]
) -> None:
    decider = policy(guests, {"line_stop_after": 2, "line_stop_action": STOP})
    decide(decider, ("open", 0.9))
    decide(decider, *between)
    assert decide(decider, ("open", 0.9)).actions == ()
    assert decide(decider, ("open", 0.9)).actions != ()


def test_a_successor_goes_on_where_its_forerunner_stopped(guests: ReferenceGuests) -> None:
    parameters = {"line_stop_after": 3, "line_stop_action": STOP}
    forerunner, successor = policy(guests, parameters), policy(guests, parameters)
    decide(forerunner, ("open", 0.9))
    decide(forerunner, ("open", 0.9))
    state = forerunner.save_state()
    assert state is not None
    assert successor.restore_state(state)
    assert successor.save_state() == state
    assert decide(successor, ("open", 0.9)).actions != ()


@pytest.mark.parametrize("state", [b"", b"\1\0\0\0", b"\2\0\0\0\2\0\0\0", b"\1\0\0\0\2\0\0\0\0"])
def test_a_foreign_state_is_refused_and_the_count_begins_anew(
    guests: ReferenceGuests, state: bytes
) -> None:
    decider = policy(guests, {"line_stop_after": 2, "line_stop_action": STOP})
    decide(decider, ("open", 0.9))
    assert not decider.restore_state(state)
    assert decide(decider, ("open", 0.9)).actions == ()


def test_a_finding_of_an_unknown_class_fails_the_frame(guests: ReferenceGuests) -> None:
    decider = policy(guests, {})
    row = np.array([(0, 0, 9, 9, 0.9, 3)], DEFECT)
    with pytest.raises(GuestError, match="class that the configuration does not name"):
        decider.run(row, 1, GOOD, 0, 0, 640, 640)


def test_two_instances_decide_alike(guests: ReferenceGuests) -> None:
    rng = np.random.default_rng(4)
    parameters = {"signals": [LAMP], "line_stop_after": 2, "line_stop_action": STOP}
    first, second = policy(guests, parameters), policy(guests, parameters)
    for _ in range(200):
        frame = [(CLASSES[rng.integers(3)], float(s)) for s in rng.random(rng.integers(3))]
        signals = ((float(rng.random() * 2), 0, int(rng.integers(3))), GOOD[1])
        assert decide(first, *frame, signals=signals) == decide(second, *frame, signals=signals)
    assert first.save_state() == second.save_state()


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"reject": "often"}, r"parameters\.reject: expected a number 0\.\.1"),
        ({"reject": {"open": -0.1}}, r"parameters\.reject\.open: expected a number 0\.\.1"),
        ({"review": {"opne": 0.1}}, r"parameters\.review\.opne: no such class"),
        ({"min_area_px": "never"}, r"parameters\.min_area_px: expected a number"),
        ({"line_stop_after": 3}, r"parameters\.line_stop_after: needs line_stop_action"),
        ({"reject_action": "stop"}, r"parameters\.reject_action: expected an object"),
        (
            {"reject_action": {"name": "action.gate"}},
            r"parameters\.reject_action\.name: no such action is granted",
        ),
        ({"reject_action": {}}, r"parameters\.reject_action: needs the name of an action"),
        (
            {"reject_action": {**STOP, "ttl": 5}},
            r"parameters\.reject_action\.ttl: no such parameter",
        ),
        ({"signals": [{**LAMP, "signal": "x"}]}, r"parameters\.signals\[0\]\.signal: no such sig"),
        ({"signals": [LAMP, {**LAMP, "min": 2}]}, r"parameters\.signals\[1\]: min is above max"),
        ({"signals": [{**LAMP, "verdict": "pass"}]}, r'verdict: expected one of "review", "rej'),
        ({"signals": [{**LAMP, "on_stale": "no"}]}, r'on_stale: expected one of "review", "ign'),
        ({"signals": [{**LAMP, "reason": "Lamp!"}]}, r"signals\[0\]\.reason: needs a reason"),
        ({"signals": [{**LAMP, "reason": "x" * 32}]}, r"signals\[0\]\.reason: needs a reason"),
        ({"signals": [{**LAMP, "reason": "ok"}]}, r"reason: this is the reason of a pass"),
        ({"signals": [{**LAMP, "minimum": 1}]}, r"parameters\.signals\[0\]\.minimum: no such"),
        ({"signals": [LAMP] * 33}, r"parameters\.signals: more than 32 rules"),
        ({"rejects": 1}, r"parameters\.rejects: no such parameter"),
    ],
)
def test_wrong_parameters_are_named(
    guests: ReferenceGuests, parameters: dict[str, Any], problem: str
) -> None:
    with pytest.raises(IncompatibleError, match=problem):
        policy(guests, parameters)


@pytest.mark.parametrize("reason", sorted(HOST_REASONS))
def test_a_reason_that_only_the_host_gives_is_refused(guests: ReferenceGuests, reason: str) -> None:
    with pytest.raises(IncompatibleError, match="only the host gives this reason"):
        policy(guests, {"signals": [{**LAMP, "reason": reason}]})
