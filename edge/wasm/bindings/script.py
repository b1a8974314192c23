"""The JSON Schema of script policies: what they are given and what they answer.

Its words are those of `edge.contracts.script`, whose docstrings become descriptions.
"""

import json
import re
from typing import Any, Final

from edge.contracts import script
from edge.wasm.bindings.layout import Schema

_ATTRIBUTE: Final = re.compile(r"^        (\w+): (.+(?:\n {12}.+)*)", re.MULTILINE)
_RENAMED: Final = {"name": "class"}
"""Fields whose JSON name is no name in Python."""


def render(_: Schema) -> str:
    """The schema as JSON; the guest ABI's own schema has no part in it."""
    whole = script.json_schema()
    for definition in whole["$defs"].values():
        _describe(definition)
    return json.dumps(whole, indent=2) + "\n"


def _describe(definition: dict[str, Any]) -> None:
    """Take the docstring apart: what it says of a field goes to the field."""
    meaning, _, attributes = definition.get("description", "").partition("\n\n    Attributes:\n")
    if meaning:
        definition["description"] = meaning
    properties = definition.get("properties", {})
    for name, text in _ATTRIBUTE.findall(attributes):
        field = name if name in properties else _RENAMED[name]
        properties[field] = {"description": " ".join(text.split()), **properties[field]}
