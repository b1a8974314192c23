"""Intake: an MQTT message becomes a frame with an identity, a time and a deadline. Pure.

What is wrong with a message does not stop here: the frame carries its fault, so that it gets its
verdict like any other.
"""

import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

import msgspec

from edge.config import ClockSection
from edge.contracts.frame import ContentType, parse_content_type
from edge.contracts.verdict import Reason
from edge.errors import DecodeError
from edge.mqtt.messages import Incoming
from edge.observability.tracing import PROPERTY, Context

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
MAX_OWN_IDS: Final = 1_024
"""Remembered, for frames that come again; the broker sends 64 ahead of our acknowledgements."""
_IDENTITY: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,127}")
MAX_ID_CHARS: Final = 128
_WHOLE_BYTES: Final = 64 << 10
"""A payload up to this is fingerprinted whole, a larger one by pieces."""
_PIECES: Final = 64
_PIECE_BYTES: Final = _WHOLE_BYTES // _PIECES
_DECIMAL: Final = re.compile(r"-?[0-9]{1,19}")


class Fault(msgspec.Struct, frozen=True):
    """Why a frame cannot be judged, known before anything looked at it."""

    reason: str
    detail: str


class Frame(msgspec.Struct, frozen=True):
    """One frame, accepted.

    Attributes:
        frame_id: The camera's, else one of our own; 1..128 printable ASCII characters.
        reference_id: Empty where the camera names none.
        captured_at_ns: UTC; the arrival time where the camera's is absent or not believed.
        captured_ns: The same instant on the monotonic clock.
        arrived_ns: Monotonic.
        deadline_ns: Monotonic; the verdict is to be out by then.
        oddities: What was odd but harmless about the message, by name.
        fingerprint: Of the payload; equal for a frame that is delivered again.
        settle: Called once when the message may be acknowledged.
        trace: The `traceparent` that came with it; empty where none did that can be read.
    """

    frame_id: str
    part_id: str
    reference_id: str
    content: ContentType
    payload: bytes
    captured_at_ns: int
    captured_ns: int
    arrived_ns: int
    deadline_ns: int
    fault: Fault | None
    oddities: tuple[str, ...]
    fingerprint: int
    response_topic: str | None
    correlation: bytes | None
    settle: Callable[[], None]
    trace: str = ""

    def without_pixels(self) -> "Frame":
        """Itself without its payload, for whoever may have to wait with it for long."""
        return msgspec.structs.replace(self, payload=b"")


