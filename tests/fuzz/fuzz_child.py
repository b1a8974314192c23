"""Runs a stretch of cases in a process of its own, so that a crash costs this process alone.

    python fuzz_child.py TARGET SEED FIRST LAST MARK

MARK is a file of eight bytes: the number of the case at work, written before it begins. Whoever
waits for this process knows by it which case it died or hung on. Findings go to standard output,
one JSON object a line; the last line says that all is done.
"""

import ctypes
import faulthandler
import json
import mmap
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import fuzz_guests
import fuzz_noise
import fuzz_parsers

CONTROL: Final = "control"
HANG: Final = 2


def case_of(target: str) -> Callable[[Random], None]:
    """Make a target ready; what it gives runs one case."""
    if target == CONTROL:
        return _misbehave
    if target in fuzz_guests.RUNNERS:
        return fuzz_guests.RUNNERS[target]()
    parser = fuzz_parsers.PARSERS[target]()

    def run(noise: Random) -> None:
        content = fuzz_noise.mutant(parser.seeds, noise, parser.start)
        with suppress(*parser.promised):
            parser.parse(content)

    return run


def _misbehave(noise: Random) -> None:
    """The negative control: of eight cases one raises, one crashes and one hangs."""
    act = noise.randrange(8)
    if act == 0:
        raise KeyError("not promised")
    if act == 1:
        ctypes.string_at(0)
    while act == HANG:
        pass


def main(arguments: list[str]) -> int:
    """Run the cases; status 0 says that all were run, whatever they found."""
    target, mark = arguments[0], Path(arguments[4])
    seed, first, last = map(int, arguments[1:4])
    # Before the engine: wasmtime's own handlers must be the later ones (edge.wasm.sandbox).
    faulthandler.enable()
    run = case_of(target)
    with mark.open("r+b") as file, mmap.mmap(file.fileno(), 8) as at_work:
        for number in range(first, last):
            at_work[:8] = struct.pack("<q", number)
            try:
                run(fuzz_noise.of_case(target, seed, number))
            except Exception:  # noqa: BLE001 - what was not promised is what is looked for
                _tell(case=number, trace=traceback.format_exc(limit=-6))
        at_work[:8] = struct.pack("<q", -1)
    _tell(done=last - first, cpu_s=round(time.process_time(), 1))
    return 0


def _tell(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
