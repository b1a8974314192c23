"""The bare script: what one would write instead of this product. It imports nothing of it.

paho-mqtt, OpenCV, NumPy and ONNX Runtime as their tutorials use them: decode, resize, session.run,
NMS, publish. No deadline, no fail-safe, no sandbox, no record. `--nodelay` is the one tuning that
matters on a socket. Also the camera of the benchmark, so that all variants are fed alike.

    python -m edge.bench.bare_script judge --port 1883 --model model.onnx
    python -m edge.bench.bare_script camera --port 1883 --frames DIR --count 500 --rate 20
"""

import argparse
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
GREY = (114, 114, 114)


def letterbox(image: Image, side: int) -> Floats:
    """Resize BGR [H,W,3] into a square, normalise, and turn it into float32 [1,3,side,side] RGB."""
    height, width = image.shape[:2]
    scale = min(side / width, side / height)
    new_width, new_height = round(width * scale), round(height * scale)
    left, top = (side - new_width) // 2, (side - new_height) // 2
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    padded = cv2.copyMakeBorder(
        resized,
        top,
        side - new_height - top,
        left,
        side - new_width - left,
        cv2.BORDER_CONSTANT,
        value=GREY,
    )
    planes = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB).transpose(2, 0, 1).astype(np.float32) / 255.0
    return np.ascontiguousarray(planes[None])


def strongest(boxes: Floats, scores: Floats, threshold: float, iou: float) -> list[dict[str, Any]]:
    """Non-maximum suppression over boxes [A,4] (x0,y0,x1,y1) and scores [A,C]."""
    best = scores.max(1)
    kept = np.nonzero(best > threshold)[0]
    if not len(kept):
        return []
    corners = boxes[kept].copy()
    corners[:, 2:] -= corners[:, :2]
    labels = scores[kept].argmax(1)
    chosen = cv2.dnn.NMSBoxesBatched(
        corners.tolist(), best[kept].tolist(), labels.tolist(), threshold, iou
    )
    return [
        {
            "class": int(labels[i]),
            "score": float(best[kept][i]),
            "box": [float(value) for value in boxes[kept][i]],
        }
        for i in np.array(chosen).flatten()
    ]


def read(jpeg: bytes, flags: int) -> Image:
    """Decode a frame."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def judge_bgr(session: Any, jpeg: bytes, side: int, threshold: float) -> str:
    """Judge a colour frame with a detector of the YOLOv8 output layout [1,4+C,A]."""
    image = read(jpeg, cv2.IMREAD_COLOR)
    output = session.run(None, {session.get_inputs()[0].name: letterbox(image, side)})[0][0]
    centres, scores = output[:4].T, output[4:].T
    boxes = np.concatenate(
        [centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2], 1
    )
    found = strongest(boxes, scores, threshold, 0.45)
    return json.dumps({"verdict": "reject" if found else "pass", "defects": found})


def judge_pair(session: Any, jpeg: bytes, reference: Image, threshold: float) -> str:
    """Judge a board frame beside its reference with the board model."""
    frame = read(jpeg, cv2.IMREAD_GRAYSCALE)
    boxes, scores = session.run(None, {"input": np.stack([frame, reference])[None]})
    found = strongest(boxes[0], scores[0], threshold, 0.4)
    return json.dumps({"verdict": "reject" if found else "pass", "defects": found})


def connect(name: str, port: int, *, nodelay: bool) -> mqtt.Client:
    """Return a client of the local broker, its network thread not yet running."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5
    )
    client.connect("127.0.0.1", port)
    opened = client.socket()
    if nodelay and isinstance(opened, socket.socket):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def load(model: Path, threads: int = 0) -> Any:
    """Return a session; 0 threads is ONNX Runtime's default, all cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def judge(arguments: argparse.Namespace) -> None:
    """Subscribe to frames and references, publish a verdict for each frame, for ever."""
    session = load(arguments.model)
    references: dict[str, Image] = {}
    client = connect("bare", arguments.port, nodelay=arguments.nodelay)

    def on_message(_client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.startswith("line/top/reference/"):
            image = read(bytes(message.payload), cv2.IMREAD_GRAYSCALE)
            references[message.topic.rsplit("/", 1)[1]] = image
            return
        assert message.properties is not None
        names = dict(getattr(message.properties, "UserProperty"))  # noqa: B009 - untyped in paho
        text = judge_pair(session, bytes(message.payload), references[names["reference-id"]], 0.5)
        verdict = {"frame_id": names["frame-id"], **json.loads(text)}
        client.publish("edge/bare/pcb/verdict", json.dumps(verdict), qos=1)

    client.on_message = on_message
    client.subscribe([("line/top/frame", 1), ("line/top/reference/+", 1)])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    client.loop_forever()


def camera(arguments: argparse.Namespace) -> None:
    """Publish frames at a rate; print one JSON list: ms from publishing to the verdict's arrival.

    `--frames` holds NAME.frame.jpg beside NAME.reference.jpg. A frame without a verdict is null.
    """
    sent: dict[str, float] = {}
    answered: dict[str, float] = {}
    overruns = [0]
    subscribed = threading.Event()
    client = connect("camera", arguments.port, nodelay=arguments.nodelay)

    def on_message(_client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        arrived = time.perf_counter()
        verdict = json.loads(message.payload)
        answered.setdefault(verdict["frame_id"], arrived)
        overruns[0] += verdict.get("reason") == "overrun"

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe("edge/+/pcb/verdict", 1)
    client.loop_start()
    subscribed.wait(10)
    pairs = [
        (path.name.removesuffix(".frame.jpg"), path.read_bytes())
        for path in sorted(arguments.frames.glob("*.frame.jpg"))
    ]
    for name, _ in pairs:
        reference = (arguments.frames / f"{name}.reference.jpg").read_bytes()
        topic = f"line/top/reference/{name}"
        client.publish(topic, reference, qos=1, retain=True).wait_for_publish(10)
    began = time.perf_counter()
    for number in range(arguments.count):
        time.sleep(max(0.0, began + number / arguments.rate - time.perf_counter()))
        name, jpeg = pairs[number % len(pairs)]
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's own
        frame_id = f"{arguments.run}-{number}"
        properties.UserProperty = [
            ("frame-id", frame_id),
            ("reference-id", name),
            ("captured-at", str(time.time_ns())),
        ]
        sent[frame_id] = time.perf_counter()
        client.publish("line/top/frame", jpeg, qos=1, properties=properties)
    ends = time.perf_counter() + 2
    while len(answered) < len(sent) and time.perf_counter() < ends:
        time.sleep(0.01)
    client.loop_stop()
    taken = [(answered[name] - at) * 1e3 if name in answered else None for name, at in sent.items()]
    json.dump({"latency_ms": taken, "overruns": overruns[0]}, sys.stdout)


def main() -> None:
    """Read the arguments and play one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(required=True)
    for part in (judge, camera):
        arguments = parts.add_parser(part.__name__, help=part.__doc__)
        arguments.set_defaults(part=part)
        arguments.add_argument("--port", type=int, required=True)
        arguments.add_argument("--nodelay", action="store_true")
        if part is judge:
            arguments.add_argument("--model", type=Path, required=True)
        else:
            arguments.add_argument("--frames", type=Path, required=True)
            arguments.add_argument("--count", type=int, default=500)
            arguments.add_argument("--rate", type=float, default=20.0)
            arguments.add_argument("--run", default="0")
    chosen = parser.parse_args()
    chosen.part(chosen)


if __name__ == "__main__":
    main()