class Intake:
    """Turns the messages of one camera into frames.

    Args:
        clock: When a capture time is believed.
        max_payload_bytes: Larger frames get `decode-error` unread.
        budget_ms: From capture to verdict.
        boot_id: Makes our own frame ids unique across restarts.

    Attributes:
        budget_ms: May change between two frames.
    """

    def __init__(
        self, clock: ClockSection, max_payload_bytes: int, budget_ms: int, boot_id: str
    ) -> None:
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes
        self.budget_ms = budget_ms
        self._own_ids: Iterator[str] = (f"{boot_id}-{n}" for n in count())
        self._own: OrderedDict[int, str] = OrderedDict()

    def read(self, message: Incoming, named: dict[str, str], settle: Callable[[], None]) -> Frame:
        """Read a message.

        Args:
            message: As it came.
            named: The placeholders found in its topic.
            settle: To be called once its verdict is safe.
        """
        oddities: list[str] = []
        given = message.properties.get("frame-id") or named.get("frame_id", "")
        if given and not _IDENTITY.fullmatch(given):
            oddities.append("frame-id")
            given = ""
        age_ns, believed = self._age(message, oddities)
        content, fault = self._content(message)
        captured_ns = message.arrived_ns - age_ns
        if fault is None:
            fault = self._staleness(message, age_ns, believed=believed)
        known_by = fingerprint(message.payload)
        return Frame(
            frame_id=given or self._own_id(known_by, again=message.duplicate),
            part_id=identity(message.properties.get("part-id") or named.get("part_id", "")),
            reference_id=identity(
                message.properties.get("reference-id") or named.get("reference_id", "")
            ),
            content=content,
            payload=message.payload,
            captured_at_ns=message.arrived_at_ns - age_ns,
            captured_ns=captured_ns,
            arrived_ns=message.arrived_ns,
            deadline_ns=captured_ns + self.budget_ms * _NS_PER_MS,
            fault=fault,
            oddities=tuple(oddities),
            fingerprint=known_by,
            response_topic=message.response_topic,
            correlation=message.correlation,
            settle=settle,
            trace=_trace(message.properties.get(PROPERTY, "")),
        )

    def _own_id(self, fingerprint: int, *, again: bool) -> str:
        """Return an id of our own; one that the broker brings again has the one it had.

        Not told apart by packet id: some brokers give another one on the next connection.
        """
        if again and (known := self._own.get(fingerprint)) is not None:
            return known
        made = self._own[fingerprint] = next(self._own_ids)
        self._own.move_to_end(fingerprint)
        if len(self._own) > MAX_OWN_IDS:
            self._own.popitem(last=False)
        return made

    def _age(self, message: Incoming, oddities: list[str]) -> tuple[int, bool]:
        """Return the frame's age on arrival in ns, and whether its camera's clock was believed."""
        text = message.properties.get("captured-at")
        if text is None:
            return 0, False
        if not _DECIMAL.fullmatch(text):
            oddities.append("captured-at malformed")
            return 0, False
        age_ns = message.arrived_at_ns - int(text)
        if not (
            -self._clock.max_future_ms * _NS_PER_MS <= age_ns <= self._clock.max_age_s * _NS_PER_S
        ):
            oddities.append("captured-at implausible")
            return 0, False
        # A capture slightly ahead of this clock is skew: it must not lengthen the deadline.
        return max(age_ns, 0), True

    def _content(self, message: Incoming) -> tuple[ContentType, Fault | None]:
        size = len(message.payload)
        if size > self._max_payload_bytes:
            return ContentType(), Fault(
                Reason.DECODE_ERROR,
                f"payload of {size} bytes; limits.max_payload_bytes is {self._max_payload_bytes}",
            )
        try:
            return parse_content_type(message.content_type), None
        except DecodeError as wrong:
            return ContentType(), Fault(Reason.DECODE_ERROR, str(wrong))

    def _staleness(self, message: Incoming, age_ns: int, *, believed: bool) -> Fault | None:
        if message.retain and not believed:
            return Fault(Reason.STALE, "a retained frame without a believable captured-at")
        if age_ns >= self.budget_ms * _NS_PER_MS:
            return Fault(
                Reason.STALE,
                f"captured {age_ns / 1e6:.0f} ms before it arrived; "
                f"the budget is {self.budget_ms * _NS_PER_MS / 1e6:.0f} ms",
            )
        return None


def fingerprint(payload: bytes) -> int:
    """Tell frames apart by their size and as many bytes as cost the event loop 60 us.

    The pieces lie evenly from the first byte to the last: raw frames of two parts may be equal at
    the edges of the picture.
    """
    last = len(payload) - _PIECE_BYTES
    found = 0
    if len(payload) <= _WHOLE_BYTES:
        found = zlib.crc32(payload)
    else:
        for piece in range(_PIECES):
            at = last * piece // (_PIECES - 1)
            found = zlib.crc32(payload[at : at + _PIECE_BYTES], found)
    return len(payload) << 32 | found


def _trace(text: str) -> str:
    """Keep a trace context if it is one; else the trace does not go on here."""
    return text if text and Context.parse(text) else ""


def identity(given: str) -> str:
    """Return a part or reference id as it came, if it is short and printable; else an empty one."""
    return given if len(given) <= MAX_ID_CHARS and given.isprintable() else ""
