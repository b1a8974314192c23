"""Zig's wheel: the compiler of C and Zig, and the linker of Rust."""

import importlib.util
import sys
from typing import Final

from edge.sdk.languages.language import ToolchainMissingError, beside_this_python

REQUIREMENT: Final = "ziglang==0.17.1"
"""What pyproject.toml pins: another version may give other bytes."""
INSTALL: Final = f"pip install {REQUIREMENT}"
STACK_BYTES: Final = 64 << 10
"""Of C, Zig and Rust guests. The linker lays it below everything else: an overflow traps."""
MEMORY_MIB: Final = {"preprocess": 64, "postprocess": 16, "decide": 1}
"""What a guest without a language runtime starts with."""


def find() -> list[str]:
    """The command that runs Zig.

    Raises:
        ToolchainMissingError: The wheel is not installed beside this Python.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise ToolchainMissingError(f"the compiler is not installed: {beside_this_python(INSTALL)}")
    return [sys.executable, "-m", "ziglang"]
