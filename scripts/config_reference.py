"""Generate what is derived from the config models: the JSON Schema and the reference of all keys.

    python scripts/config_reference.py            writes them
    python scripts/config_reference.py --check    fails where they are not current

`docs/configuration.md` is written by hand around the part between the two markers.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge.config import DeviceConfig

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "device_configs" / "schema.json"
REFERENCE = ROOT / "docs" / "configuration.md"
BEGIN = "<!-- generated from edge/config/sections.py by `make schema`: do not edit below -->\n"
END = "<!-- end of the generated part -->\n"


def main() -> int:
    """Write, or with --check compare; 1 where a file is not current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    schema = DeviceConfig.model_json_schema()
    # A device config may name this schema for editors, as a comment; it is not part of the config.
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    stale = 0
    for path, text in ((SCHEMA, json.dumps(schema, indent=2) + "\n"), (REFERENCE, page(schema))):
        if path.is_file() and path.read_text() == text:
            continue
        if check:
            print(f"{path.relative_to(ROOT)} is not current: run `make schema`", file=sys.stderr)
            stale = 1
        else:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return stale


def page(schema: dict[str, Any]) -> str:
    """Return the reference page with its generated part renewed."""
    before, found, rest = REFERENCE.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        sys.exit(f"{REFERENCE}: the markers of the generated part are missing")
    parts = [section(name, node, schema) for name, node in schema["properties"].items()]
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after


def section(name: str, node: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a section's heading, and a table of its keys and of the tables below it."""
    model = resolved(node, schema)
    lines = [
        f"## `[{name}]`",
        "",
        model["description"],
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
        *rows(name, model, schema),
        "",
    ]
    return "\n".join(lines)


def rows(prefix: str, model: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Return a table row for each key, with those of inner tables after their own row."""
    found = []
    described: list[dict[str, Any]] = []
    for key, node in model["properties"].items():
        name = f"{prefix}.{key}"
        text = node.get("description", "") or resolved(node, schema).get("description", "")
        found.append(f"| `{name}` | {kind(node, schema)} | {default(key, node, model)} | {text} |")
        inner = table_of(node, schema)
        # Tables of named tables are alike within a section: their keys are told once, last.
        if inner is not None and "patternProperties" not in node:
            found += rows(name, inner, schema)
        elif inner is not None and inner not in described:
            described.append(inner)
    for inner in described:
        found += rows(f"{prefix}.KIND.NAME", inner, schema)
    return found


def default(key: str, node: dict[str, Any], model: dict[str, Any]) -> str:
    """Return a key's default as it would stand in the file."""
    if key in model.get("required", ()):
        return "required"
    if "default" not in node:
        return "empty"
    return "none" if node["default"] is None else f"`{json.dumps(node['default'])}`"


def resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into the schema's definitions."""
    if "$ref" not in node:
        return node
    target: dict[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return target


def table_of(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the model of a key whose value is a table of known keys, else None."""
    node = resolved(node, schema)
    if "properties" in node:
        return node
    inner = (*node.get("anyOf", ()), *node.get("patternProperties", {}).values())
    found = (table_of(candidate, schema) for candidate in inner)
    return next((model for model in found if model is not None), None)


def kind(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return type and bounds of a key, in words."""
    node = resolved(node, schema)
    if "anyOf" in node:
        given = (part for part in node["anyOf"] if part.get("type") != "null")
        return " or ".join(kind(part, schema) for part in given)
    if "enum" in node:
        return ", ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    word = {"boolean": "`true` or `false`"}.get(node["type"], node["type"])
    if word == "object":
        word = "table of strings" if "properties" not in node else "table"
        return "table of bindings" if "patternProperties" in node else word
    low = node.get("minimum", node.get("exclusiveMinimum"))
    high = node.get("maximum")
    if low is not None and high is not None:
        above = "above " if "exclusiveMinimum" in node else ""
        word += f", {above}{number(low)} to {number(high)}"
    return str(node.get("format", word))


def number(value: float) -> str:
    """Return a bound with its thousands set apart."""
    return f"{value:,}".removesuffix(".0").replace(",", " ")


if __name__ == "__main__":
    sys.exit(main())
