"""A wall clock of the tests' own, which jumps while the programs under test run.

A library of a few lines (`wall_clock.c`), built with the compiler that builds the guests and put
before libc, adds seconds to the wall clock of the processes that load it; the kernel's, and the
monotonic clock, stay. Not libfaketime: under it, with a clock ahead, the guests' compile process
failed with EINVAL at times.
"""

import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("wall_clock.c")
YEAR_S: Final = 31_556_952
_SECONDS: Final = struct.Struct("=q")


class WallClock:
    """Of every process started with `words` before its command, and of those that it starts.

    Args:
        folder: Takes the library and the file with the offset.
    """

    def __init__(self, folder: Path) -> None:
        library, offset = folder / "wall_clock.so", folder / "wall_clock"
        offset.write_bytes(bytes(_SECONDS.size))
        with offset.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), _SECONDS.size)
        flags = ("-shared", "-fPIC", "-O2", "-nostdlib")
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(library), str(SOURCE)],
            check=True,
            capture_output=True,
            timeout=120,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig")},
        )
        self.words = ("env", f"LD_PRELOAD={library}", f"WALL_CLOCK_OFFSET={offset}")

    def jump_to(self, years: float) -> None:
        """Set it to so many years after the right time; before it, by a negative number."""
        _SECONDS.pack_into(self._offset, 0, int(years * YEAR_S))
