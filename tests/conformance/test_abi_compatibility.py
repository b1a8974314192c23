"""Version 1 of the guest ABI is frozen: what was built for 1.0 runs on this host, bit for bit.

`abi-1.0/` holds the reference guests, their vectors and the schema as they were at 1.0. Nothing in
it is ever changed; a later minor version gets a folder of its own.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.contracts import abi
from edge.contracts.frame import part_number
from edge.sdk import trial
from edge.wasm.bindings import schema
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.roles import DEFECT, Decider

FROZEN = Path(__file__).parent / "abi-1.0"
GUESTS = Path(__file__).parents[2] / "guests"
NAMES = ("boxes", "letterbox", "pair", "policy")
CALL_MS = 5_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as opened:
        yield opened


def load(engine: GuestEngine, file: Path) -> GuestModule:
    return engine.load(file, hashlib.sha256(file.read_bytes()).hexdigest(), 128)


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_of_1_0_passes_the_vectors_of_1_0(engine: GuestEngine, name: str) -> None:
    module = load(engine, FROZEN / f"{name}.wasm")
    assert module.instantiate(CALL_MS).call("edge_abi") == 1 << 16
    found = list(trial.outcomes(module, FROZEN / "vectors" / name, CALL_MS))
    assert [outcome.problems for outcome in found if not outcome.passed] == []
    assert len(found) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_todays_guest_passes_the_vectors_of_1_0(engine: GuestEngine, name: str) -> None:
    module = load(engine, GUESTS / name / f"{name}.wasm")
    found = list(trial.outcomes(module, FROZEN / "vectors" / name, CALL_MS))
    assert [outcome.problems for outcome in found if not outcome.passed] == []


def layouts(document: dict[str, Any]) -> dict[str, list[tuple[Any, ...]]]:
    return {
        each["name"]: [
            (each["size"], each["alignment"]),
            *((f["name"], f["offset"], f["type"], f["count"]) for f in each["fields"]),
        ]
        for each in document["structs"]
    }


def test_minor_versions_only_add() -> None:
    """Structs, exports and constants of 1.0 stand; a reserved field may get a name."""
    frozen = json.loads((FROZEN / "abi.json").read_text())
    today = json.loads((GUESTS / "sdk" / "abi.json").read_text())
    for name, fields in layouts(frozen).items():
        for old, new in zip(fields, layouts(today)[name], strict=True):
            assert old == new or (old[0] == "reserved" and old[1:] == new[1:])
    exports = {each["name"]: (each["parameters"], each["result"]) for each in today["exports"]}
    for each in frozen["exports"]:
        assert exports[each["name"]] == (each["parameters"], each["result"])
    required = {each["name"] for each in today["exports"] if each["required"]}
    assert required == {each["name"] for each in frozen["exports"] if each["required"]}
    numbers = {key: value for group in schema().constants for key, value in group.values.items()}
    for group in frozen["constants"]:
        for key, value in group["values"].items():
            assert numbers[key] == value or key == "ABI_MINOR"
    assert abi.ABI_MINOR > 0


def policy(engine: GuestEngine, file: Path) -> Decider:
    guest = load(engine, file).instantiate(CALL_MS)
    guest.configure(
        {
            "parameters": {"line_stop_after": 3, "line_stop_action": {"name": "action.stop"}},
            "classes": ["spot"],
            "actions": ["action.stop"],
        }
    )
    return Decider(guest, 0, 1)


def reject(decider: Decider) -> bool:
    """Judge a bad part; whether the line is to stop."""
    bad = np.array([(0, 0, 9, 9, 0.9, 0)], DEFECT)
    return bool(decider.run(bad, 1, (), 0, 0, 64, 64, part_number("p")).actions)


def test_a_swap_from_the_policy_of_1_0_loses_no_reject_of_its_row(engine: GuestEngine) -> None:
    old = policy(engine, FROZEN / "policy.wasm")
    assert [reject(old), reject(old)] == [False, False]
    state = old.save_state()
    assert state == struct.pack("<II", 1, 2)
    new = policy(engine, GUESTS / "policy" / "policy.wasm")
    assert new.restore_state(state)
    assert reject(new)


def test_the_way_back_is_refused_by_name_and_begins_a_new_row(engine: GuestEngine) -> None:
    new = policy(engine, GUESTS / "policy" / "policy.wasm")
    assert [reject(new), reject(new)] == [False, False]
    state = new.save_state()
    assert state is not None
    old = policy(engine, FROZEN / "policy.wasm")
    assert not old.restore_state(state)
    assert "the state is not of this policy's version 1" in old.state_refusal
    assert [reject(old), reject(old), reject(old)] == [False, False, True]
