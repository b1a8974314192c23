"""Coverage-guided fuzzing of what parses bytes, by Atheris (libFuzzer for Python).

    python tests/fuzz/fuzz_guided.py --runs 100000              # every parser in turn
    python tests/fuzz/fuzz_guided.py --only onnx-screen --runs 1000000

It needs the dependency group `fuzz`. What a run learns is kept in `.out/fuzz/TARGET`, and is where
the next one begins. An input that raises what is not promised is written there as `crash-...`; give
it as `--input` to run it again.
"""

import argparse
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
OUT: Final = ROOT / ".out/fuzz"
_MAX_BYTES: Final = 16_384

PARSERS: Final = (
    "frame-headers",
    "topics",
    "content-types",
    "signals",
    "sparkplug",
    "overrides",
    "onnx-screen",
    "wasm-inspection",
    "wasi-linking",
    "ledger-records",
    "worker-channel",
    "images",
    "parameter-schemas",
    "collected-records",
    "notes",
)


def fuzz(target: str, words: list[str]) -> None:
    """Fuzz one parser in this process; libFuzzer ends it."""
    import atheris

    sys.path[:0] = [str(ROOT), str(HERE)]
    with atheris.instrument_imports(include=["edge"]):
        import fuzz_parsers

        parser = fuzz_parsers.PARSERS[target]()

    def one(content: bytes) -> None:
        with suppress(*parser.promised):
            parser.parse(content)

    learnt = OUT / target
    learnt.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(parser.seeds):
        (learnt / f"seed-{number}").write_bytes(seed)
    options = [f"-max_len={_MAX_BYTES}", "-timeout=30", f"-artifact_prefix={learnt}/"]
    atheris.Setup([sys.argv[0], *options, *words], one)
    atheris.Fuzz()


def main() -> int:
    """Read the arguments; each parser is fuzzed in a process of its own."""
    arguments = argparse.ArgumentParser(description="Coverage-guided fuzzing of the parsers.")
    arguments.add_argument("--only", choices=PARSERS, help="one parser alone")
    arguments.add_argument("--runs", type=int, default=100_000, help="inputs of each parser")
    arguments.add_argument("--seed", type=int, default=20261122)
    arguments.add_argument("--input", type=Path, help="run this one input of --only again")
    arguments.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.input is not None and not chosen.only:
        arguments.error("--input belongs to a parser: --only NAME")
    if chosen.inside:
        where = str(chosen.input or OUT / chosen.only)
        fuzz(chosen.only, [f"-runs={chosen.runs}", f"-seed={chosen.seed}", where])
        return 0
    found = 0
    for name in [chosen.only] if chosen.only else PARSERS:
        command = [sys.executable, __file__, "--inside", "--only", name]
        command += [f"--runs={chosen.runs}", f"--seed={chosen.seed}"]
        command += [f"--input={chosen.input}"] if chosen.input else []
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        told = done.stderr.strip().splitlines()
        ended = next((line for line in reversed(told) if line.startswith("Done ")), "")
        sys.stdout.write(f"{name:16} {ended or f'FOUND, status {done.returncode}'}\n")
        sys.stdout.flush()
        if not ended:
            found += 1
            sys.stdout.write("\n".join(told[-25:]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
