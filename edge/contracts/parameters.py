"""The schema that a guest carries for its parameters, and what a deployment got wrong about them.

A subset of JSON Schema 2020-12 with three keywords of our own; `guests/ABI.md` has the list. It
is our own checker, and not a library's, because a schema comes from whoever wrote the guest: what
costs more than its size (`$ref`, `pattern`) is not in the language, a document is bounded before
it is walked, and the walk counts its steps. A test holds it to the library's answers.
"""

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from edge.contracts.abi import MAX_PARAMETERS_SECTION_BYTES
from edge.contracts.verdict import HOST_REASONS, Reason
from edge.errors import IncompatibleError

MAX_DEPTH: Final = 12
MAX_VALUES: Final = 2048
MAX_STEPS: Final = 100_000
"""Of holding parameters to a schema: some 0.1 s."""
MAX_FINDINGS: Final = 20

_PYTHON: Final = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
_TYPES: Final = (*_PYTHON, "number", "integer")
_LISTS: Final = ("class", "signal", "action", "input", "output")
_NAMED: Final = (*_LISTS, "reason")
_REASON: Final = re.compile(r"[a-z0-9-]{1,31}")
_RESERVED: Final = frozenset(HOST_REASONS) | {Reason.OK}
_SHOWN: Final = 60
"""Characters of a value that a finding shows."""

Schema = dict[str, Any]


