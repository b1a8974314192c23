"""The compile process: `python -I -m edge.wasm.compile < guest.wasm > guest.cwasm`.

200 KB of Wasm can take ten seconds and hundreds of MiB to compile, and nothing interrupts a
compilation. So it runs here: in a process of its own, started afresh (compiling in a forked child
hangs), with limits that the kernel holds. It opens no file: the module comes in on stdin, checked
against its digest by the parent, and native code goes out on stdout.

Imports as little as it can: the interpreter and wasmtime take about 0.1 s to start.
"""

import os
import resource
import sys
from typing import Final

from wasmtime import Module, WasmtimeError
from wasmtime.component import Component

from edge.errors import IncompatibleError
from edge.wasm import wasi
from edge.wasm.code import Code
from edge.wasm.program_link import NN_MODULE, link_program
from edge.wasm.sandbox import MAX_SCRIPT_BYTES, new_engine

EXIT_REFUSED: Final = 3
"""The module is at fault; the last line on stderr says how."""

MAX_EXPORTS: Final = 256
"""The ABI has nine; toolchains add a few globals. Looking at one costs 10 µs in Python."""

MAX_SENTENCE: Final = 2000
_NICENESS: Final = 10
_LIMITS: Final = 3
"""Numbers on the command line."""


def limit(cpu_s: int, memory_mib: int, output_mib: int) -> None:
    """Bound this process; past the CPU limit the kernel kills it, past the others calls fail."""
    os.nice(_NICENESS)
    for what, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        # At the soft limit comes SIGXCPU, which tells this end from other kills.
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, memory_mib << 20, memory_mib << 20),
        (resource.RLIMIT_FSIZE, output_mib << 20, output_mib << 20),
    ):
        _, given = resource.getrlimit(what)
        most = hard if given == resource.RLIM_INFINITY else min(hard, given)
        resource.setrlimit(what, (min(soft, most), most))


def compile_module(wasm: bytes, code: Code) -> bytes:
    """Compile, and refuse what would be costly to look at afterwards.

    Raises:
        WasmtimeError: The bytes are no module, or one of another kind than guests may be.
        IncompatibleError: A program imports what it may not.
    """
    linked = link_program(wasm) if code is Code.PROGRAM else wasi.link(wasm)
    module = Module(new_engine(code), linked)
    if len(module.imports) > 0:
        raise WasmtimeError(_foreign(module))
    if len(module.exports) > MAX_EXPORTS:
        raise WasmtimeError(f"it has {len(module.exports)} exports; at most {MAX_EXPORTS} may be")
    return bytes(module.serialize())


def compile_script(wasm: bytes) -> bytes:
    """Compile a component; what it imports and exports is looked at by the host.

    Raises:
        WasmtimeError: The bytes are no component.
    """
    return bytes(Component(new_engine(Code.SCRIPT), wasm).serialize())


def _foreign(module: Module) -> str:
    """Name the import that no function stands in for."""
    for wish in module.imports:
        if wish.module == NN_MODULE:
            return (
                f"it imports {wish.module}.{wish.name}: it is a wasi-nn program and no guest; "
                "a pipeline names it as its program (guests/PROGRAMS.md)"
            )
        if wish.module != wasi.MODULE or wish.name not in wasi.FUNCTIONS:
            return (
                f"it imports {wish.module}.{wish.name}; a guest imports nothing, save functions of "
                f"{wasi.MODULE}: build it freestanding"
            )
    first = module.imports[0]
    return f"it imports {first.module}.{first.name} with another type than preview 1 gives it"


def main(arguments: list[str]) -> int:
    """Compile stdin to stdout within the limits given: seconds of CPU, MiB, MiB; kind of code."""
    code = Code(arguments[3]) if len(arguments) > _LIMITS else Code.PLAIN
    cpu_s, memory_mib, output_mib = (int(argument) for argument in arguments[:_LIMITS])
    limit(cpu_s, memory_mib, output_mib)
    wasm = sys.stdin.buffer.read(MAX_SCRIPT_BYTES + 1)
    try:
        native = compile_script(wasm) if code is Code.SCRIPT else compile_module(wasm, code)
    except (WasmtimeError, IncompatibleError) as error:
        sentence = " ".join(str(error).split())[:MAX_SENTENCE]
        sys.stderr.write(sentence + "\n")
        return EXIT_REFUSED
    sys.stdout.buffer.write(native)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
