"""AssemblyScript, by its npm package: no imports, no garbage collector, a memory of fixed size."""

from pathlib import Path
from typing import Final

from edge import shipped
from edge.sdk.languages.language import Language, Source, npm_command, run_compiler
from edge.wasm.shape import PAGE_BYTES

REQUIREMENT: Final = "assemblyscript@0.28.20"
INSTALL: Final = f"npm install {REQUIREMENT}"
FLAGS: Final = (
    "--optimizeLevel=3",
    "--converge",
    "--noAssert",
    "--runtime=stub",  # what is allocated stays: nothing is, once frames come
    "--use=abort=",  # a trap says the same, and imports nothing
    "--enable=simd",
    "--stackSize=0",
)


def find() -> str:
    """The compiler `asc`.

    Raises:
        ToolchainMissingError: It is not installed.
    """
    return npm_command("asc", INSTALL)


def compile_source(source: Source, target: Path) -> None:
    """Compile one AssemblyScript file and the SDK's package `edge`.

    Raises:
        BuildError: The compiler is missing, or refused it.
    """
    pages = source.memory_bytes // PAGE_BYTES
    command = [find(), source.file.name, *FLAGS]
    command += [f"--initialMemory={pages}", f"--maximumMemory={pages}"]
    sdk = shipped.path("guests/sdk/assemblyscript")
    command += [f"--path={sdk}", f"--outFile={target.resolve()}"]
    run_compiler(command, source.file)


LANGUAGE: Final = Language(
    name="assemblyscript",
    title="AssemblyScript",
    suffix="ts",
    install=INSTALL,
    find=find,
    compile=compile_source,
    memory_mib={"preprocess": 64, "postprocess": 16, "decide": 1},
)
