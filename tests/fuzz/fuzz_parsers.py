"""Targets that read bytes from outside: headers, topics, payloads, files, records, packets.

A parser takes any bytes and either returns or raises an error that its room promises. `seeds` are
valid inputs: what mutation, and coverage guidance, begin with.
"""

import base64
import json
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np

from edge import config
from edge.config import Binding, ClockSection, DeviceConfig
from edge.contracts.frame import ContentType, Encoding, PixelFormat, parse_content_type
from edge.contracts.messages import Judge, Loaded
from edge.contracts.parameters import Names, findings, read_schema
from edge.contracts.plan import ImagePlan
from edge.contracts.verdict import Reason
from edge.daemon import signals, sparkplug
from edge.daemon.intake import Intake
from edge.deployment.card import Card
from edge.deployment.manifest import Manifest
from edge.deployment.schema import parse
from edge.errors import ConfigError, DecodeError, EdgeError, TransportError
from edge.fleet import arrivals
from edge.inference.screen import screen
from edge.ledger import note, record
from edge.mqtt.messages import Incoming, Receipt
from edge.mqtt.topics import TopicTemplate, matches
from edge.pipeline.decode import decode
from edge.sdk import module
from edge.wasm import wasi
from edge.worker.channel import PacketReader, decode_for_worker, decode_from_worker, head

ROOT: Final = Path(__file__).parents[2]
_DEPLOYMENT: Final = ROOT / "models/pcb/deployment"
_CASCADE: Final = ROOT / "models/pcb_kinds/deployment"
_NOW_NS: Final = 1_790_000_000 * 10**9


@dataclass(frozen=True)
class Parser:
    """A way in from outside.

    Attributes:
        parse: Takes any bytes.
        seeds: Valid ones.
        promised: What it may raise; anything else is a finding.
        start: Bytes at the beginning that mutation leaves alone.
    """

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    promised: tuple[type[Exception], ...] = (EdgeError,)
    start: int = 0


def _intake() -> Parser:
    clock = ClockSection()
    intake = Intake(clock, 1 << 20, 200, "fuzz")
    template = TopicTemplate("line/{part_id}/{frame_id}/frame")
    names = ("frame-id", "part-id", "reference-id", "captured-at", "other")

    def read(lines: bytes) -> None:
        fields = lines.decode("utf-8", "replace").split("\n")
        fields += [""] * (8 - len(fields))
        message = Incoming(
            topic=fields[0],
            payload=lines,
            qos=1,
            retain="r" in fields[7],
            duplicate="d" in fields[7],
            content_type=fields[1] or None,
            response_topic=fields[2] or None,
            correlation=fields[3].encode() or None,
            properties={n: v for n, v in zip(names, fields[4:], strict=False) if v},
            arrived_ns=10**12,
            arrived_at_ns=_NOW_NS,
            receipt=Receipt(1, 1),
        )
        frame = intake.read(message, template.match(message.topic) or {}, lambda: None)
        assert 1 <= len(frame.frame_id) <= 128
        assert frame.frame_id.isascii()
        assert frame.frame_id.isprintable()
        assert frame.deadline_ns == frame.captured_ns + 200 * 10**6
        assert frame.fault is None or frame.fault.reason in set(Reason)

    now = str(_NOW_NS)
    return Parser(
        read,
        [
            "\n".join(each).encode()
            for each in (
                ("line/p1/f1/frame", "image/jpeg", "answers/1", "abc", "f-1", "p-1", "r-1", now),
                ("line/p/f/frame", "image/x-raw;format=BGR;width=640;height=480", "", "", "f"),
                ("line/p/f/frame", "image/png", "edge/x", "", "", "", "", "12"),
            )
        ],
        (),
    )


def _topics() -> Parser:
    def read(text: bytes) -> None:
        template, _, topic = text.decode("utf-8", "replace").partition("\n")
        made = TopicTemplate(template)
        made.match(topic)
        # A template has no group of its own: `$share` belongs to filters (edge.config refuses it).
        if not (template.startswith("$share/") or "+" in template or "#" in template):
            values = dict.fromkeys(made.names, "x")
            assert made.match(made.fill(**values)) == values
        assert matches(made.filter, topic) in {True, False}

    return Parser(
        read,
        [b"line/top/reference/{reference_id}\nline/top/reference/7", b"a/+/#\na/b/c", b"a\na"],
        (ConfigError,),
    )


