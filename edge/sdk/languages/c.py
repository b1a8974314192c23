"""C, compiled by Zig's clang: the reference guests' language."""

from pathlib import Path
from typing import Final

from edge import shipped
from edge.sdk.languages import ziglang
from edge.sdk.languages.language import Language, Source, run_compiler

# lime1 is the baseline of the WebAssembly tool conventions; to it come 128-bit vectors and
# memory.copy. Relaxed vectors stay out: their results differ between machines.
FLAGS: Final = (
    "--target=wasm32-freestanding",
    "-mcpu=lime1+simd128+bulk_memory",
    "-std=c17",
    "-O3",
    "-g0",
    "-ffreestanding",
    "-ffp-contract=off",
    "-nostdlib",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    f"-Wl,-z,stack-size={ziglang.STACK_BYTES}",
)


def compile_source(source: Source, target: Path) -> None:
    """Compile against the shipped SDK."""
    compile_against(shipped.path("guests/sdk/c"), source, target)


def compile_against(sdk: Path, source: Source, target: Path) -> None:
    """Compile one C file into a module with a memory of exactly its size.

    Args:
        sdk: Folder of the headers.
        source: The file and its memory.
        target: The module.

    Raises:
        BuildError: The compiler is missing, or refused it.
    """
    size = source.memory_bytes
    command = [*ziglang.find(), "cc", *FLAGS]
    command += [f"-Wl,--initial-memory={size}", f"-Wl,--max-memory={size}", f"-I{sdk}"]
    command += ["-o", str(target.resolve()), source.file.name]
    run_compiler(command, source.file)


LANGUAGE: Final = Language(
    name="c",
    title="C",
    suffix="c",
    install=ziglang.INSTALL,
    find=ziglang.find,
    compile=compile_source,
    memory_mib=ziglang.MEMORY_MIB,
)
