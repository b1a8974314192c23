"""How old a status is: the daemon says it every few seconds only."""

import json

import pytest
from rich.console import Console

from edge.cli.status import picture, understood

SAID_NS = 1_790_000_000 * 10**9
STATUS = json.dumps(
    {"state": "online", "ready": True, "device": "box1", "time_ns": SAID_NS}
).encode()


@pytest.mark.parametrize(
    ("age_s", "said"), [(0.4, "MQTT"), (4.0, "said 4 s ago"), (40.0, "it last spoke 40 s ago")]
)
def test_a_status_tells_how_old_it_is(age_s: float, said: str) -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(picture(understood(STATUS, 5.0, SAID_NS + int(age_s * 1e9))))
    assert said in shown.get()
    assert ("said" in shown.get()) == ("said" in said)
