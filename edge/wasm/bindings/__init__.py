"""Language bindings of the guest ABI, generated from `edge.contracts.abi`.

`python -m edge.wasm.bindings` writes them all, or those named by `--lang`: `json` is the schema for
other generators, `script` is the JSON Schema of script policies. `--check` compares instead
and exits with 1 where a file is not what `edge/contracts` says.

Rules: the output depends on the schema alone, byte for byte. A language is one module with one
function `render` from the schema to text, and one row of `LANGUAGES`. No engine is imported.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edge.wasm.bindings import assemblyscript, c, go, rust, script, zig
from edge.wasm.bindings.layout import Schema, schema

__all__ = ["LANGUAGES", "SDK", "main", "schema"]

SDK: Final = Path(__file__).resolve().parents[3] / "guests" / "sdk"


def render_json(abi_schema: Schema) -> str:
    """The schema as JSON, for generators that are not written in Python."""
    return json.dumps(msgspec.to_builtins(abi_schema), indent=2) + "\n"


LANGUAGES: Final[dict[str, tuple[str, Callable[[Schema], str]]]] = {
    "assemblyscript": ("assemblyscript/edge/abi.ts", assemblyscript.render),
    "c": ("c/edge_guest.h", c.render),
    "go": ("go/abi.go", go.render),
    "json": ("abi.json", render_json),
    "rust": ("rust/abi.rs", rust.render),
    "script": ("script/policy.schema.json", script.render),
    "zig": ("zig/edge_guest.zig", zig.render),
}
"""Language → its file below `guests/sdk`, and its generator."""


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the bindings; 0 when all is well, 1 when a compared file differs."""
    parser = argparse.ArgumentParser(prog="python -m edge.wasm.bindings", description=__doc__)
    parser.add_argument("--lang", choices=sorted(LANGUAGES), action="append")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--sdk", type=Path, default=SDK, help="folder of the SDK")
    options = parser.parse_args(arguments)
    abi_schema = schema()
    differing = 0
    for language in options.lang or sorted(LANGUAGES):
        path, render = LANGUAGES[language]
        file = options.sdk / path
        text = render(abi_schema)
        if not options.check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            differing += 1
            sys.stderr.write(
                f"{file}: not what edge/contracts says; "
                f"run python -m edge.wasm.bindings --lang {language}\n"
            )
    return 1 if differing else 0
