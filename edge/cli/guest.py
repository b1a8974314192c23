"""`edge guest`: make, build, seal, inspect, test and measure guests.

Exit status 0 good, 1 a finding or a failure, 2 usage.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edge.cli.arguments import add_command
from edge.contracts import abi
from edge.errors import ConfigError, IncompatibleError
from edge.sdk import inspection, measure, project, seal, trial
from edge.sdk.languages import TABLE, ToolchainMissingError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_MEMORY_MIB: Final = 1024
_CALL_MS: Final = 1000
_WASM_MEMORY_MIB: Final = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(dest="guest_command", metavar="COMMAND", required=True)
    _inspect_arguments(add_command(commands, "inspect", "what a module is, beside the ABI"))
    test = add_command(commands, "test", "hold a guest to golden vectors, and to the ABI")
    _vector_arguments(test, _test)
    bench = add_command(commands, "bench", "time a guest's calls and its cold start")
    _vector_arguments(bench, _bench)
    _new_arguments(add_command(commands, "new", "make a project from a template"))
    build = add_command(commands, "build", "compile a project to a module")
    build.set_defaults(run_guest=_build)
    build.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR",
        help="the project's folder (default: here)",
    )  # fmt: skip
    languages = add_command(commands, "languages", "languages, and whether they can be built")
    languages.set_defaults(run_guest=_languages)
    _add_json(languages)
    _seal_arguments(add_command(commands, "seal", "make a module of another toolchain a guest"))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    status: int = arguments.run_guest(arguments)
    return status


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_guest=_inspect)
    _add_module(parser)
    parser.add_argument(
        "--vectors", type=Path, metavar="DIR",
        help="vectors whose calls are measured (default: the folder vectors beside FILE)",
    )  # fmt: skip
    _add_json(parser)


def _inspect(arguments: argparse.Namespace) -> int:
    given: Path | None = arguments.vectors
    if not _is_file(arguments.file) or (given is not None and not _is_folder(given)):
        return EXIT_USAGE
    beside = arguments.file.parent / "vectors"
    vectors = given or (beside if beside.is_dir() else None)
    found = inspection.inspect(arguments.file, arguments.memory_mib, vectors)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(found)))
    else:
        print("\n".join(inspection.lines(found)))
    return 0 if found.usable else EXIT_FAILED


def _new_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_guest=_new)
    parser.add_argument("name", metavar="NAME", help="of the guest, and of its new folder")
    parser.add_argument(
        "--lang", choices=list(TABLE), required=True, metavar="LANGUAGE",
        help=f"{', '.join(TABLE)} (edge guest languages: what is installed)",
    )  # fmt: skip
    parser.add_argument(
        "--role", choices=abi.ROLES, required=True, metavar="ROLE",
        help=f"{', '.join(abi.ROLES)}; scripts only decide",
    )  # fmt: skip
    parser.add_argument("--dir", type=Path, default=Path(), help="where (default: here)")


def _new(arguments: argparse.Namespace) -> int:
    try:
        made = project.make(arguments.name, arguments.lang, arguments.role, arguments.dir)
    except ConfigError as refused:
        _usage(str(refused))
        return EXIT_USAGE
    print(f"{made}: made; next: edge guest build {made}")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    try:
        built = project.build(arguments.folder)
    except ConfigError as refused:
        _usage(str(refused))
        return EXIT_USAGE
    _print_module(built)
    return 0


def _languages(arguments: argparse.Namespace) -> int:
    found = []
    for language in TABLE.values():
        try:
            language.find()
            missing = ""
        except ToolchainMissingError as error:
            missing = str(error)
        found.append({"name": language.name, "roles": language.roles, "missing": missing})
        if not arguments.json:
            print(f"{language.name:14}  {', '.join(language.roles):32}  {missing or 'ready'}")
    if arguments.json:
        print(json.dumps(found))
    return 0


def _seal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_guest=_seal)
    parser.add_argument("file", type=Path, metavar="FILE", help="a module, perhaps of WASI")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the guest that is written")
    parser.add_argument(
        "--memory-mib", type=_mebibytes, required=True, metavar="MIB",
        help="its memory from then on, minimum and maximum at once",
    )  # fmt: skip


def _seal(arguments: argparse.Namespace) -> int:
    if not _is_file(arguments.file):
        return EXIT_USAGE
    try:
        sealed = seal.seal(arguments.file.read_bytes(), arguments.memory_mib)
    except IncompatibleError as unfit:
        _usage(f"{arguments.file}: cannot be sealed: {unfit}")
        return EXIT_FAILED
    arguments.target.write_bytes(sealed)
    _print_module(arguments.target)
    return 0


def _print_module(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    print(f"{file}: {file.stat().st_size} bytes, sha256 {digest}")


def _vector_arguments(
    parser: argparse.ArgumentParser, action: Callable[[argparse.Namespace], int]
) -> None:
    parser.set_defaults(run_guest=action)
    _add_module(parser)
    parser.add_argument("vectors", type=Path, metavar="VECTORS_DIR", help="folder of vectors")
    parser.add_argument(
        "--call-ms", type=_milliseconds, default=_CALL_MS, metavar="MS",
        help="the longest that a call may take (default: %(default)d)",
    )  # fmt: skip
    _add_json(parser)


def _test(arguments: argparse.Namespace) -> int:
    if not (_is_file(arguments.file) and _is_folder(arguments.vectors)):
        return EXIT_USAGE
    with measure.new_engine() as engine:
        module = measure.load(engine, arguments.file, arguments.memory_mib)
        metered = measure.load(engine, arguments.file, arguments.memory_mib, metered=True)
        found = []
        for outcome in trial.outcomes(module, arguments.vectors, arguments.call_ms, metered):
            found.append(outcome)
            if not arguments.json:
                _print_outcome(outcome)
    failed = sum(not outcome.passed for outcome in found)
    if arguments.json:
        answer = {
            "file": str(arguments.file),
            "sha256": module.sha256,
            "memory_bytes": module.memory_bytes,
            "passed": failed == 0,
            "outcomes": msgspec.to_builtins(found),
        }
        print(json.dumps(answer))
    else:
        memory = f"{module.memory_bytes / 2**20:g} MiB of memory"
        print(f"{arguments.file}: {len(found) - failed} passed, {failed} failed; {memory}")
    return EXIT_FAILED if failed else 0


def _print_outcome(outcome: trial.Outcome) -> None:
    took = f"  {outcome.call_us:.1f} us a call" if outcome.call_us else ""
    if outcome.fuel:
        took += f", {outcome.fuel} fuel"
    print(f"{'pass' if outcome.passed else 'FAIL'}  {outcome.name}{took}")
    for problem in outcome.problems:
        print(f"      {problem}")


def _bench(arguments: argparse.Namespace) -> int:
    if not (_is_file(arguments.file) and _is_folder(arguments.vectors)):
        return EXIT_USAGE
    with measure.new_engine() as engine:
        found = []
        for timing in measure.timings(
            engine,
            arguments.file,
            arguments.vectors,
            memory_mib=arguments.memory_mib,
            call_ms=arguments.call_ms,
        ):
            found.append(timing)
            if not arguments.json:
                print(
                    f"{timing.name}: {timing.role} {timing.call_us:.1f} us a call "
                    f"(median of {timing.calls}), cold start {timing.cold_ms:.2f} ms"
                )
    if arguments.json:
        print(json.dumps({"file": str(arguments.file), "vectors": msgspec.to_builtins(found)}))
    return 0


def _add_module(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the guest, a .wasm file")
    parser.add_argument(
        "--memory-mib", type=_mebibytes, default=_MEMORY_MIB, metavar="MIB",
        help="memory that the host would grant (default: %(default)d)",
    )  # fmt: skip


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _mebibytes(text: str) -> int:
    return _whole(text, 1, _WASM_MEMORY_MIB)


def _milliseconds(text: str) -> int:
    return _whole(text, 1, 60_000)


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number {least}..{most}")
    return int(text)


def _is_file(path: Path) -> bool:
    return path.is_file() or _usage(f"{path}: no such file")


def _is_folder(path: Path) -> bool:
    return path.is_dir() or _usage(f"{path}: no such folder")


def _usage(problem: str) -> bool:
    print(f"edge guest: {problem}", file=sys.stderr)
    return False