class Names(msgspec.Struct, frozen=True):
    """The names around the parameters in the configuration document."""

    classes: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def of(self, kind: str) -> tuple[str, ...]:
        """The names of one kind: `class`, `signal`, `action`, `input` or `output`."""
        named: tuple[str, ...] = msgspec.structs.astuple(self)[_LISTS.index(kind)]
        return named


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        path: Where, e.g. `score.open` or `signals[0].min`; empty: the parameters as a whole.
        found: The value, as JSON, shortened.
        expected: What the guest takes there.
        remedy: What to do; may be empty.
    """

    path: str
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"parameters.{self.path}" if self.path else "parameters"
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{place}: expected {self.expected}, found {self.found}{remedy}"


def read_schema(text: bytes, where: str) -> Schema:
    """Read a schema and refuse what is not of the language.

    Args:
        text: JSON, as it lies in the section.
        where: Names the guest in errors.

    Raises:
        IncompatibleError: It is no such schema; the sentence names the place.
    """
    if len(text) > MAX_PARAMETERS_SECTION_BYTES:
        raise IncompatibleError(
            f"{where}: its parameter schema has {len(text)} bytes; "
            f"at most {MAX_PARAMETERS_SECTION_BYTES} may be"
        )
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise IncompatibleError(f"{where}: its parameter schema is nested too deeply") from None
    except ValueError as broken:
        raise IncompatibleError(f"{where}: its parameter schema is not JSON: {broken}") from None
    if sum(1 for _ in _values(found, where)) > MAX_VALUES:
        raise IncompatibleError(f"{where}: its parameter schema has over {MAX_VALUES} values")
    _expect_schema(found, "", where)
    if found.get("type") != "object":
        raise IncompatibleError(f'{where}: its parameter schema must be of "type": "object"')
    return dict(found)


def findings(schema: Schema, parameters: dict[str, Any], names: Names) -> tuple[Finding, ...]:
    """Hold parameters to a schema that `read_schema` gave; empty: they fit.

    Raises:
        IncompatibleError: Schema and parameters together take more than `MAX_STEPS`.
    """
    return tuple(_Check(names).value(schema, parameters, ""))[:MAX_FINDINGS]


def expected(schema: Schema) -> str:
    """What a value should be, in words: `a number 0..1`."""
    if "oneOf" in schema:
        words = list(dict.fromkeys(expected(branch) for branch in schema["oneOf"]))
        return " or ".join(words)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    if "x-name-of" in schema:
        kind = schema["x-name-of"]
        if kind == "reason":
            return "a reason of 1..31 a-z, 0-9, '-'"
        return f"the name of {'a' if kind in ('class', 'signal') else 'an'} {kind}"
    return _expected_type(schema, str(schema.get("type", "value")))


def _expected_type(schema: Schema, kind: str) -> str:
    if kind == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        span = f" of {_number(least)}" if least == most else f" of at most {most}" if most else ""
        items = schema.get("items", {})
        return f"a list{span}" + (f", each {expected(items)}" if items.get("type") else "")
    each = schema.get("additionalProperties")
    if isinstance(each, dict):
        named = schema.get("propertyNames")
        keys = f" under {expected(named)}" if named else ""
        return f"an object with {expected(each)}{keys}"
    low, high = schema.get("minimum"), schema.get("maximum")
    span = "" if low is None and high is None else f" {_number(low)}..{_number(high)}"
    words = {"integer": "a whole number", "boolean": "true or false", "null": "null"}
    return words.get(kind, f"an {kind}" if kind == "object" else f"a {kind}") + span


class _Check:
    """One walk of parameters along their schema, its steps counted."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._steps = 0

    def value(self, schema: Schema, value: Any, path: str) -> Iterator[Finding]:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise IncompatibleError("the guest's parameter schema takes too long to be checked")
        if "oneOf" in schema:
            yield from self._one_of(schema, value, path)
        if not self._fits_alone(schema, value):
            yield Finding(path, _shown(value), expected(schema), self._remedy(schema, value))
        elif isinstance(value, dict):
            yield from self._object(schema, value, path)
        elif isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                yield from self.value(schema["items"], item, f"{path}[{index}]")

    def _one_of(self, schema: Schema, value: Any, path: str) -> Iterator[Finding]:
        """Exactly one branch must fit; where none does, the branch of the value's type tells."""
        branches = [(b, list(self.value(b, value, path))) for b in schema["oneOf"]]
        fitting = sum(not wrong for _, wrong in branches)
        if fitting > 1:
            yield Finding(path, _shown(value), f"only one of: {expected(schema)}")
        if fitting:
            return
        meant = [wrong for branch, wrong in branches if _is_of(value, branch.get("type", ""))]
        if len(meant) == 1:
            yield from meant[0]
        else:
            yield Finding(path, _shown(value), expected(schema))

    def _fits_alone(self, schema: Schema, value: Any) -> bool:
        """All but what lies below the value."""
        if "type" in schema and not _is_of(value, schema["type"]):
            return False
        if "const" in schema and not _equal(value, schema["const"]):
            return False
        if "enum" in schema and not any(_equal(value, each) for each in schema["enum"]):
            return False
        if _is_of(value, "number"):
            return _within(value, schema, "minimum", "maximum")
        if isinstance(value, str):
            length = len(value)
            return _within(length, schema, "minLength", "maxLength") and self._is_name(
                schema, value
            )
        return not isinstance(value, list) or _within(len(value), schema, "minItems", "maxItems")

    def _is_name(self, schema: Schema, value: str) -> bool:
        kind = schema.get("x-name-of")
        if kind is None:
            return True
        if kind == "reason":
            return _REASON.fullmatch(value) is not None and value not in _RESERVED
        return value in self._names.of(kind)

    def _remedy(self, schema: Schema, value: Any) -> str:
        kind = schema.get("x-name-of")
        if kind == "reason" and isinstance(value, str) and value in _RESERVED:
            return "this reason is not a policy's to give"
        if kind not in _LISTS:
            return ""
        names = self._names.of(kind)
        return _close(value, names) or f"there is {', '.join(names[:12]) or 'none'}"

    def _object(self, schema: Schema, value: dict[str, Any], path: str) -> Iterator[Finding]:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for key, member in value.items():
            place = f"{path}.{key[:_SHOWN]}" if path else key[:_SHOWN]
            named = schema.get("propertyNames")
            wrong = list(self.value(named, key, place)) if named is not None else []
            if key in properties and not wrong:
                yield from self.value(properties[key], member, place)
            elif wrong or others is False:
                remedy = wrong[0].remedy if wrong else ""
                takes = f"it takes {', '.join(properties)}" if properties else ""
                remedy = remedy or _close(key, properties) or takes
                what = (
                    f"as key {expected(named)}" if wrong and named else "no parameter of this name"
                )
                yield Finding(place, _shown(member), what, remedy)
            elif isinstance(others, dict):
                yield from self.value(others, member, place)
        yield from self._not_above(properties, value, path)
        needed = dict.fromkeys(schema.get("required", ()), "")
        for key, partners in schema.get("dependentRequired", {}).items():
            if key in value:
                needed |= dict.fromkeys(partners, f"{key} needs it")
        for key, why in needed.items():
            if key not in value:
                place = f"{path}.{key}" if path else key
                what = expected(properties.get(key, {}))
                yield Finding(place, "nothing", what, why or "it is required")

    def _not_above(self, properties: Schema, value: dict[str, Any], path: str) -> Iterator[Finding]:
        """Compare what is given with what is given or, where it is not, with its default."""
        for key, schema in properties.items():
            other = schema.get("x-not-above")
            if other is None or not {key, other} & value.keys():
                continue
            low = value.get(key, schema.get("default"))
            high = value.get(other, properties.get(other, {}).get("default"))
            if _is_of(low, "number") and _is_of(high, "number") and low > high:
                place = f"{path}.{key}" if path else key
                yield Finding(place, _shown(low), f"at most {other}, which is {_shown(high)}")


