"""Zig."""

from pathlib import Path
from typing import Final

from edge import shipped
from edge.sdk.languages import ziglang
from edge.sdk.languages.language import Language, Source, run_compiler

FLAGS: Final = (
    "-target",
    "wasm32-freestanding",
    "-mcpu=lime1+simd128+bulk_memory",
    "-O",
    "ReleaseFast",
    "-fstrip",
    "-fno-entry",
    "-rdynamic",
    "--stack",
    str(ziglang.STACK_BYTES),
)


def compile_source(source: Source, target: Path) -> None:
    """Compile one Zig file and the SDK's module `edge`.

    Raises:
        BuildError: The compiler is missing, or refused it.
    """
    size, aside = source.memory_bytes, target.resolve()
    command = [*ziglang.find(), "build-exe", *FLAGS]
    command += [f"--initial-memory={size}", f"--max-memory={size}"]
    command += ["--cache-dir", str(aside.parent / "cache"), "--dep", "edge"]
    command += [f"-Mroot={source.file.name}", f"-Medge={shipped.path('guests/sdk/zig/edge.zig')}"]
    run_compiler([*command, f"-femit-bin={aside}"], source.file)


LANGUAGE: Final = Language(
    name="zig",
    title="Zig",
    suffix="zig",
    install=ziglang.INSTALL,
    find=ziglang.find,
    compile=compile_source,
    memory_mib=ziglang.MEMORY_MIB,
)
