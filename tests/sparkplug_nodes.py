"""A Sparkplug edge node for tests: payloads by Google's protobuf, not by the code under test."""

import math
from typing import Any, Final

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

_F: Final = descriptor_pb2.FieldDescriptorProto
# sparkplug_b.proto of Eclipse Tahu, as far as these tests go.
_METRIC: Final = (
    ("name", 1, _F.TYPE_STRING),
    ("alias", 2, _F.TYPE_UINT64),
    ("timestamp", 3, _F.TYPE_UINT64),
    ("datatype", 4, _F.TYPE_UINT32),
    ("is_historical", 5, _F.TYPE_BOOL),
    ("is_transient", 6, _F.TYPE_BOOL),
    ("is_null", 7, _F.TYPE_BOOL),
    ("metadata", 8, _F.TYPE_BYTES),
    ("properties", 9, _F.TYPE_BYTES),
    ("int_value", 10, _F.TYPE_UINT32),
    ("long_value", 11, _F.TYPE_UINT64),
    ("float_value", 12, _F.TYPE_FLOAT),
    ("double_value", 13, _F.TYPE_DOUBLE),
    ("boolean_value", 14, _F.TYPE_BOOL),
    ("string_value", 15, _F.TYPE_STRING),
    ("template_value", 18, _F.TYPE_BYTES),
)
INT8, INT64, UINT32, FLOAT, DOUBLE, BOOLEAN, STRING = 1, 4, 7, 9, 10, 11, 12


def _messages() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug.proto", package="tests")
    metric = file.message_type.add(name="Metric")
    for name, number, kind in _METRIC:
        metric.field.add(name=name, number=number, type=kind, label=_F.LABEL_OPTIONAL)
    payload = file.message_type.add(name="Payload")
    for name, number in (("timestamp", 1), ("seq", 3)):
        payload.field.add(name=name, number=number, type=_F.TYPE_UINT64, label=_F.LABEL_OPTIONAL)
    payload.field.add(
        name="metrics",
        number=2,
        type=_F.TYPE_MESSAGE,
        type_name=".tests.Metric",
        label=_F.LABEL_REPEATED,
    )
    file.syntax = "proto2"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.Payload"))


Payload: Final = _messages()


def payload(*metrics: dict[str, Any], seq: int | None = None, at_ms: int | None = None) -> bytes:
    """Encode a payload; each metric is its fields by their names in the schema."""
    made = Payload(metrics=metrics)
    if seq is not None:
        made.seq = seq
    if at_ms is not None:
        made.timestamp = at_ms
    encoded: bytes = made.SerializeToString()
    return encoded


def bd_seq(number: int) -> dict[str, Any]:
    """The metric that ties a death to its birth."""
    return {"name": "bdSeq", "datatype": INT64, "long_value": number}


def double(value: float = math.nan, **fields: Any) -> dict[str, Any]:
    """A metric of type Double."""
    return {"datatype": DOUBLE, "double_value": value, **fields}
