"""Script policies, version 1: the words that host and script exchange, as JSON.

A script is a WebAssembly component that exports the interface `edge:script/policy` of
`guests/sdk/script/policy.wit`; `guests/SCRIPTS.md` explains it. These structs are the schema: the
host encodes and decodes through them, and `guests/sdk/script/policy.schema.json` is generated from
them. A record holds what `abi.DecideCall` holds, with names in the place of indices.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from edge.contracts.abi import MAX_ACTIONS, REASON_BYTES
from edge.contracts.plan import TensorSpec
from edge.contracts.signal import SignalState
from edge.contracts.verdict import Kind

SCRIPT_MAJOR: Final = 1
SCRIPT_MINOR: Final = 0
"""The host's version. A script's major must be equal, its minor at most this."""

POLICY_INTERFACE: Final = "edge:script/policy"
STATE_INTERFACE: Final = "edge:script/state"

MAX_ANSWER_BYTES: Final = 16 << 10
MAX_LOG_LINES: Final = 8
"""Of one answer; the others are dropped."""


class Document(msgspec.Struct, frozen=True):
    """What `configure` is given, once: the parameters from the deployment, and the names around.

    Attributes:
        parameters: The script's own, word for word.
        classes: Of the model, in the order of the labels.
        signals: As granted.
        actions: As granted.
        inputs: Of the model.
        outputs: Of the model.
    """

    parameters: dict[str, Any]
    classes: list[str]
    signals: list[str]
    actions: list[str]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class FrameSize(msgspec.Struct, frozen=True):
    """Size of the frame in pixels."""

    width: int
    height: int


class ScriptDefect(msgspec.Struct, frozen=True, rename={"name": "class"}):
    """One finding.

    Attributes:
        name: Of the class; empty where the model has no class of this label.
        label: Index into the classes.
        score: 0..1.
        box: x0, y0, x1, y1 in pixels of the frame, half-open.
    """

    name: str
    label: int
    score: float
    box: tuple[float, float, float, float]


class ScriptSignal(msgspec.Struct, frozen=True):
    """A signal as of the frame's capture.

    Attributes:
        value: 0 where absent.
        age_ns: Capture time minus the value's time; never negative.
        state: Stale: older at capture than its grant allows; the value is the last one.
    """

    value: float
    age_ns: int
    state: SignalState


class Record(msgspec.Struct, frozen=True):
    """What `decide` is given for each frame.

    Attributes:
        frame_index: Frames decided since the script's state began, from 0.
        captured_at_ns: UTC; the only clock there is.
        frame: Its size.
        part: Equal for the frames of one part; 0: none is known.
        defects: Strongest first.
        signals: By name; all that are granted.
    """

    frame_index: int
    captured_at_ns: int
    frame: FrameSize
    part: int
    defects: list[ScriptDefect]
    signals: dict[str, ScriptSignal]


class ScriptAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish: the host carries it out where the deployment grants it, and counts it otherwise.

    Attributes:
        action: One of the granted names.
        value: Finite.
        ttl_ms: How long it holds; cut to the grant's maximum.
    """

    action: str
    value: float
    ttl_ms: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class ScriptAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `decide` answers: at most 16 KiB of JSON.

    Attributes:
        verdict: What to do with the part.
        score: 0..1.
        reason: A code of a-z, 0-9 and -, at most 31; none of those that only the host gives.
        actions: At most four wishes.
        log: Lines for the log, as many as the deployment grants.
    """

    verdict: Kind
    score: Annotated[float, Meta(ge=0, le=1)]
    reason: Annotated[str, Meta(pattern="^[a-z0-9-]+$", max_length=REASON_BYTES - 1)]
    actions: Annotated[list[ScriptAction], Meta(max_length=MAX_ACTIONS)] = []
    log: Annotated[list[str], Meta(max_length=MAX_LOG_LINES)] = []


def json_schema() -> dict[str, Any]:
    """JSON Schema of the three messages, under `$defs` by their names."""
    names = {"document": Document, "record": Record, "answer": ScriptAnswer}
    shapes, parts = msgspec.json.schema_components(names.values(), ref_template="#/$defs/{name}")
    assert all("$ref" in shape for shape in shapes)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"edge:script {SCRIPT_MAJOR}.{SCRIPT_MINOR}",
        "properties": dict(zip(names, shapes, strict=True)),
        "$defs": dict(sorted(parts.items())),
    }
