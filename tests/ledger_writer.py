"""A process that writes a ledger as fast as it can, to be killed: `ledger_writer.py FOLDER …`.

Acknowledges on standard output, one line each: a frame's number, and the place of its record (0
where it acknowledges too early). Arguments: folder, first frame, variant, records that may wait.
Variants: `sound`; `early` acknowledges before the commit; `unsynced` commits with
`synchronous=NORMAL`. The last two are the negative controls of whoever kills it or cuts its power.
Checkpoints are signed every 16 records, by a new key at each start.
"""

import os
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

from ledgers import entry, frame

from edge.errors import StorageError
from edge.ledger import schema, signing
from edge.ledger.ledger import Ledger
from edge.ledger.note import new_key
from edge.ledger.signing import Keys


def main() -> None:
    """Write until killed."""
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    variant, waiting = sys.argv[3], int(sys.argv[4])
    if variant == "unsynced":
        _weaken()
    signing.DUE_RECORDS = 16  # type: ignore[misc]  # a thousand would seldom be reached
    keys = Keys((new_key(),))
    ledger = Ledger(folder, "box1", lambda call: call(), on_trouble=_say, keys=keys)
    while True:
        if variant == "early":
            _acknowledge(number, 0)
        tell = _forget if variant == "early" else partial(_acknowledge, number)
        while True:
            try:
                ledger.append(entry(number), frame(number), tell)
                break
            except StorageError:
                time.sleep(0.01)  # its queue is full: storage fails for now
        number += 1
        while ledger.waiting >= waiting:
            time.sleep(0.0005)


def _acknowledge(number: int, place: int) -> None:
    os.write(1, b"%d %d\n" % (number, place))


def _forget(_place: int) -> None:
    pass


def _say(trouble: str) -> None:
    os.write(2, f"{trouble}\n".encode())


def _weaken() -> None:
    configure = schema._configure

    def weaker(database: sqlite3.Connection) -> None:
        configure(database)
        database.execute("PRAGMA synchronous=NORMAL")

    schema._configure = weaker


if __name__ == "__main__":
    main()
