"""The guests' reader of configuration documents, held to hostile text.

Nobody but the deployment's author writes these documents, yet a guest that traps on one would only
say so; a guest that says what is wrong, and where, saves an afternoon.
"""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_guests import NAMES, ReferenceGuests, configure_raw

from edge.contracts import abi

pytest_plugins = ("reference_guest_fixtures",)

CLASSES = [f"class-{i}" for i in range(100)]
GOOD = json.dumps(
    {
        "parameters": {"score": {"default": 0.25, "ö": 3e-1}, "iou": 0.5, "class_agnostic": True},
        "classes": ["open", "ö"],
        "signals": ["signal.lamp"],
        "actions": [],
        "inputs": [{"name": "input", "dtype": "uint8", "shape": [1, 2, 640, 640]}],
        "outputs": [],
    },
    ensure_ascii=False,
).encode()


def test_the_good_document_is_taken(guests: ReferenceGuests) -> None:
    assert configure_raw(guests.fresh("boxes"), GOOD)[0] == abi.OK


@pytest.mark.parametrize("name", NAMES)
def test_no_parameters_at_all_means_defaults(guests: ReferenceGuests, name: str) -> None:
    assert configure_raw(guests.fresh(name), b"{}")[0] == abi.OK


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"", "configuration, byte 0: expected a value"),
        (b"[]", "configuration, byte 0: expected an object"),
        (b"{", "byte 1: expected a string"),
        (b'{"parameters"', "byte 13: expected ':'"),
        (b'{"parameters": {}} {}', "byte 19: text behind the document"),
        (b'{"parameters": {},}', "byte 18: expected a string"),
        (b'{"parameters": [1 2]}', "expected ',' or ']'"),
        (b'{"parameters": {"a": 1 "b": 2}}', "expected ',' or '}'"),
        (b'{"a": ' * 17 + b"1" + b"}" * 17, "nested too deeply"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a": [' + b"0," * 5_000 + b"0]}", "too many values"),
        (b'{"a": 1e309}', "the number is too large"),
        (b'{"a": 1.0000001e308}', "the number is too large"),
        (b'{"a": ' + b"9" * 400 + b"}", "the number is too large"),
        (b'{"a": 1e99999999999999999999}', "the number is too large"),
        (b'{"a": 01}', "a number begins with 0"),
        (b'{"a": 1.}', "expected a digit after the point"),
        (b'{"a": -}', "expected a digit"),
        (b'{"a": 1e}', "expected a digit in the exponent"),
        (b'{"a": NaN}', "expected a value"),
        (b'{"a": nul}', "expected a value"),
        (b'{"a": "b', "the text ends in a string"),
        (b'{"a": "\n"}', "a control character"),
        (b'{"a": "\\x"}', "no such escape"),
        (b'{"a": "\\u12G4"}', "expected four hexadecimal digits"),
        (b'{"a": "\\ud800"}', "half a surrogate"),
        (b'{"a": "\\udc00"}', "not a character"),
        (b'{"a": "\\u0000"}', "not a character"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\xc0\x80"}', "not UTF-8"),
        (b'{"a": "\xe2\x82', "not UTF-8"),
        (b'{"parameters": {"nope": 1}}', "parameters.nope: no such parameter"),
        (b'{"parameters": 5}', "parameters: expected an object"),
        (b'{"parameters": {}, "parameters": {}}', "parameters: stands twice"),
        (b'{"classes": ["a", 1]}', "classes[1]: expected a string"),
        (json.dumps({"classes": ["c"] * 1025}).encode(), "classes: more classes than this guest"),
    ],
)
def test_bad_documents_are_refused_with_their_place(
    guests: ReferenceGuests, name: str, document: bytes, problem: str
) -> None:
    guest = guests.fresh(name)
    result, sentence = configure_raw(guest, document)
    assert result == abi.ERROR_PARAMETERS
    assert problem in sentence
    assert not guest.broken


@pytest.mark.parametrize("digits", ["0.5", "5e-1", "0.05e+1", "5" + "0" * 300 + "e-301", "5E-1"])
def test_any_spelling_of_a_number_is_read(guests: ReferenceGuests, digits: str) -> None:
    document = b'{"parameters": {"iou": %s}}' % digits.encode()
    assert configure_raw(guests.fresh("boxes"), document)[0] == abi.OK


def test_zero_with_a_huge_exponent_is_zero(guests: ReferenceGuests) -> None:
    document = b'{"parameters": {"score": 0e99999, "iou": 0.0e-99999}}'
    assert configure_raw(guests.fresh("boxes"), document)[0] == abi.OK


def test_names_are_compared_after_their_escapes(guests: ReferenceGuests) -> None:
    document = b'{"classes": ["\xc3\xb6\xf0\x9f\x9a\x80"], "parameters": {"score": {"\\u00f6\\ud83d\\ude80": 0.5}}}'  # noqa: E501
    assert configure_raw(guests.fresh("boxes"), document)[0] == abi.OK


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_stands_twice_is_refused(guests: ReferenceGuests, name: str) -> None:
    document = (
        b'{"parameters": {"pad": 1, "pad": 2, "score": 0, "score": 1, "review": 0, "review": 1}}'
    )
    result, sentence = configure_raw(guests.fresh(name), document)
    assert result == abi.ERROR_PARAMETERS
    assert "stands twice" in sentence or "no such parameter" in sentence


def test_a_class_that_stands_twice_is_refused(guests: ReferenceGuests) -> None:
    document = b'{"parameters": {"score": {"a": 0.1, "a": 0.2}}, "classes": ["a"]}'
    result, sentence = configure_raw(guests.fresh("boxes"), document)
    assert (result, sentence.endswith("parameters.score.a: stands twice")) == (-1, True)


@pytest.mark.parametrize("indent", range(4))
def test_a_long_key_is_cut_between_characters(guests: ReferenceGuests, indent: int) -> None:
    document = json.dumps({"parameters": {"x" * indent + "🚀" * 60: 1}}, ensure_ascii=False)
    result, sentence = configure_raw(guests.fresh("boxes"), document.encode())
    assert result == abi.ERROR_PARAMETERS
    shown = "x" * indent + "🚀" * ((48 - indent) // 4)
    assert sentence.endswith(f"parameters.{shown}...: no such parameter")


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats(-1e307, 1e307) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    ["score", "iou", "pad", "scale", "mean", "std", "reject", "review", "signals", "max", "x"]
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(parameters=st.dictionaries(keys, json_values, max_size=4))
def test_any_json_is_taken_or_refused_with_a_sentence(
    guests: ReferenceGuests, name: str, parameters: dict[str, Any]
) -> None:
    guest = guests.fresh(name)
    document = {"parameters": parameters, "classes": ["open"], "actions": []}
    result, sentence = configure_raw(guest, json.dumps(document).encode())
    assert result == abi.OK or "parameters." in sentence
    assert not guest.broken


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(
    cut=st.integers(0, len(GOOD)),
    at=st.integers(0, len(GOOD) - 1),
    put=st.binary(max_size=6),
)
@example(cut=len(GOOD), at=0, put=b"")
def test_mutilated_text_never_traps(
    guests: ReferenceGuests, name: str, cut: int, at: int, put: bytes
) -> None:
    guest = guests.fresh(name)
    document = (GOOD[:at] + put + GOOD[at + len(put) :])[:cut]
    result, sentence = configure_raw(guest, document)
    assert result in (abi.OK, abi.ERROR_PARAMETERS)
    assert sentence
    assert not guest.broken
