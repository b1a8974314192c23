"""What is compiled, and how; apart from the engine, for whoever only names it."""

from enum import StrEnum


class Code(StrEnum):
    """What is compiled, and how: each kind has code, and an engine, of its own."""

    PLAIN = "plain"
    METERED = "metered"
    """A core guest that counts fuel."""
    SCRIPT = "script"
    """A component."""
    PROGRAM = "program"
    """A core module of another kind: a command of WASI, with calls to the host."""
