"""The parameters of a guest as a table for people, from the schema that it carries."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from edge.contracts.parameters import Schema, expected
from edge.errors import ConfigError

_BEGIN: Final = "<!-- parameters.json -->"
_END: Final = "<!-- end of parameters.json -->"
_BETWEEN: Final = re.compile(f"{_BEGIN}.*{_END}", re.DOTALL)


class Row(NamedTuple):
    """One parameter: its name with the way to it, what it may be, its default or `required`."""

    name: str
    kind: str
    default: str
    meaning: str


def rows(schema: Schema, prefix: str = "") -> Iterator[Row]:
    """Each parameter, those of objects behind them."""
    required = schema.get("required", ())
    for key, member in schema.get("properties", {}).items():
        name = prefix + key
        default = json.dumps(member["default"], ensure_ascii=False) if "default" in member else ""
        default = default or ("required" if key in required else "")
        items = member.get("items", {})
        nested, inner = (items, f"{name}[].") if "properties" in items else (member, f"{name}.")
        yield Row(name, expected(member), default, member.get("description", ""))
        yield from rows(nested, inner)


def table(schema: Schema) -> str:
    """The rows as Markdown."""
    lines = ["| parameter | what it may be | default | |", "| --- | --- | --- | --- |"]
    for name, kind, default, meaning in rows(schema):
        shown = f"`{default}`" if default not in ("", "required") else default
        lines.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
    return "\n".join(lines)


def insert_table(text: str, schema: dict[str, Any]) -> str:
    """Put the table into a README, between its two marks.

    Raises:
        ConfigError: The marks are not there.
    """
    if not _BETWEEN.search(text):
        raise ConfigError("README.md", f"no table to replace: {_BEGIN} and {_END} are not there")
    return _BETWEEN.sub(lambda _: f"{_BEGIN}\n{table(schema)}\n{_END}", text)
