"""Each guest and the schema that it carries refuse the same parameters, and take the same."""

import copy
import json
import random
from typing import Any

import pytest
from reference_guests import GUESTS, NAMES, ReferenceGuests, configure_raw

from edge.contracts import abi
from edge.contracts.parameters import Names, Schema, findings, read_schema

pytest_plugins = ("reference_guest_fixtures",)

CLASSES = ("open", "short", "pin-hole")
SIGNALS = ("signal.lamp", "signal.oven")
ACTIONS = ("action.reject", "action.stop")
AROUND = Names(classes=CLASSES, signals=SIGNALS, actions=ACTIONS)
CASES = 250
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 0.5, 1, 2, 3.0, 2.5, 1e9, -1e15, 1e14, "", "never", "fit", "ok",
    "defect", "overrun", "open", "signal.lamp", "action.stop", "a" * 31, "a" * 32, "A", [], [1],
    [1, 2, 3], [1, 1, "1"], {}, {"default": 0.5}, {"open": "never"}, {"opne": 1}, {"name": 3},
)  # fmt: skip


def schema_of(name: str) -> Schema:
    return read_schema((GUESTS / name / "parameters.json").read_bytes(), name)


def drawn(schema: Schema, rng: random.Random) -> Any:
    """A value that is mostly what the schema asks for, and now and then is not."""
    if rng.random() < 0.04:
        return rng.choice(ODD)
    if "oneOf" in schema:
        return drawn(rng.choice(schema["oneOf"]), rng)
    if words := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return rng.choice(words)
    if kind := schema.get("x-name-of"):
        return rng.choice({"signal": SIGNALS, "action": ACTIONS}.get(kind, ("drift-1", "x", "ok")))
    draw = {"number": drawn_number, "integer": drawn_whole, "array": drawn_list}
    return draw.get(schema["type"], drawn_object)(schema, rng)


def drawn_number(schema: Schema, rng: random.Random) -> Any:
    low, high = schema["minimum"], schema["maximum"]
    near = [low, high, low / 2 + high / 2, min(max(rng.uniform(0, 4), low), high)]
    return rng.choice([low - 1, high + 1] if rng.random() < 0.03 else near)


def drawn_whole(schema: Schema, rng: random.Random) -> Any:
    low, high = schema["minimum"], schema["maximum"]
    return rng.choice([low, high, min(low + 3, high), float(min(low + 2, high))])


def drawn_list(schema: Schema, rng: random.Random) -> Any:
    least, most = schema.get("minItems", 0), min(schema["maxItems"], 4)
    count = rng.randint(least, max(most, least)) + (rng.random() < 0.03)
    return [drawn(schema["items"], rng) for _ in range(count)]


def drawn_object(schema: Schema, rng: random.Random) -> Any:
    if schema["type"] == "boolean":
        return rng.random() < 0.5
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        keys = rng.sample((*CLASSES, "default"), rng.randint(0, 4))
        return {key: drawn(others, rng) for key in keys}
    required = schema.get("required", ())
    found = {
        key: drawn(member, rng)
        for key, member in schema["properties"].items()
        if rng.random() < (0.95 if key in required else 0.35)
    }
    if rng.random() < 0.03:
        found["no-such"] = 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_guest_and_schema_refuse_the_same(guests: ReferenceGuests, name: str) -> None:
    schema, rng = schema_of(name), random.Random(name)
    taken = refused = 0
    for _ in range(CASES):
        parameters = drawn_object(schema, rng)
        document = {
            "parameters": parameters,
            "classes": CLASSES,
            "signals": SIGNALS,
            "actions": ACTIONS,
        }
        result, sentence = configure_raw(guests.fresh(name), json.dumps(document).encode())
        wrong = findings(schema, parameters, AROUND)
        assert (result == abi.OK) == (not wrong), (parameters, sentence, list(map(str, wrong)))
        taken += result == abi.OK
        refused += result != abi.OK
    assert min(taken, refused) > CASES // 20  # both ways were walked


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_that_is_laxer_than_its_guest_is_found(guests: ReferenceGuests, name: str) -> None:
    """The control: with one bound taken out of the schema, the two differ somewhere."""
    lax = copy.deepcopy(schema_of(name))
    lax["additionalProperties"] = True
    document = {"parameters": {"no-such": 1}}
    result, _ = configure_raw(guests.fresh(name), json.dumps(document).encode())
    assert result != abi.OK
    assert findings(lax, {"no-such": 1}, AROUND) == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_that_a_schema_names_are_allowed_by_it(name: str) -> None:
    def check(schema: Schema) -> None:
        for member in schema.get("properties", {}).values():
            if "default" in member:
                only = {"type": "object", "properties": {"x": member}}
                assert findings(only, {"x": member["default"]}, AROUND) == ()
            check(member)
            check(member.get("items", {}))

    check(schema_of(name))
