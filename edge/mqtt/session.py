"""The session: a lasting relation to a broker, whatever happens to its connections.

It reconnects for ever, subscribes anew each time, and sends again what was not answered. It never
acknowledges by itself what a receiver has taken, never raises out of a receiver, and never blocks
the loop. It is not durable: what must outlive this process belongs into a ledger.

Delivery is at least once, for QoS 1 both ways. A publication that is sent again after a lost
connection has a new packet id: at QoS 1 the receiver keeps no ids (MQTT 5, 4.3.2), so nobody can
tell.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

import structlog

from edge.config import BrokerSection
from edge.errors import TransportError
from edge.mqtt import security
from edge.mqtt.attempts import Backoff, VersionChoice
from edge.mqtt.callbacks import call
from edge.mqtt.connection import Connection, UnansweredError, UnsupportedError
from edge.mqtt.counting import COUNTERS, is_milestone
from edge.mqtt.events import (
    Answered,
    Arrived,
    Closed,
    Event,
    Opened,
    Paused,
    Subscribed,
    Unusable,
)
from edge.mqtt.inbox import Inbox, Route
from edge.mqtt.messages import Incoming, Outgoing, Will
from edge.mqtt.packets import LOST, RECEIVE_MAXIMUM
from edge.mqtt.publisher import Publisher
from edge.mqtt.topics import filter_problem

STOOD_S: Final = 5.0
"""A connection that lasted so long was a good one: the next delay begins small again."""
GOODBYE_S: Final = 1.0
"""How long `close` waits for the broker to end the connection."""
REPEATS_UNLOGGED: Final = 40
"""The same failure again is logged once in so many attempts: about every eight minutes."""
ENDS_LOGGED: Final = 10
"""Ends of connections that are logged each, with the connections that follow; then one in
`REPEATS_UNLOGGED`: two clients of one id take turns every ten seconds, for ever."""
NAMESAKE_ENDS: Final = 3
"""From so many on a reason that says nothing names the likeliest: Mosquitto 2.0, and each broker of
MQTT 3.1.1, hangs up on the first of two clients with one id without a word."""
STEADY_S: Final = 600.0
"""A connection that lasted so long, and its end is logged again."""
KINDS_OF_FAILURE: Final = 16
"""More different ones than that, and all are told anew."""

_log = structlog.get_logger("edge.mqtt")


class Session:
    """A lasting relation to one broker. All methods belong to the loop that runs `run`.

    Args:
        broker: The device config's section.
        client_id: Stable: the broker keeps the session under it.
        will: What the broker publishes when we vanish.
        on_connected: Called when the broker has accepted us and answered all subscriptions.
        on_disconnected: Called with the reason when a connection that was reported has ended.
        receive_maximum: QoS 1 messages that an MQTT 5 broker may send ahead of our
            acknowledgements.
        packets_per_s: Read at the most; 0: whatever comes. What may have waited for that says so
            (`waited_ns`).

    Attributes:
        counters: What happened since the start, by the names in `edge.mqtt.counting`.
        refused_filters: Filters that the broker did not grant, each with its reason.
        last_error: Why there is no connection; empty while there is one.

    Raises:
        ConfigError: A password, certificate or key file cannot be used.
    """

    def __init__(
        self,
        broker: BrokerSection,
        client_id: str,
        *,
        will: Will | None = None,
        on_connected: Callable[[], None] = lambda: None,
        on_disconnected: Callable[[str], None] = lambda _reason: None,
        receive_maximum: int = RECEIVE_MAXIMUM,
        packets_per_s: int = 0,
    ) -> None:
        security.password(broker)  # a file that cannot be used is said now, not while we run
        if broker.tls is not None:
            security.tls_context(broker.tls)
        self._broker = broker
        self._client_id = client_id
        self._will = will
        self._receive_maximum = receive_maximum
        self._packets_per_s = packets_per_s
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._versions = VersionChoice(broker.protocol)
        self._backoff = Backoff(random.random)
        self._connection: Connection | None = None
        self._number = 0
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._publisher = Publisher(broker.max_outgoing, self.counters)
        self._inbox = Inbox(broker.max_packet_bytes, self.counters, self._send_acknowledgement)
        self._opened: Opened | None = None
        self._up = False
        self._reported = False
        self._asked: dict[int, list[str]] = {}
        self._changed = asyncio.Event()
        self._closing = False  # nothing new is taken
        self._stopping = False  # no connection is made any more
        self._running = False
        self._came_round_at = time.monotonic()
        self._failures: dict[str, int] = {}  # since the last connection
        self._ends = 0  # since a steady connection
        self._reported_at = 0.0
        self.refused_filters: dict[str, str] = {}
        self.last_error = ""

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and answered all subscriptions."""
        return self._up

    @property
    def came_round_at(self) -> float:
        """When the session last came round: began an attempt, or looked after its connection.

        Monotonic seconds; while `run` runs, never long ago, whatever the broker does.
        """
        standing = self._connection.came_round_at if self._connection else 0.0
        return max(self._came_round_at, standing)

    @property
    def protocol(self) -> str:
        """The version spoken on this connection: `5`, `3.1.1`; empty without one."""
        return self._connection.version if self._connection and self._opened else ""

    @property
    def unanswered(self) -> int:
        """Publications that the broker has not answered yet."""
        return len(self._publisher)

    @property
    def unheard(self) -> int:
        """Publications that nobody subscribes to, as far as the broker says so (MQTT 5, QoS 1)."""
        return self._publisher.unheard

    @property
    def unacknowledged(self) -> int:
        """Received QoS 1 messages that no one has acknowledged yet."""
        return self._inbox.unacknowledged

    # What others ask of us -----------------------------------------------------------------------

    def subscribe(self, topic_filter: str, qos: int, receive: Callable[[Incoming], None]) -> None:
        """Have `receive` called, from the loop, with each message that the filter takes.

        May be called before there is a connection; each new one subscribes again, and the broker
        then sends its retained messages again. Where filters overlap, each receiver gets the
        message, and it counts as acknowledged when each has acknowledged it. A receiver that raises
        is logged and has thereby acknowledged: else it would block the broker's window.

        Raises:
            ValueError: The filter or the QoS is against the rules of MQTT.
        """
        if problem := filter_problem(topic_filter):
            raise ValueError(f"filter {topic_filter!r}: {problem}")
        if qos not in (0, 1):
            raise ValueError(f"filter {topic_filter!r}: QoS {qos} is not used here; 0 and 1 are")
        self._inbox.routes.append(Route(topic_filter, qos, receive))
        if self._connection is not None and self._opened is not None:
            self._ask(self._connection, {topic_filter: self._inbox.wanted()[topic_filter]})

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        correlation: bytes | None = None,
        properties: dict[str, str] | None = None,
        bulk: bool = False,
        on_done: Callable[[bool], None] | None = None,
    ) -> bool:
        """Send a message, at once where there is a connection; never blocks.

        Without a connection QoS 1 is queued, up to `max_outgoing`, and QoS 0 dropped.

        What is `bulk` gives way: all that is not goes before it, and has half of the broker's
        window and half of `max_outgoing` to itself.

        Where this returns True, `on_done` is called once, from the loop: with True when the broker
        has acknowledged it (QoS 0: when the kernel has taken it), with False when the broker
        refused it (MQTT 5 says so, 3.1.1 cannot), or QoS 0 was lost with the connection.

        Returns:
            False where it was dropped: the queue is full, the session closing, or QoS 0 offline.

        Raises:
            ValueError: The topic or a property is against the rules of MQTT.
        """
        publication = Outgoing(
            topic, payload, qos, retain, content_type, correlation, properties or {}, on_done, bulk
        )
        if problem := publication.problem():
            raise ValueError(f"cannot publish to {topic!r}: {problem}")
        if not self._closing and self._publisher.publish(publication):
            return True
        self.counters["publish_dropped"] += 1
        return False

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Have what is published and acknowledged inside leave in one piece, at the end of it."""
        connection = self._connection
        if connection is None or self._opened is None:  # nothing leaves now
            return contextlib.nullcontext()
        return connection.together()

    def look(self) -> None:
        """Take what has come already, before the loop's next turn."""
        if self._connection is not None and self._opened is not None:
            self._connection.look()

    def acknowledge(self, message: Incoming) -> None:
        """Tell the broker that the message need not come again.

        On another connection than it came by this does nothing: the broker sends it again anyway.
        """
        self._inbox.acknowledge(message)

    async def close(self, flush_s: float) -> None:
        """Wait for what is on its way, `flush_s` at the longest, then say goodbye.

        After a goodbye the broker publishes no will; it keeps the session. `run` returns.
        """
        self._closing = True
        deadline = time.monotonic() + flush_s
        while (
            self._running and len(self._publisher) and (left_s := deadline - time.monotonic()) > 0
        ):
            await self._change(left_s)
        if len(self._publisher):
            _log.warning("mqtt-unsent", broker=self._at, publications=len(self._publisher))
        self._stopping = True
        self._notify()
        connection = self._connection
        if connection is not None and self._opened is not None:
            connection.leave()
            await asyncio.wait((connection.closed,), timeout=GOODBYE_S)
        if connection is not None:
            connection.abort()

    async def run(self) -> None:
        """Own the connection until cancelled or closed.

        Cancelling drops the connection without a goodbye: the broker publishes the will.
        """
        self._running = True
        try:
            while not self._stopping:
                self._came_round_at = time.monotonic()
                if not await self._attempt() and not self._stopping:
                    await self._change(self._backoff.next_s())
        finally:
            self._running = False
            self._notify()

    async def _attempt(self) -> bool:
        """Connect, and stay while it lasts; say whether to try again at once."""
        try:
            await self._live()
        except UnsupportedError as failed:
            self._note_failure(failed)
            return self._versions.unsupported()
        except UnansweredError as failed:
            self._note_failure(failed)
            return self._versions.silent()
        except TransportError as failed:
            self._note_failure(failed)
        return False

    # One connection ------------------------------------------------------------------------------

    async def _live(self) -> None:
        self._number += 1
        connection = self._connection = Connection(
            self._broker,
            self._client_id,
            self._will,
            version=self._versions.current,
            number=self._number,
            receive_maximum=self._receive_maximum,
            receive=self._take,
            packets_per_s=self._packets_per_s,
        )
        self._inbox.begin(connection.number)  # a kept session delivers right behind the CONNACK
        reason = "cancelled"
        try:
            opened = await connection.open()
            if not connection.closed.done():  # the broker may hang up right behind its answer
                self._begin(connection, opened)
            await self._subscribed(connection)
            self._report_connected(opened)
            since = time.monotonic()
            reason = await connection.stand()
            if time.monotonic() - since > STOOD_S:
                self._backoff.reset()
        finally:
            connection.abort()
            self._end(reason)

    def _begin(self, connection: Connection, opened: Opened) -> None:
        self._opened = opened
        self._versions.worked()
        self.counters["connects"] += 1
        if filters := self._inbox.wanted():
            self._ask(connection, filters)
        if not connection.closed.done():
            self._publisher.begin(connection, opened)

    async def _subscribed(self, connection: Connection) -> None:
        deadline = time.monotonic() + self._broker.connect_timeout_s
        while self._asked and not connection.closed.done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TransportError(f"broker {self._at}: no answer to our subscriptions")
            await self._change(left_s)
        if connection.closed.done():
            raise TransportError(f"broker {self._at}: {connection.closed.result()}")

    def _report_connected(self, opened: Opened) -> None:
        self._up = self._reported = True
        self.last_error = ""
        self._failures.clear()
        self._reported_at = time.monotonic()
        if self._ends_are_told:
            _log.info(
                "mqtt-connected",
                **self._who(),
                protocol=self.protocol,
                session_present=opened.session_present,
                filters=len(self._inbox.routes),
            )
        call(self.counters, "on_connected", self._on_connected)

    def _end(self, reason: str) -> None:
        """Take note of an end, at once or after a failure; a second time changes nothing."""
        self._up, self._opened = False, None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._came_round_at = time.monotonic()
        self.counters["callback_errors"] += connection.broken_callbacks
        self._asked.clear()
        self._publisher.end()
        if self._reported:
            self._reported = False
            self.counters["disconnects"] += 1
            if not self._stopping:
                self._note_end(reason)
            call(self.counters, "on_disconnected", self._on_disconnected, reason)
        self._notify()

    @property
    def _ends_are_told(self) -> bool:
        return self._ends <= ENDS_LOGGED or self._ends % REPEATS_UNLOGGED == 0

    def _note_end(self, reason: str) -> None:
        if time.monotonic() - self._reported_at > STEADY_S:
            self._ends = 0
        before, self._ends = self._ends, self._ends + 1
        if reason == LOST and self._ends >= NAMESAKE_ENDS:
            reason = (
                f"{LOST} again and again: see whether another client connects with the same client "
                f"id, {self._client_id!r} (the broker's log tells)"
            )
        self.last_error = f"broker {self._at}: {reason}"
        if self._ends_are_told:
            _log.warning("mqtt-disconnected", **self._who(), reason=reason, before=before)

    def _note_failure(self, failed: TransportError) -> None:
        if self._stopping:
            return
        reason = str(failed)
        self.last_error = reason
        self.counters["connect_failures"] += 1
        if len(self._failures) >= KINDS_OF_FAILURE:
            self._failures.clear()
        before = self._failures.get(reason, 0)
        self._failures[reason] = before + 1
        if before % REPEATS_UNLOGGED == 0:
            _log.warning("mqtt-unreachable", **self._who(), reason=reason, before=before)

    def _who(self) -> dict[str, str]:
        user = self._broker.username
        return {"broker": self._at, "user": user, "client_id": self._client_id}

    # What the connection tells us ----------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Arrived(message):
                self._inbox.take(message)
            case Answered(mid, refusal, unheard):
                self._publisher.answered(mid, refusal, unheard=unheard)
            case Subscribed(mid, refusals):
                self._granted(mid, refusals)
            case Unusable(mid, qos, problem):
                self.counters["unusable"] += 1
                if is_milestone(count := self.counters["unusable"]):
                    _log.warning("mqtt-unusable", broker=self._at, problem=problem, count=count)
                if qos:
                    self._send_acknowledgement(mid)
            case Paused():
                self.counters["pauses"] += 1
                if is_milestone(count := self.counters["pauses"]):
                    _log.warning(
                        "mqtt-flooded",
                        **self._who(),
                        packets_per_s=self._packets_per_s,
                        count=count,
                        remedy="find who sends so many, or such long ones; limits.signals_per_s "
                        "allows more of short ones",
                    )
            case Closed(reason):
                self._end(reason)
        self._notify()

    def _granted(self, mid: int, refusals: tuple[str, ...]) -> None:
        filters = self._asked.pop(mid, [])
        for topic_filter, refusal in zip(filters, refusals, strict=False):
            if refusal:
                self.refused_filters[topic_filter] = refusal
                _log.error(
                    "mqtt-subscription-refused",
                    broker=self._at,
                    topic_filter=topic_filter,
                    reason=refusal,
                    remedy="grant it in the broker's access list",
                )
            else:
                self.refused_filters.pop(topic_filter, None)

    # What we tell the connection -----------------------------------------------------------------

    def _ask(self, connection: Connection, filters: dict[str, int]) -> None:
        mid = connection.subscribe(list(filters.items()))
        if mid is not None:
            self._asked[mid] = list(filters)
        connection.flush()

    def _send_acknowledgement(self, mid: int) -> None:
        if self._connection is not None:
            self._connection.acknowledge(mid)

    # Waiting -------------------------------------------------------------------------------------

    @property
    def _at(self) -> str:
        return f"{self._broker.host}:{self._broker.port}"

    def _notify(self) -> None:
        self._changed.set()

    async def _change(self, longest_s: float) -> None:
        """Wait until something happened, or so long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(longest_s):
                await self._changed.wait()
        except TimeoutError:
            return
