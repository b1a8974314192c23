"""A process that takes a fetched deployment into use, step by step, to be killed at any of them.

    python activation.py FOLDER OFFERED WAY VARIANT

FOLDER is that of a device's deployments, OFFERED the deployment as JSON, WAY `held` (to its commit)
or `failed` (to probation, and back). VARIANT `sound` writes the journal as the product does; `torn`
writes into the file that is there, which a kill must find out.
"""

import sys
from pathlib import Path

import msgspec

from edge import durable
from edge.deployment.installed import Installed
from edge.deployment.rollout import Deployed, Event

STORE_BYTES = 64 << 20


def torn(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write in place, in two parts."""
    with path.open("wb", buffering=0) as file:
        file.write(content[:100])
        file.write(content[100:])


def main(folder: Path, offered: Deployed, way: str, variant: str) -> None:
    """Go all the way; say so."""
    if variant == "torn":
        durable.replace = torn
    installed = Installed(folder, STORE_BYTES, lambda: 1)
    installed.start()
    installed.advance(Event.OFFERED, offered=offered)
    for event in (Event.BEGAN, Event.PROVED, Event.AGREED):
        installed.advance(event)
    if way == "held":
        installed.advance(Event.HELD)
    else:
        installed.advance(Event.FAILED, reason="tried", detail="to go back")
    installed.collect()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        msgspec.json.decode(sys.argv[2], type=Deployed),
        sys.argv[3],
        sys.argv[4],
    )
