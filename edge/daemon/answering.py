"""The way out for verdicts: their topic, a camera's response topic, and when a frame is settled."""

from collections.abc import Callable

from edge.config import BindingsSection
from edge.daemon.intake import Frame
from edge.mqtt.bound import is_ours, reserved
from edge.mqtt.session import Session
from edge.mqtt.topics import matches
from edge.observability.counters import Counters
from edge.observability.tracing import PROPERTY

Complain = Callable[[str, Frame, str], None]


class Answering:
    """Publishes the verdicts of one pipeline, whoever judged.

    Args:
        topic: Of its verdicts.
        bindings: Topics that no camera may have us answer on.
        session: The broker's session.
        counters: The daemon's counters.
        complain: Logs, throttled: event, frame, sentence.
    """

    def __init__(
        self,
        topic: str,
        bindings: BindingsSection,
        session: Session,
        counters: Counters,
        complain: Complain,
    ) -> None:
        self._topic = topic
        self._session = session
        self._counters = counters
        self._complain = complain
        self._on_the_way: dict[bytes, list[Callable[[], None]]] = {}
        self._bound = tuple(
            reserved(binding)
            for table in (bindings.camera, bindings.reference, bindings.signal, bindings.action)
            for binding in table.values()
        )

    def publish(
        self, frame: Frame, verdict: bytes, settle: Callable[[], None], context: str
    ) -> None:
        """Send a verdict out, at once.

        Args:
            frame: Whose it is.
            verdict: Its JSON.
            settle: Called when the broker has it, or will never take it.
            context: The trace that it goes on; empty: none.
        """
        named = {PROPERTY: context} if context else None
        if frame.response_topic and self._may_answer(frame.response_topic):
            self._session.publish(
                frame.response_topic, verdict, correlation=frame.correlation, properties=named
            )
        if verdict in self._on_the_way:
            # The session sends again what a lost connection left unanswered, and the broker sends
            # again the frame: one publication settles both.
            self._on_the_way[verdict].append(settle)
            return
        bare = frame.without_pixels()  # a broker may take its time

        def done(accepted: bool) -> None:
            # A broker that refuses the verdict would refuse it again: redelivery mends nothing.
            if not accepted:
                self._complain("verdict_refused", bare, f"the broker refused {bare.frame_id}")
            for each in self._on_the_way.pop(verdict):
                each()

        self._on_the_way[verdict] = [settle]
        if not self._session.publish(self._topic, verdict, properties=named, on_done=done):
            # Not acknowledged: the broker keeps the frame, and brings it again on the next
            # connection, where it gets this verdict.
            del self._on_the_way[verdict]
            self._complain("verdict_kept_back", frame, "as many publications wait as may")

    def _may_answer(self, topic: str) -> bool:
        """Whether a camera's response topic is harmless: no one may steer us through it."""
        if topic.startswith("$") or is_ours(topic) or self._is_bound(topic):
            self._counters.count("messages_refused", cause="response topic")
            return False
        return True

    def _is_bound(self, topic: str) -> bool:
        return any(matches(bound, topic) for bound in self._bound)
