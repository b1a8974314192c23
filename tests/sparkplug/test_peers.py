"""What other people's Sparkplug encoders write is read equal: recorded, and by themselves.

`make sparkplug` installs the peers and compares what they write now with what is recorded.
pysparkplug needs a paho that is older than ours, and is therefore no tool of every test run.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from edge.daemon.sparkplug import read

HERE: Final = Path(__file__).parent
AT: Final = 1_790_000_000_123
BIRTH: Final[list[tuple[str, Any]]] = [
    ("Int8", -1),
    ("Int8", 127),
    ("Int16", -300),
    ("Int32", -70_000),
    ("Int64", -5_000_000_000),
    ("UInt8", 255),
    ("UInt16", 65_535),
    ("UInt32", 4_294_967_295),
    ("UInt64", 9_007_199_254_740_991),
    ("Float", 0.5),
    ("Double", -2.25),
    ("Boolean", True),
    ("Boolean", False),
    ("DateTime", AT),
]
PEERS: Final = ("sparkplug-payload", "pysparkplug")
RECORDED: Final[dict[str, list[str]]] = json.loads((HERE / "payloads.json").read_text())


@pytest.mark.parametrize("peer", PEERS)
def test_a_birth_of_a_peer_is_read_equal(peer: str) -> None:
    payload = read(bytes.fromhex(RECORDED[peer][0]))
    assert (payload.time_ms, payload.seq) == (AT, 3)
    assert [m.number(m.datatype) for m in payload.metrics] == [float(v) for _, v in BIRTH]
    for alias, metric in enumerate(payload.metrics):
        found = (metric.name, metric.alias, metric.time_ms)
        assert found == (f"m{alias}".encode(), alias, AT + alias)


@pytest.mark.parametrize("peer", PEERS)
def test_a_null_of_a_peer_is_no_value(peer: str) -> None:
    payload = read(bytes.fromhex(RECORDED[peer][1]))
    assert payload.seq == 4
    assert [metric.number(10) for metric in payload.metrics] == [None]


@pytest.mark.skipif("EDGE_SPARKPLUG_PEERS" not in os.environ, reason="`make sparkplug` runs it")
@pytest.mark.parametrize("peer", PEERS)
def test_the_recorded_payloads_are_what_the_peer_writes(peer: str) -> None:
    folder = Path(os.environ["EDGE_SPARKPLUG_PEERS"])
    command = {
        "sparkplug-payload": ["node", str(folder / "record.mjs")],
        "pysparkplug": [str(folder / "venv/bin/python"), str(HERE / "record.py")],
    }[peer]
    asked = json.dumps({"timestamp": AT, "birth": BIRTH})
    told = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == RECORDED[peer]
