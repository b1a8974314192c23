"""The supervisor's memory holds the broker's password and the keys: nobody else is to read it.

Not dumpable (prctl(2), PR_SET_DUMPABLE) means that the kernel writes no core of it, also where
cores are piped to a program, which a limit of 0 does not stop; and that no process of the same
user may trace it or read its memory, which a worker that a guest has broken out of would be.
"""

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def keep_memory_private() -> bool:
    """Forbid cores, tracing and reading of this process; workers, which are others, are not meant.

    Returns:
        Whether the kernel did it; macOS and others know no such thing.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    try:
        refused: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return refused == 0