def _is_of(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "number" or value == value // 1)
    return type(value) is _PYTHON.get(kind)


def _within(value: float, schema: Schema, least: str, most: str) -> bool:
    return bool(schema.get(least, value) <= value <= schema.get(most, value))


def _equal(one: Any, other: Any) -> bool:
    """JSON's equality: 1 is 1.0, and neither is true, at whatever depth."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.10g}" if isinstance(value, int | float) else "?"


def _close(word: Any, known: Any) -> str:
    close = difflib.get_close_matches(str(word)[:_SHOWN], list(known), 1)
    return f"did you mean {close[0]}?" if close else ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _values(found: Any, where: str) -> Iterator[Any]:
    """All values of a document, level by level, no deeper than `MAX_DEPTH`."""
    level = [found]
    for _ in range(MAX_DEPTH):
        yield from level
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise IncompatibleError(f"{where}: its parameter schema is nested deeper than {MAX_DEPTH}")


# --- the language of schemas ---------------------------------------------------------------------


def _expect_schema(found: Any, path: str, where: str) -> None:
    place = f"{where}: its parameter schema, at {path or 'the root'}"
    if not isinstance(found, dict):
        raise IncompatibleError(f"{place}: expected an object, found {_shown(found)}")
    for keyword, value in found.items():
        rule = _KEYWORDS.get(keyword)
        if rule is None:
            raise IncompatibleError(
                f"{place}: the keyword {keyword[:_SHOWN]!r} is not of the language of guest schemas"
            )
        if not rule(value):
            raise IncompatibleError(f"{place}: {keyword} cannot be {_shown(value)}")
    for keyword in ("items", "propertyNames"):
        if keyword in found:
            _expect_schema(found[keyword], f"{path}.{keyword}", where)
    if isinstance(found.get("additionalProperties"), dict):
        _expect_schema(found["additionalProperties"], f"{path}.additionalProperties", where)
    for index, branch in enumerate(found.get("oneOf", ())):
        _expect_schema(branch, f"{path}.oneOf[{index}]", where)
    for key, member in found.get("properties", {}).items():
        _expect_schema(member, f"{path}.{key[:_SHOWN]}", where)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_finite(value: Any) -> bool:
    return _is_of(value, "number") and abs(value) < float("inf")


_KEYWORDS: Final[dict[str, Any]] = {
    "$schema": _is_text,
    "title": _is_text,
    "description": _is_text,
    "default": lambda _: True,
    "examples": lambda value: isinstance(value, list),
    "type": lambda value: isinstance(value, str) and value in _TYPES,
    "enum": lambda value: isinstance(value, list) and bool(value),
    "const": lambda _: True,
    "minimum": _is_finite,
    "maximum": _is_finite,
    "minLength": _is_count,
    "maxLength": _is_count,
    "items": lambda value: isinstance(value, dict),
    "minItems": _is_count,
    "maxItems": _is_count,
    "properties": lambda value: isinstance(value, dict),
    "required": _is_texts,
    "additionalProperties": lambda value: isinstance(value, bool | dict),
    "propertyNames": lambda value: isinstance(value, dict),
    "dependentRequired": lambda value: (
        isinstance(value, dict) and all(map(_is_texts, value.values()))
    ),
    "oneOf": lambda value: isinstance(value, list) and bool(value),
    "x-name-of": lambda value: isinstance(value, str) and value in _NAMED,
    "x-not-above": _is_text,
}
"""Every keyword, and what its value may be."""
