"""The narrowed engine: which Wasm features guests may use, and how their code is compiled.

The worker, which runs compiled code, and the compile process, which makes it, build their engines
here, so that the one accepts what the other wrote.
"""

import ctypes
import hashlib
import mmap
import platform
import sys
from functools import cache
from importlib.metadata import version
from typing import Final

from wasmtime import Config, Engine

from edge.errors import IncompatibleError
from edge.wasm import program_link, wasi
from edge.wasm.code import Code

MAX_WASM_BYTES: Final = 16 << 20
"""The largest module that is looked at; C guests have 4 KB, Go guests 2 MB."""
MAX_SCRIPT_BYTES: Final = 32 << 20
"""The largest component; a Python interpreter has 18 MB."""

_SETTINGS: Final[tuple[tuple[str, bool | int | str], ...]] = (
    # What LLVM emits by default for wasm32, and SIMD, without which vision is 2 to 5 times slower.
    ("wasm_simd", True),
    ("wasm_bulk_memory", True),
    ("wasm_multi_value", True),
    ("wasm_reference_types", True),
    # Everything else is attack surface, or not deterministic (threads, relaxed SIMD), or breaks
    # the zero-copy rules (memory64, several memories).
    ("wasm_threads", False),
    ("shared_memory", False),
    ("wasm_relaxed_simd", False),
    ("wasm_memory64", False),
    ("wasm_multi_memory", False),
    ("wasm_custom_page_sizes", False),
    ("wasm_tail_call", False),
    ("wasm_exceptions", False),
    ("wasm_function_references", False),
    ("wasm_gc", False),
    ("gc_support", False),
    ("wasm_wide_arithmetic", False),
    ("wasm_stack_switching", False),
    ("wasm_component_model", False),
    # The base of guest memory stays where it is, and 4 GiB of address space make most bounds
    # checks a matter of guard pages (a 64 MiB reservation costs SIMD code 1.3 times).
    ("memory_may_move", False),
    ("memory_reservation", 4 << 30),
    # Guests are interrupted when their time is up; the stack is half of wasmtime's async default
    # and fits every thread that Python starts.
    ("epoch_interruption", True),
    ("max_wasm_stack", 512 << 10),
    ("cranelift_opt_level", "speed"),
    # NaN canonicalisation stays off: it costs a letterbox 1.35 times, and without it the bits of a
    # NaN differ between processor families only; no number that the host accepts can be one.
    # One thread: compiling must not take the cores of a line that runs.
    ("parallel_compilation", False),
)


_INTERPRETER: Final = "pulley64"
"""The target triple of wasmtime's interpreter, on 64-bit little-endian processors."""

_LINKING: Final = 1
"""Raised whenever what `edge.wasm.wasi` or `program_link` makes of a module changes otherwise."""


_OWN_SETTINGS: Final[dict[Code, dict[str, bool]]] = {
    Code.PLAIN: {},
    Code.METERED: {"consume_fuel": True},
    # The copies between the parts of a component go through code with two memories.
    Code.SCRIPT: {"wasm_component_model": True, "wasm_multi_memory": True},
    Code.PROGRAM: {},
}


FIRST_SOUND: Final = (50, 0, 0)
"""Older releases let guests out: CVE-2026-115889 (fixed in 43.0.0) and CVE-2026-115893 (fixed on
2026-10-19, the day before 50.0.0), both rated 9.9 (docs/decisions/0002)."""


def refuse_unsound(installed: str) -> None:
    """Hold the installed wasmtime to the releases without known ways out of the sandbox.

    Raises:
        IncompatibleError: It is an older one.
    """
    numbers = tuple(int(part) for part in installed.split(".")[:3] if part.isdecimal())
    if numbers < FIRST_SOUND:
        least = ".".join(map(str, FIRST_SOUND))
        raise IncompatibleError(
            f"wasmtime {installed} is installed; guests can escape from releases before {least} "
            "(CVE-2026-115889, CVE-2026-115893): install edge anew with its pinned dependencies"
        )


@cache
def interpreted() -> bool:
    """Whether guests are interpreted here, because this process may not make machine code.

    systemd's MemoryDenyWriteExecute=, PR_SET_MDWE and SELinux's execmem forbid it. Then wasmtime's
    own interpreter, Pulley, runs them: the same results and limits, some 20 times slower. It is
    tried, not asked for, because each of the three says no in its own way; a process that compiles
    for this one inherits the ban, and so finds the same.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        start = ctypes.c_char.from_buffer(page)
        refused = libc.mprotect(
            ctypes.addressof(start), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC
        )
        del start  # a view of the page would keep it from being unmapped
    return bool(refused)


def new_engine(code: Code = Code.PLAIN) -> Engine:
    """Build an engine with the narrowed configuration.

    Installs wasmtime's signal handlers for SIGSEGV and its like in this process. Whoever wants
    `faulthandler` enables it before: the later one wins, and would end the process at a trap.
    """
    refuse_unsound(version("wasmtime"))
    config = Config()
    for name, value in _SETTINGS:
        setattr(config, name, value)
    for name, value in _OWN_SETTINGS[code].items():
        setattr(config, name, value)
    if interpreted():
        config.target = _INTERPRETER
    return Engine(config)


def fingerprint(code: Code = Code.PLAIN) -> str:
    """Name target, configuration and WASI shim in 16 hex digits: compiled code depends on all."""
    linked = (wasi.SOURCE, program_link.HOSTED, _LINKING)
    machine = _INTERPRETER if interpreted() else platform.machine()
    text = repr((_SETTINGS, code, _OWN_SETTINGS[code], linked, sys.platform, machine))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
