"""Payloads as pysparkplug encodes them; `make sparkplug` runs it by the Python that has it."""

import datetime as dt
import json
import sys
from typing import Any

import pysparkplug as peer  # type: ignore[import-not-found]

asked: dict[str, Any] = json.load(sys.stdin)
at: int = asked["timestamp"]


def _metric(alias: int, name: str, value: Any) -> peer.Metric:
    datatype = peer.DataType[name.upper()]
    if name == "DateTime":
        value = dt.datetime.fromtimestamp(value / 1000, dt.timezone.utc)  # noqa: UP017
    return peer.Metric(
        timestamp=at + alias, name=f"m{alias}", datatype=datatype, value=value, alias=alias
    )


metrics = tuple(_metric(alias, name, value) for alias, (name, value) in enumerate(asked["birth"]))
null = peer.Metric(timestamp=at, name="n", datatype=peer.DataType.DOUBLE, is_null=True)
payloads = [
    peer.NBirth(timestamp=at, seq=3, metrics=metrics).encode(),
    peer.NData(timestamp=at, seq=4, metrics=(null,)).encode(include_dtypes=True),
]
print(json.dumps([payload.hex() for payload in payloads]))  # noqa: T201
