"""The language of guests' parameter schemas: what it says, what it refuses, what it costs."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contracts.abi import MAX_PARAMETERS_SECTION_BYTES, PARAMETERS_SECTION
from edge.contracts.parameters import MAX_DEPTH, Names, findings, read_schema
from edge.errors import IncompatibleError
from edge.wasm import binary
from edge.wasm.section import embed, parameter_schema

EMPTY = b"\0asm\x01\0\0\0"
COMPONENT = b"\0asm\x0d\0\x01\0"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-4, 4),
    st.sampled_from([0.5, 1.0, 2.5, -3.0]),
    st.sampled_from(["", "a", "bb", "ccc"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), inner, max_size=4),
    ),
    max_leaves=8,
)
types = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    key = st.sampled_from(["a", "b", "c"])
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types,
            "enum": st.lists(scalars, min_size=1, max_size=3),
            "const": values,
            "minimum": st.integers(-2, 2),
            "maximum": st.integers(-2, 3),
            "minLength": st.integers(0, 2),
            "maxLength": st.integers(0, 3),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 3),
            "items": inner,
            "properties": st.dictionaries(key, inner, max_size=3),
            "required": st.lists(key, max_size=2, unique=True),
            "additionalProperties": st.one_of(st.booleans(), inner),
            "propertyNames": inner,
            "dependentRequired": st.dictionaries(key, st.lists(key, max_size=2, unique=True)),
            "oneOf": st.lists(inner, min_size=1, max_size=3),
        },
    )


schemas: st.SearchStrategy[Any] = st.recursive(st.just({}), keywords, max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(schema=keywords(schemas), parameters=st.dictionaries(st.sampled_from("abcd"), values))
def test_it_agrees_with_the_library(schema: dict[str, Any], parameters: dict[str, Any]) -> None:
    schema = {**schema, "type": "object"}
    read = read_schema(json.dumps(schema).encode(), "guest")
    wanted = jsonschema.Draft202012Validator(schema).is_valid(parameters)
    assert (not findings(read, parameters, Names())) == wanted


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"enum": [None], "const": []}, None, False),
        ({"enum": [1, 2], "const": 2}, 1, False),
        ({"enum": [1, 2], "const": 2}, 2, True),
        ({"const": [1]}, [True], False),
        ({"const": [1]}, [1.0], True),
        ({"enum": [{"a": [0]}]}, {"a": [False]}, False),
        ({"enum": [{"a": [0]}]}, {"a": [0]}, True),
    ],
)
def test_enum_and_const_both_hold_and_truth_is_no_number(
    schema: dict[str, Any], value: Any, fits: bool
) -> None:
    whole = {"type": "object", "properties": {"a": schema}}
    read = read_schema(json.dumps(whole).encode(), "guest")
    assert (not findings(read, {"a": value}, Names())) == fits
    assert jsonschema.Draft202012Validator(whole).is_valid({"a": value}) == fits


def test_names_are_held_to_their_schema_also_where_they_have_a_property() -> None:
    whole = {"type": "object", "properties": {"aa": {}}, "propertyNames": {"maxLength": 1}}
    read = read_schema(json.dumps(whole).encode(), "guest")
    assert [each.path for each in findings(read, {"aa": 1}, Names())] == ["aa"]
    assert not findings(read, {"a": 1}, Names())


def test_a_finding_names_place_value_expectation_and_remedy() -> None:
    schema = read_schema(
        b'{"type": "object", "additionalProperties": false, "properties": {'
        b'"score": {"type": "number", "minimum": 0, "maximum": 1},'
        b'"rules": {"type": "array", "items": {"type": "object", "required": ["signal"],'
        b' "properties": {"signal": {"type": "string", "x-name-of": "signal"}}}}}}',
        "guest",
    )
    parameters = {"scroe": 1, "score": "high", "rules": [{"signal": "signal.lmap"}, {}]}
    said = list(map(str, findings(schema, parameters, Names(signals=("signal.lamp",)))))
    assert said == [
        "parameters.scroe: expected no parameter of this name, found 1 (did you mean score?)",
        'parameters.score: expected a number 0..1, found "high"',
        "parameters.rules[0].signal: expected the name of a signal, "
        'found "signal.lmap" (did you mean signal.lamp?)',
        "parameters.rules[1].signal: expected the name of a signal, found nothing (it is required)",
    ]


def test_long_values_are_shortened_and_control_characters_written_out() -> None:
    schema = read_schema(b'{"type": "object", "additionalProperties": false}', "guest")
    (finding,) = findings(schema, {"a" * 500: "\x1b[31m" * 500}, Names())
    assert len(str(finding)) < 300
    assert "\x1b" not in str(finding)


def nested(depth: int) -> bytes:
    return b'{"type":"object","items":' * depth + b"{}" + b"}" * depth


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", 'must be of "type": "object"'),
        (b'{"type": "string"}', 'must be of "type": "object"'),
        (b'{"type": "object", "type": "object"}', "a key stands twice"),
        (b'{"type": "object", "minimum": NaN}', "NaN is no number"),
        (b'{"type": "object", "minimum": 1e999}', "minimum cannot be"),
        (b'{"type": "object", "minimum": "0"}', "minimum cannot be"),
        (b'{"type": ["object"]}', "type cannot be"),
        (b'{"type": "object", "$ref": "#"}', r"keyword '\$ref' is not of the language"),
        (b'{"type": "object", "$dynamicRef": "#"}', r"'\$dynamicRef' is not of the language"),
        (b'{"type": "object", "pattern": "(a+)+$"}', "'pattern' is not of the language"),
        (b'{"type": "object", "patternProperties": {}}', "'patternProperties' is not"),
        (b'{"type": "object", "properties": {"a": {"format": "x"}}}', r"at \.a: .*'format'"),
        (b'{"type": "object", "properties": {"a": 1}}', r"at \.a: expected an object"),
        (b'{"type": "object", "oneOf": []}', "oneOf cannot be"),
        (b'{"type": "object", "x-name-of": "host"}', "x-name-of cannot be"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 60_000, "nested too deeply"),
        (nested(MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH}"),
        (b'{"type": "object", "enum": [' + b"0," * 3000 + b"0]}", "over 2048 values"),
        (b" " * (MAX_PARAMETERS_SECTION_BYTES + 1), "at most 65536 may be"),
    ],
)
def test_what_is_not_of_the_language_is_refused_by_name(text: bytes, problem: str) -> None:
    with pytest.raises(IncompatibleError, match=problem) as refusal:
        read_schema(text, "guest x.wasm")
    assert str(refusal.value).startswith("guest x.wasm: its parameter schema")


def test_a_schema_that_costs_more_than_its_size_is_stopped() -> None:
    branches = ",".join('{"const": "x"}' for _ in range(900))
    schema = read_schema(
        f'{{"type": "object", "properties": {{"a": {{"type": "array", '
        f'"items": {{"oneOf": [{branches}]}}}}}}}}'.encode(),
        "guest",
    )
    with pytest.raises(IncompatibleError, match="takes too long"):
        findings(schema, {"a": [0] * 4000}, Names())


@pytest.mark.parametrize("head", [EMPTY, COMPONENT])
def test_a_schema_is_put_into_a_guest_found_there_and_replaced(head: bytes) -> None:
    other = binary.name("producers") + b"someone"
    wasm = head + bytes([binary.CUSTOM]) + binary.number(len(other)) + other
    assert parameter_schema(wasm, "guest") is None
    once = embed(wasm, b'{"type": "object"}')
    assert parameter_schema(once, "guest") == {"type": "object"}
    twice = embed(once, b'{"type": "object", "title": "new"}')
    assert parameter_schema(twice, "guest") == {"type": "object", "title": "new"}
    assert twice.startswith(wasm)
    assert twice.count(PARAMETERS_SECTION.encode()) == 1


def section(content: bytes) -> bytes:
    named = binary.name(PARAMETERS_SECTION) + content
    return bytes([binary.CUSTOM]) + binary.number(len(named)) + named


@pytest.mark.parametrize(
    ("wasm", "problem"),
    [
        (b"", "it is no Wasm binary"),
        (b"(module)", "it is no Wasm binary"),
        (EMPTY + b"\0", "the module ends here"),
        (EMPTY + b"\0\x7f", "127 bytes are announced"),
        (EMPTY + b"\0\x02\x7f\x41", "bytes are announced"),
        (EMPTY + section(b"{}") * 2, "2 sections 'edge.parameters'"),
        (EMPTY + section(b"{"), "not JSON"),
    ],
)
def test_a_broken_section_is_refused_by_the_guests_name(wasm: bytes, problem: str) -> None:
    with pytest.raises(IncompatibleError, match=f"guest x: .*{problem}"):
        parameter_schema(wasm, "guest x")


def test_what_is_no_schema_is_not_put_into_a_guest() -> None:
    with pytest.raises(IncompatibleError, match="not of the language"):
        embed(EMPTY, b'{"type": "object", "$ref": "#"}')
