"""What the guest `policy` remembers: bursts of a part, the drift of scores, and its state."""

import random
import struct
from typing import Any

import numpy as np
import pytest
from reference_guests import ReferenceGuests

from edge.contracts.frame import part_number
from edge.contracts.messages import ActionWish
from edge.contracts.verdict import Kind
from edge.errors import IncompatibleError
from edge.wasm.roles import DEFECT, Decider, Decision

pytest_plugins = ("reference_guest_fixtures",)

ACTIONS = ["action.reject", "action.stop", "action.clean"]
REJECT = {"name": "action.reject", "ttl_ms": 100}
STOP = {"name": "action.stop", "ttl_ms": 100}
GATE = ActionWish(0, 1.0, 100)
BURST = {"frames": 4, "reject": 2}


def policy(guests: ReferenceGuests, **parameters: Any) -> Decider:
    guest = guests.configured("policy", parameters, classes=["spot"], actions=ACTIONS)
    return Decider(guest, 0, len(ACTIONS))


def see(decider: Decider, score: float, part: str = "") -> Decision:
    rows = [(0, 0, 9, 9, score, 0)] if score else []
    found = np.array(rows, DEFECT)
    return decider.run(found, len(rows), (), 0, 0, 640, 640, part_number(part))


def told(decision: Decision) -> tuple[Kind, str]:
    return decision.kind, decision.reason


def test_a_part_is_rejected_when_enough_of_its_frames_say_so(guests: ReferenceGuests) -> None:
    decider = policy(guests, burst=BURST, reject_action=REJECT)
    assert told(see(decider, 0, "a")) == (Kind.PASS, "ok")
    first = see(decider, 0.9, "a")
    assert (told(first), first.actions) == ((Kind.REVIEW, "unconfirmed"), ())
    second = see(decider, 0.9, "a")
    assert (told(second), second.actions) == ((Kind.REJECT, "defect"), (GATE,))
    third = see(decider, 0, "a")  # a clean frame does not clear a part
    assert (told(third), third.actions) == ((Kind.REJECT, "burst"), ())
    assert told(see(decider, 0, "b")) == (Kind.PASS, "ok")


def test_frames_that_are_too_far_back_do_not_count(guests: ReferenceGuests) -> None:
    decider = policy(guests, burst={"frames": 2, "reject": 2, "until": "pass"})
    scores = [0.9, 0, 0.9, 0.9, 0]
    kinds = [told(see(decider, score, "a")) for score in scores]
    assert kinds == [
        (Kind.PASS, "ok"),
        (Kind.PASS, "ok"),
        (Kind.PASS, "ok"),
        (Kind.REJECT, "defect"),
        (Kind.PASS, "ok"),
    ]


def test_a_frame_without_a_part_is_judged_alone(guests: ReferenceGuests) -> None:
    decider = policy(guests, burst=BURST)
    assert told(see(decider, 0.9)) == (Kind.REJECT, "defect")


def test_mixed_parts_are_told_apart_as_a_model_of_it_does(guests: ReferenceGuests) -> None:
    rng = random.Random(5)
    decider = policy(guests, burst={"frames": 5, "reject": 3})
    history: dict[str, list[bool]] = {}
    for _ in range(400):
        part = f"part-{rng.randrange(6)}"
        bad = rng.random() < 0.4
        frames = history.setdefault(part, [])
        frames.append(bad)
        wanted = Kind.REJECT if sum(frames[-5:]) >= 3 else Kind.REVIEW if bad else Kind.PASS
        assert see(decider, 0.9 if bad else 0, part).kind is wanted


def test_a_part_that_many_others_have_followed_begins_anew(guests: ReferenceGuests) -> None:
    decider = policy(guests, burst=BURST)
    see(decider, 0.9, "old")
    for number in range(7):
        see(decider, 0, f"new-{number}")
    assert told(see(decider, 0.9, "old")) == (Kind.REJECT, "defect")
    see(decider, 0.9, "older")
    for number in range(8):
        see(decider, 0, f"newer-{number}")
    assert told(see(decider, 0.9, "older")) == (Kind.REVIEW, "unconfirmed")


def test_the_line_stops_after_so_many_parts_and_not_frames(guests: ReferenceGuests) -> None:
    decider = policy(guests, burst=BURST, line_stop_after=2, line_stop_action=STOP)

    def stops(part: str, score: float) -> bool:
        return any(see(decider, score, part).actions for _ in range(3))

    assert [stops("a", 0.9), stops("b", 0), stops("c", 0.9), stops("d", 0.9)] == [
        False,
        False,  # a good part between them ends the row
        False,
        True,
    ]


