"""From pictures to frames on a topic, with bounded patience for the broker."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from edge.camera.picture import Picture
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate, unfit_for_a_level

MAX_IN_FLIGHT: Final = 4
MAX_WAITING: Final = 8
HOPELESS: Final = 3
"""Frames that the broker refused before it took one: it takes none. To MQTT 3.1.1 it may refuse by
ending the connection, and each further frame would end it again."""

_log = structlog.get_logger("edge.camera")


class FramePublisher:
    """Publishes pictures as frames; belongs to the session's loop.

    At most `MAX_IN_FLIGHT` frames are with the broker unanswered and `MAX_WAITING` wait here; one
    more, and the oldest that waits is dropped.

    Args:
        session: The connection.
        topic: Where frames go; placeholders are filled.
        qos: 0 or 1.
        run_id: Begins the id of every frame that brings none.
        reference_id: Of the reference that the frames are compared with, where they do not say;
            empty: none.
        on_hopeless: Called, with a sentence, when the broker took none of the first frames.

    Attributes:
        idle: Set while no frame waits or is under way.
        published: Frames that the broker has taken.
        dropped: Frames that gave way to newer ones.
        refused: Frames that the broker refused, or that were lost with the connection (QoS 0).
        unheard: Frames that the broker has taken, and that nobody subscribes to, as far as it says.
    """

    def __init__(
        self,
        session: Session,
        topic: TopicTemplate,
        qos: int,
        run_id: str,
        reference_id: str = "",
        on_hopeless: Callable[[str], None] = lambda _said: None,
    ) -> None:
        self._session = session
        self._topic = topic
        self._qos = qos
        self._run_id = run_id
        self._reference_id = reference_id
        self._on_hopeless = on_hopeless
        self._waiting: deque[tuple[int, Picture]] = deque()
        self._in_flight = 0
        self._number = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._was_heard = True
        self.published = self.dropped = self.refused = self.unheard = 0

    def offer(self, picture: Picture) -> None:
        """Take a picture in; it goes out as soon as the broker lets it."""
        if len(self._waiting) == MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((self._number, picture))
        self._number += 1
        self.idle.clear()
        self.pump()

    def pump(self) -> None:
        """Send what may be sent; also to be called when a connection has come up."""
        while self._waiting and self._in_flight < MAX_IN_FLIGHT and self._session.connected:
            number, picture = self._waiting.popleft()
            self._in_flight += 1
            if not self._publish(number, picture):
                self._done(accepted=False)

    def _publish(self, number: int, picture: Picture) -> bool:
        frame_id = picture.frame_id or f"{self._run_id}-{number:06d}"
        part_id = picture.part_id or frame_id
        reference_id = picture.reference_id or self._reference_id
        properties = {
            "frame-id": frame_id,
            "part-id": part_id,
            "captured-at": str(picture.captured_at_ns),
        }
        if reference_id:
            properties["reference-id"] = reference_id
        return self._session.publish(
            self._topic.fill(
                frame_id=frame_id,
                part_id=frame_id if unfit_for_a_level(part_id) else part_id,
                reference_id=reference_id or "none",
            ),
            picture.image,
            qos=self._qos,
            content_type=picture.content_type,
            properties=properties,
            on_done=self._answered,
        )

    def _answered(self, accepted: bool) -> None:
        heard = self._session.unheard == self.unheard
        if self._was_heard and not heard:
            _log.warning(
                "camera-unheard",
                topic=self._topic.text,
                remedy="nobody subscribes to it: is it the topic of the daemon's binding, and has "
                "the daemon run since it was bound?",
            )
        self._was_heard = heard
        self.unheard = self._session.unheard
        self._done(accepted=accepted)
        self.pump()

    def _done(self, *, accepted: bool) -> None:
        self._in_flight -= 1
        self.published += accepted
        self.refused += not accepted
        if not accepted and self.refused == HOPELESS and not self.published:
            self._on_hopeless(
                f"the broker took none of the first {HOPELESS} frames (raise its limit on the size "
                "of messages, or grant the topic in its access list; the log says which)"
            )
        if not self._waiting and not self._in_flight:
            self.idle.set()
