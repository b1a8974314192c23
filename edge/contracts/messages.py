"""What supervisor and worker say to each other.

Each message is a small MessagePack head; image bytes travel behind the head, untouched
(`edge.worker.channel`). Instants are nanoseconds of CLOCK_MONOTONIC, which all processes of a
machine share.

What a worker says is bounded where it is read: it runs foreign code, and the supervisor must stand
whatever it says.
"""

import sys
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge.contracts.abi import (
    MAX_ACTIONS,
    MAX_DEFECTS,
    MAX_LOG_LINE_BYTES,
    MAX_LOG_LINES,
    MAX_STATE_BYTES,
    REASON_BYTES,
)
from edge.contracts.frame import ContentType
from edge.contracts.plan import PipelinePlan
from edge.contracts.sight import Sight
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import Defect, Kind


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


class Seated(Message, frozen=True, kw_only=True):
    """Base of messages about one of the pipelines that have a seat in a worker.

    Attributes:
        seat: Whose; they are counted from 0.
    """

    seat: Annotated[int, Meta(ge=0)] = 0


MAX_STAGES: Final = 16
"""Of a frame; a cascade has eight."""
MAX_STAGE_MS: Final = 3_600_000.0
"""An hour: as nanoseconds, and added up, it is a number that all who account for time can hold."""
MAX_GUESTS: Final = 5
"""Of a pipeline: three, and two more of a cascade."""
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Sentence = Annotated[str, Meta(max_length=64 << 10)]
"""For the log, which cuts it; ONNX Runtime's may be long."""
Refusal = Annotated[str, Meta(max_length=4_096)]
"""Of a state, in the status: what names a guest, and the guest's own 255 bytes."""
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Share = Annotated[float, Meta(ge=0, le=1)]
Code = Annotated[str, Meta(pattern=r"\A[a-z0-9-]+\Z", max_length=REASON_BYTES)]
StageTimes = Annotated[
    dict[Name, Annotated[float, Meta(ge=0, le=MAX_STAGE_MS)]], Meta(max_length=MAX_STAGES)
]


class PolicyState(msgspec.Struct, frozen=True):
    """What a policy carries from frame to frame, so that its successor goes on where it stopped.

    Attributes:
        frame_index: Frames decided so far.
        blob: What the guest saved; its own format; empty where it keeps none.
    """

    frame_index: Annotated[int, Meta(ge=0)] = 0
    blob: Annotated[bytes, Meta(max_length=MAX_STATE_BYTES)] = b""


class Start(Seated, frozen=True):
    """First word about a seat: build this pipeline. Frames of other seats wait meanwhile.

    Attributes:
        cache_dir: Where compiled guests are kept; writable by the worker, the same for all seats.
        policy: Where the policy's forerunner stopped.
    """

    plan: PipelinePlan
    cache_dir: str
    policy: PolicyState = PolicyState()


class Reference(Seated, frozen=True):
    """A reference image, its bytes behind the head; kept, encoded, until `Forget`.

    It goes ahead of the first frame that names it.
    """

    key: str
    content_type: ContentType


class Forget(Seated, frozen=True):
    """The supervisor no longer holds this reference."""

    key: str


class Judge(Seated, frozen=True):
    """A frame, its bytes behind the head. Answered by `Judged` or `Failed`, in order.

    Attributes:
        ticket: Names the frame on this channel; the answer carries it.
        deadline_ns: After this instant no one waits for the answer.
        captured_at_ns: UTC; what the policy is told as time.
        reference: Key of the reference image; empty where the pipeline uses none.
        signals: In the order of the plan's grants.
        part: Equal for the frames of one part (`edge.contracts.frame.part_number`).
        probe: Goes the whole way, but the policy's state is as it was before.
    """

    ticket: int
    content_type: ContentType
    deadline_ns: int
    captured_at_ns: int
    reference: str = ""
    signals: tuple[SignalValue, ...] = ()
    probe: bool = False
    part: int = 0


class TakeUp(Seated, frozen=True):
    """The policy goes on from this state, with the next frame; a refusal comes with its answer."""

    policy: PolicyState


class Stop(Message, frozen=True):
    """Finish what was sent, then exit."""


class Loaded(Seated, frozen=True):
    """The pipeline stands: guests compiled, model loaded on `provider`.

    Attributes:
        load_ms: Milliseconds of each part of loading.
        state_refused: Not empty: why the policy could not go on from its forerunner's state, and
            started empty.
        versions: Of the engines and decoders, and the processor.
    """

    provider: Name
    load_ms: StageTimes
    state_refused: Refusal = ""
    versions: Annotated[
        dict[Name, Annotated[str, Meta(max_length=200)]], Meta(max_length=MAX_STAGES)
    ] = {}


class LoadFailed(Seated, frozen=True):
    """The pipeline cannot stand here; its seat stays empty.

    Attributes:
        error: Name of the `EdgeError` class.
        detail: The whole sentence.
    """

    error: Name
    detail: Sentence


class ActionWish(msgspec.Struct, frozen=True):
    """An action that the policy asked for, by index of the plan's grants."""

    index: Annotated[int, Meta(ge=0)]
    value: Finite
    ttl_ms: Annotated[int, Meta(ge=0, lt=2**32)]


class GuestLine(msgspec.Struct, frozen=True):
    """A line that a guest logged, by its first stage; printable, written out from 255 bytes."""

    role: Name
    text: Annotated[str, Meta(max_length=4 * MAX_LOG_LINE_BYTES)]


Lines = Annotated[tuple[GuestLine, ...], Meta(max_length=MAX_GUESTS * MAX_LOG_LINES)]


class Judged(Seated, frozen=True):
    """A frame's judgement.

    Attributes:
        stage_ms: Milliseconds of each stage on the worker.
        policy: The policy's state after this frame; absent after a probe.
        before: The policy's state before it.
        findings: SHA-256, hex, of the findings as the policy saw them, before they were rounded.
        crops: Findings that the second model of a cascade looked at.
        crops_beyond: Those that were too many, and keep the first model's word.
        sight: What its picture is like, where it was looked at.
        lines: What the guests logged.
        state_refused: Not empty: the policy could not go on from its state, and started empty.
    """

    ticket: int
    verdict: Kind
    reason: Code
    score: Share
    defects: Annotated[tuple[Defect, ...], Meta(max_length=MAX_DEFECTS)]
    stage_ms: StageTimes
    actions: Annotated[tuple[ActionWish, ...], Meta(max_length=MAX_ACTIONS)] = ()
    policy: PolicyState | None = None
    lines: Lines = ()
    state_refused: Refusal = ""
    before: PolicyState = PolicyState()
    findings: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""
    crops: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    crops_beyond: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    sight: Sight | None = None


class Failed(Seated, frozen=True):
    """A frame that could not be judged: the supervisor gives the fail-safe with this reason.

    The rest is as in `Judged`.
    """

    ticket: int
    reason: Code
    detail: Sentence
    stage_ms: StageTimes = {}
    lines: Lines = ()
    state_refused: Refusal = ""


ToWorker = Start | Reference | Forget | Judge | TakeUp | Stop
FromWorker = Loaded | LoadFailed | Judged | Failed
