"""AssemblyScript, by its npm package: no imports, no garbage collector, a memory of fixed size."""

import shutil
import sys
from pathlib import Path
from typing import Final

from edge import shipped
from edge.sdk.languages.language import Language, Source, ToolchainMissingError, run_compiler
from edge.wasm.shape import PAGE_BYTES

REQUIREMENT: Final = "assemblyscript@0.28.20"
INSTALL: Final = f"npm install {REQUIREMENT}"
_COMMAND: Final = "node_modules/.bin/asc"
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
    """The compiler `asc`: in a `node_modules` from here upwards or of this Python, or on the path.

    Raises:
        ToolchainMissingError: There is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(sys.prefix)):
        if (command := folder / _COMMAND).is_file():
            return str(command)
    if command_on_path := shutil.which("asc"):
        return command_on_path
    raise ToolchainMissingError(f"the AssemblyScript compiler is not installed: {INSTALL}")


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
