"""A deployment folder for the tests of this room, and the means to spoil it."""

import hashlib
from pathlib import Path

from edge.deployment.pin import pin
from edge.wasm import binary

MANIFEST = """\
# A comment that stays.
[deployment]
name = "bench"
revision = 3
abi = "1.0"

[pipelines.board]
source = "camera.top"
reference = "reference.top"
reference_slots = 2
budget_ms = 100
fail_safe = "reject"
overflow = "queue"
queue_frames = 5
image = { format = "GRAY8", max_width = 640, max_height = 480 }

[pipelines.board.model]
card = { path = "model/card.toml", sha256 = "" } # pinned
variant = "int8"

[pipelines.board.preprocess]
path = "guests/pre.wasm"
sha256 = ''
memory_mib = 8
call_ms = 20

[pipelines.board.postprocess]
sha256 = "stale"
path = "guests/post.wasm"
memory_mib = 4
call_ms = 10
parameters = { score = 0.5, classes = { open = 0.25 } }

[pipelines.board.decide]
path = "guests/decide.wasm"
sha256 = ""
memory_mib = 1
call_ms = 5

[[pipelines.board.signals]]
name = "signal.lamp"
max_age_ms = 1000

[[pipelines.board.actions]]
name = "action.reject"
max_per_minute = 60
max_ttl_ms = 500
"""

MODEL = b"not looked into by this room"

CARD = f"""\
[model]
name = "board"
version = "1.2.3"
task = "detection"
summary = "Finds what should not be there."
licence = "Apache-2.0"
data = "Drawn by hand."
classes = ["open", "short"]

[[model.variants]]
name = "int8"
file = "board.int8.onnx"
sha256 = "{hashlib.sha256(MODEL).hexdigest()}"
parameters = 7

[[inputs]]
name = "x"
dtype = "uint8"
shape = [1, 2, 32, 32]
layout = "NCHW"
meaning = "frame, reference"

[[outputs]]
name = "scores"
dtype = "float32"
shape = [1, 16, 2]
meaning = "confidence of each class"

[preprocessing]
guest = "pair"
description = "Bytes, copied."

[thresholds]
score = 0.5
iou = 0.4
chosen_on = "half of the training data"

[[accuracy]]
variant = "int8"
dataset = "a drawer"
iou = 0.5
map = 0.9
f = 0.8
per_class = {{ open = 0.9, short = 0.9 }}

[[verdicts]]
variant = "int8"
parts = "12 boards"
escape = 0.0
escape_interval = [0.0, 0.2]
overkill = 0.1
overkill_interval = [0.0, 0.3]
threshold = 0.5

[[latency]]
variant = "int8"
provider = "cpu"
threads = 1
p50_ms = 3
machine = "this one"
"""


def module(note: str) -> bytes:
    """The smallest module that differs from others: nothing but a custom section."""
    section = binary.name("note") + note.encode()
    return binary.module([(binary.CUSTOM, section)])


def write_folder(root: Path) -> Path:
    """Write a whole deployment folder whose digests hold; guests and model are opaque here."""
    for name, content in (
        ("guests/pre.wasm", module("pre")),
        ("guests/post.wasm", module("post")),
        ("guests/decide.wasm", module("decide")),
        ("model/board.int8.onnx", MODEL),
        ("model/card.toml", CARD.encode()),
        ("manifest.toml", MANIFEST.encode()),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    pin(root)
    return root


def edit(file: Path, old: str, new: str) -> None:
    """Replace text in a file; it must be there."""
    text = file.read_text()
    assert old in text, f"{old!r} is not in {file}"
    file.write_text(text.replace(old, new))
