"""An edge node by pysparkplug: `plant7/line3` with a lamp; each line of input is its value.

It ends without a goodbye, so that the broker tells its death.
"""

import os
import sys
from typing import Any

import pysparkplug as peer  # type: ignore[import-not-found]


def _brightness(value: float) -> Any:
    at = peer.get_current_timestamp()
    return peer.Metric(
        timestamp=at, name="brightness", datatype=peer.DataType.DOUBLE, value=value, alias=5
    )


lamp = peer.Device("lamp", (_brightness(1.0),))
node = peer.EdgeNode("plant7", "line3", ())
node.register(lamp)
node.connect("127.0.0.1", port=int(sys.argv[1]))
for line in sys.stdin:
    node.update_device("lamp", (_brightness(float(line)),))
os._exit(0)