def _content_types() -> Parser:
    def read(text: bytes) -> None:
        found = parse_content_type(text.decode("utf-8", "replace"))
        assert found.width >= 0

    seeds = [b"image/jpeg", b"image/png", b"image/x-raw;format=GRAY8;width=640;height=480"]
    return Parser(read, seeds, (DecodeError,))


def _signals() -> Parser:
    bindings = [
        Binding(topic="a"),
        Binding(topic="a", pointer="/v", time_pointer="/t"),
        Binding(topic="a", pointer="/a/0/~1b"),
    ]

    def read(payload: bytes) -> None:
        binding = bindings[payload[0] % len(bindings)] if payload else bindings[0]
        for time_ns, value in signals.read(payload[1:], binding, ClockSection(), _NOW_NS):
            assert isinstance(time_ns, int)
            assert abs(value) <= 1.8e308

    return Parser(
        read,
        [
            b"\x003.5",
            b'\x01{"v": 1.5, "t": 1790000000}',
            b'\x01[{"v": 1e3, "t": 1790000000000000000}, {"v": true, "t": 0}]',
            b'\x02{"a": [{"/b": 7}]}',
        ],
        (signals.MalformedSignalError,),
    )


def _sparkplug() -> Parser:
    def read(payload: bytes) -> None:
        found = sparkplug.read(payload)
        assert len(found.metrics) <= sparkplug.MAX_FIELDS
        for metric in found.metrics:
            with suppress(signals.MalformedSignalError):
                value = metric.number(metric.datatype)
                assert value is None or abs(value) <= 1.8e308

    peers = json.loads((ROOT / "tests/sparkplug/payloads.json").read_text())
    seeds = [bytes.fromhex(payload) for peer in peers.values() for payload in peer]
    return Parser(
        read, [*seeds, sparkplug.rebirth(_NOW_NS // 10**6)], (signals.MalformedSignalError,)
    )


def _config() -> Parser:
    return Parser(
        lambda text: config.parse(_toml(text), "fuzz"),
        [path.read_bytes() for path in sorted((ROOT / "device_configs").glob("*.toml"))],
    )


def _toml(text: bytes) -> dict[str, object]:
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise ConfigError("fuzz", str(broken)) from broken


def _overrides() -> Parser:
    base = {"device": {"id": "box1"}}

    def read(text: bytes) -> None:
        words = tuple(text.decode("utf-8", "replace").split("\n"))
        assert isinstance(config.parse(base, "fuzz", words), DeviceConfig)

    return Parser(read, [b"broker.port=1884", b'bindings.camera.top="a/b"\nlog.level=debug'])


def _manifest() -> Parser:
    folders = (_DEPLOYMENT, _CASCADE)
    manifests = [(folder / "manifest.toml").read_bytes() for folder in folders]
    return Parser(lambda text: parse(text, Manifest, "fuzz"), manifests)


def _card() -> Parser:
    card = (_DEPLOYMENT / "model/model.toml").read_bytes()
    return Parser(lambda text: parse(text, Card, "fuzz"), [card])


def _onnx() -> Parser:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])],
        "branch",
        [],
        [value("b", TensorProto.FLOAT, [4])],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [4]), value("c", TensorProto.BOOL, [])],
        [value("y", TensorProto.FLOAT, [4])],
        initializer=[helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Parser(lambda content: screen(content, "fuzz"), [model.SerializeToString()])


def _guests() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "guests").glob("*/*.wasm"))]


def _inspection() -> Parser:
    return Parser(module.read, _guests(), start=8)


def _linking() -> Parser:
    return Parser(wasi.link, _guests(), start=8)


