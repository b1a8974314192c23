"""What this process has asked malloc for, and what malloc keeps beside it (glibc's mallinfo2)."""

import ctypes
from typing import NamedTuple


class Heap(NamedTuple):
    """Bytes: in use by the process; free, but kept by malloc from the system."""

    used: int
    kept: int


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def heap() -> Heap | None:
    """Return it; None where this C library does not tell.

    Python's small objects are not in it: they lie in arenas of Python's own.
    """
    try:
        tell = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    tell.restype = _Mallinfo2
    said = tell()
    return Heap(said.uordblks + said.hblkhd, said.fordblks)
