"""Builds the reference guests: C to Wasm, byte-identical wherever and whenever it is done.

`python guests/build.py` builds all, or those named, and writes `guests/SHA256SUMS`. Into each
module goes the schema of its parameters, and out of that the table of its README.
`--check` builds aside and compares with what is checked in; 1 where something differs.

The compiler is Zig's, from its Python wheel, at the version that pyproject.toml pins: another
version may give other bytes.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from edge.sdk.languages import BuildError, Source
from edge.sdk.languages.c import compile_against
from edge.sdk.parameters import insert_table
from edge.wasm.section import embed

GUESTS: Final = Path(__file__).resolve().parent
SDK: Final = GUESTS / "sdk" / "c"
SUMS: Final = GUESTS / "SHA256SUMS"
MEMORY_MIB: Final = {
    "boxes": 16,
    "heat": 16,
    "letterbox": 64,
    "pair": 64,
    "policy": 1,
    "tile": 128,
    "topk": 1,
}
"""Each guest and the whole of its memory, minimum and maximum at once, in MiB."""


def compile_guest(source: Path, target: Path, memory_mib: int) -> None:
    """Compile one C file against the SDK into a module with a memory of exactly that size.

    Raises:
        SystemExit: The compiler refused it; its output is on standard error.
    """
    try:
        compile_against(SDK, Source(source.resolve(), memory_mib), target)
    except BuildError as refused:
        sys.stderr.write(f"{refused}\n")
        sys.exit(f"{source}: the compiler refused it")


def with_schema(wasm: bytes, schema: Path) -> bytes:
    """The module with its schema, whose layout does not count."""
    document = json.loads(schema.read_text(encoding="utf-8"))
    return embed(wasm, json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


def readme_of(name: str) -> str:
    """A guest's README with the table of its parameters as its schema says."""
    text = (GUESTS / name / "README.md").read_text(encoding="utf-8")
    schema = json.loads((GUESTS / name / "parameters.json").read_text(encoding="utf-8"))
    return insert_table(text, schema)


def sha256(file: Path) -> str:
    """Digest of a file, in hex; empty where it is missing."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def build(names: list[str], *, check: bool) -> list[str]:
    """Build the named guests; returns those whose checked-in module is another, with `check`."""
    differing = []
    with tempfile.TemporaryDirectory() as aside:
        for name in names:
            module = GUESTS / name / f"{name}.wasm"
            built = Path(aside) / module.name
            compile_guest(GUESTS / name / f"{name}.c", built, MEMORY_MIB[name])
            content = with_schema(built.read_bytes(), GUESTS / name / "parameters.json")
            for file, expected in (
                (module, content),
                (GUESTS / name / "README.md", readme_of(name).encode()),
            ):
                if not check:
                    file.write_bytes(expected)
                elif not file.is_file() or file.read_bytes() != expected:
                    differing.append(str(file.relative_to(GUESTS)))
    return differing


def sums() -> str:
    """The digests of all checked-in modules, in the format of sha256sum."""
    modules = (GUESTS / name / f"{name}.wasm" for name in sorted(MEMORY_MIB))
    return "".join(f"{sha256(m)}  {m.relative_to(GUESTS)}\n" for m in modules if m.is_file())


def main() -> int:
    """Build or check; 0 when all is well."""
    parser = argparse.ArgumentParser(description="Build the reference guests.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="guests; all without a name")
    parser.add_argument("--check", action="store_true", help="compare with what is checked in")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(MEMORY_MIB))
    if unknown:
        parser.error(f"no such guest: {', '.join(unknown)}; there are {', '.join(MEMORY_MIB)}")
    differing = build(options.names or sorted(MEMORY_MIB), check=options.check)
    if not options.check:
        SUMS.write_text(sums(), encoding="utf-8")
    elif not SUMS.is_file() or SUMS.read_text(encoding="utf-8") != sums():
        differing.append(SUMS.name)
    for name in differing:
        sys.stderr.write(f"{name}: not what its source gives; run python guests/build.py\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