DRIFT = {"limit": 0.05, "learn": 20, "span": 9, "action": {"name": "action.clean", "ttl_ms": 50}}


def test_a_drift_is_said_once_and_its_frames_are_reviewed_until_it_ends(
    guests: ReferenceGuests,
) -> None:
    decider = policy(guests, drift=DRIFT, review=0.9, reject=0.95)
    for _ in range(60):
        assert told(see(decider, 0.1)) == (Kind.PASS, "ok")
    # A model of it: weight 2 / (9 + 1).
    level, alarm, wishes = 0.1, False, 0
    for number in range(60):
        score = 0.2 if number < 30 else 0.1
        level += 0.2 * (float(np.float32(score)) - level)
        began = not alarm
        alarm = abs(level - 0.1) > (0.025 if alarm else 0.05)
        decision = see(decider, score)
        assert told(decision) == ((Kind.REVIEW, "drift") if alarm else (Kind.PASS, "ok")), number
        assert bool(decision.actions) == (alarm and began)
        wishes += len(decision.actions)
    assert (wishes, alarm) == (1, False)


def test_frames_with_findings_that_count_do_not_move_the_level(guests: ReferenceGuests) -> None:
    decider = policy(guests, drift={**DRIFT, "baseline": 0.1}, reject=0.5, review=0.5)
    for _ in range(50):
        assert told(see(decider, 0.9)) == (Kind.REJECT, "defect")
    assert told(see(decider, 0.1)) == (Kind.PASS, "ok")


def test_a_drift_downwards_is_one_too(guests: ReferenceGuests) -> None:
    decider = policy(guests, drift={**DRIFT, "baseline": 0.2, "verdict": "pass"}, review=0.9)
    wishes = [see(decider, 0.0).actions for _ in range(20)]
    assert sum(map(len, wishes)) == 1
    assert told(see(decider, 0.0)) == (Kind.PASS, "ok")


def test_an_heir_goes_on_in_the_middle_of_a_burst_and_a_drift(guests: ReferenceGuests) -> None:
    parameters: dict[str, Any] = {"burst": BURST, "drift": DRIFT, "review": 0.4, "reject": 0.5}
    rng = random.Random(3)
    frames = [(rng.choice([0.1, 0.3, 0.9]), f"p{n // 3}") for n in range(90)]
    whole = policy(guests, **parameters)
    expected = [see(whole, *frame) for frame in frames]
    heir = policy(guests, **parameters)
    found = []
    for frame in frames:
        state = heir.save_state()
        assert state is not None
        assert len(state) == 168
        heir = policy(guests, **parameters)
        assert heir.restore_state(state)
        found.append(see(heir, *frame))
    assert found == expected


def test_it_takes_over_the_state_of_version_1(guests: ReferenceGuests) -> None:
    decider = policy(guests, line_stop_after=3, line_stop_action=STOP)
    assert decider.restore_state(struct.pack("<II", 1, 2))
    assert see(decider, 0.9).actions == (ActionWish(1, 1.0, 100),)


@pytest.mark.parametrize(
    "state", [b"", b"\1", struct.pack("<II", 2, 2), struct.pack("<III", 1, 2, 0), bytes(168)]
)
def test_another_state_is_refused_and_it_starts_empty(
    guests: ReferenceGuests, state: bytes
) -> None:
    decider = policy(guests, line_stop_after=2, line_stop_action=STOP)
    see(decider, 0.9)
    assert not decider.restore_state(state)
    assert "not of this policy's versions 1 and 2" in decider.state_refusal
    assert see(decider, 0.9).actions == ()
    assert see(decider, 0.9).actions != ()


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"burst": {"frames": 2, "reject": 3}}, r"parameters\.burst: reject is above frames"),
        ({"burst": {"frames": 2}}, r"parameters\.burst: needs reject"),
        ({"drift": {}}, r"parameters\.drift: needs limit"),
        ({"drift": {"limit": 0.1, "action": {"name": "x"}}}, "no such action is granted"),
        ({"drift": {"limit": 0.1, "spam": 3}}, r"parameters\.drift\.spam: no such parameter"),
    ],
)
def test_wrong_sections_are_named(
    guests: ReferenceGuests, parameters: dict[str, Any], problem: str
) -> None:
    with pytest.raises(IncompatibleError, match=problem):
        policy(guests, **parameters)