def _records() -> Parser:
    def read(canonical: bytes) -> None:
        found = record.decode(canonical)
        if isinstance(found, record.Record):
            record.verdict_of(found)

    whole: dict[str, object] = {
        "v": record.VERSION,
        "type": "verdict",
        "seq": 1,
        "frame_id": "f",
        "verdict": "pass",
        "reason": "ok",
        "score": 0.5,
        "defects": [{"class": "open", "score": 0.5, "box": [1, 2, 3, 4]}],
        "latency_ms": {"total": 3.2},
        "prev": "00" * 32,
    }
    return Parser(read, [json.dumps(whole).encode(), b'{"v":1,"type":"override"}'])


def _schemas() -> Parser:
    """A guest's schema of its parameters, and values held to it: both are someone else's."""
    names = Names(("open", "short"), ("signal.lamp",), ("action.reject",))
    values = {"score": 0.5, "reject": "x", "signals": [{"signal": "signal.lamp", "min": 1}]}

    def read(text: bytes) -> None:
        for found in findings(read_schema(text, "fuzz"), values, names):
            assert str(found)

    paths = sorted((ROOT / "guests").glob("*/parameters.json"))
    return Parser(read, [path.read_bytes() for path in paths])


def _collected() -> Parser:
    body = {"v": 2, "device": "box1", "ledger": "00" * 16, "seq": 1, "prev": "00" * 32}
    return Parser(
        lambda content: arrivals.record("box1", content, 1 << 16),
        [json.dumps(body).encode()],
        (arrivals.RefusedError,),
    )


def _notes() -> Parser:
    text = "edge.example/box1\n42\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"
    signature = base64.b64encode(bytes(68)).decode()
    return Parser(note.parse, [f"{text}\u2014 edge.example/box1 {signature}\n".encode()])


def _channel() -> Parser:
    stream = head(Judge(1, ContentType(), 5, 6), 4) + b"body" + head(Loaded("cpu", {"model": 1.0}))

    def read(chunk: bytes) -> None:
        reader = PacketReader()
        for packet, _ in (*reader.feed(chunk[:7]), *reader.feed(chunk[7:])):
            for decoder in (decode_for_worker, decode_from_worker):
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    decoder.decode(packet)

    return Parser(read, [stream], (TransportError,))


def _images() -> Parser:
    """Native decoders behind a header check: a crash of theirs is a crash of the worker."""
    plan = ImagePlan(PixelFormat.BGR, 64, 64)
    random = np.random.default_rng(1)
    pixels = np.zeros(plan.max_bytes + 16, np.uint8)
    picture = random.integers(0, 256, (48, 40, 3), np.uint8)
    raw = ContentType(Encoding.RAW, PixelFormat.BAYER_RG8, 32, 32)
    kinds = [ContentType(), ContentType(Encoding.PNG), raw]

    def read(payload: bytes) -> None:
        content = kinds[payload[0] % len(kinds)] if payload else raw
        width, height = decode(payload[1:], content, plan, pixels)
        assert 0 < width <= plan.max_width
        assert 0 < height <= plan.max_height
        assert not pixels[plan.max_bytes :].any(), "written behind its slot"

    def encoded(suffix: str, *options: int) -> bytes:
        return cv2.imencode(suffix, picture, options)[1].tobytes()

    return Parser(
        read,
        [
            b"\0" + encoded(".jpg"),
            b"\0" + encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
            b"\1" + encoded(".png"),
            b"\2" + bytes(32 * 32),
        ],
        (DecodeError,),
        start=1,
    )


PARSERS: Final[dict[str, Callable[[], Parser]]] = {
    "frame-headers": _intake,
    "topics": _topics,
    "content-types": _content_types,
    "signals": _signals,
    "sparkplug": _sparkplug,
    "config": _config,
    "overrides": _overrides,
    "manifest": _manifest,
    "card": _card,
    "onnx-screen": _onnx,
    "wasm-inspection": _inspection,
    "wasi-linking": _linking,
    "ledger-records": _records,
    "worker-channel": _channel,
    "images": _images,
    "parameter-schemas": _schemas,
    "collected-records": _collected,
    "notes": _notes,
}
