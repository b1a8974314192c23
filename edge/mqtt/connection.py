"""One connection to a broker: one paho client, run by the asyncio loop that made it.

No thread of paho's: the loop watches the socket, paho parses and builds packets. A client lives as
long as its connection; what must outlive it (subscriptions, unanswered publications) is the
session's. Only the blocking connect (names, TCP, TLS) runs in a thread, and nobody else touches the
client until it has ended.

paho calls back while it holds locks that are not re-entrant: a publish from inside a callback can
block for ever. Therefore its callbacks only note an event; the events are delivered when paho has
returned, in order, from the loop.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from paho.mqtt.client import (
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.config import BrokerSection
from edge.errors import TransportError
from edge.mqtt import packets, properties, security
from edge.mqtt.attempts import Version
from edge.mqtt.events import Answered, Closed, Event, Opened, Paused, Subscribed
from edge.mqtt.messages import Outgoing, Will
from edge.mqtt.pace import Pace

TICK_S: Final = 1.0  # paho's keepalive is checked this often; its unit is one second
READS: Final = 64
"""Packets read in one go, before the loop's other work has its turn."""
_NO_SUBSCRIBERS: Final = 0x10
"""A reason to take a publication (MQTT 5, 3.4.2.1)."""
RESTING_BYTES: Final = 64 << 10
"""Of packets that the kernel holds while a connection with a pace rests."""

_log = structlog.get_logger("edge.mqtt")

properties.install()


class UnansweredError(TransportError):
    """The broker took the connection, but gave no answer to CONNECT."""


class UnsupportedError(TransportError):
    """The broker does not speak this version of MQTT."""


class Connection:
    """One attempt to connect, and the connection that comes of it.

    Made inside the loop that runs it; all methods belong to that loop.

    Args:
        number: Names this connection in receipts.
        receive_maximum: What an MQTT 5 broker may send ahead of our acknowledgements.
        receive: Takes each event, outside paho's locks; may call this object's methods.
        packets_per_s: Read at the most; 0: whatever comes.

    Attributes:
        closed: Done when the connection has ended, with the reason.
        came_round_at: When its keepalive was last looked after; monotonic seconds.
    """

    def __init__(
        self,
        broker: BrokerSection,
        client_id: str,
        will: Will | None,
        *,
        version: Version,
        number: int,
        receive_maximum: int,
        receive: Callable[[Event], None],
        packets_per_s: int = 0,
    ) -> None:
        self.version = version
        self.number = number
        self._broker = broker
        self._receive_maximum = receive_maximum
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Opened] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self._noted: deque[Event] = deque()
        self._delivering = False
        self._socket: socket.socket | None = None
        self.came_round_at = time.monotonic()
        self._wants_write = False
        self._watches_write = False
        self._holding = False
        self._pace = Pace(packets_per_s) if packets_per_s else None
        self._resting: asyncio.TimerHandle | None = None
        self.broken_callbacks = 0
        self._client = self._make_client(client_id, will)

    @property
    def at(self) -> str:
        """Where the broker is, for messages: host:port."""
        return f"{self._broker.host}:{self._broker.port}"

    def _make_client(self, client_id: str, will: Will | None) -> Client:
        five = self.version == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else self._broker.session_expiry_s == 0,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            # Else paho would, on a refused version, connect again by itself, and block the loop.
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = self._broker.connect_timeout_s
        client.max_inflight_messages = 0  # the session keeps the window
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect = self._guarded(self._note_connect)
        client.on_disconnect = self._guarded(self._note_disconnect)
        client.on_message = self._guarded(self._note_message)
        client.on_publish = self._guarded(self._note_publish)
        client.on_subscribe = self._guarded(self._note_subscribe)
        client.on_socket_open = self._guarded(self._on_socket_open)
        client.on_socket_close = self._guarded(self._on_socket_close)
        client.on_socket_register_write = lambda *_: self._set_wants_write(True)
        client.on_socket_unregister_write = lambda *_: self._set_wants_write(False)
        return client

    # Opening -------------------------------------------------------------------------------------

    async def open(self) -> Opened:
        """Connect, and wait for the broker's answer.

        Raises:
            UnsupportedError: The broker does not speak this version.
            UnansweredError: It took the connection, but not a word came in `connect_timeout_s`.
            TransportError: It cannot be reached, or refused us.
        """
        timeout_s = self._broker.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._dial()
        except TimeoutError:
            raise TransportError(f"broker {self.at}: no connection in {timeout_s:g} s") from None
        assert self._socket is not None
        self._loop.add_reader(self._socket, self._drive, self._read)
        self.flush()  # CONNECT
        try:
            async with asyncio.timeout(timeout_s):
                return await self._opened
        except TimeoutError:
            raise UnansweredError(
                f"broker {self.at}: no answer to CONNECT of MQTT {self.version} in {timeout_s:g} s"
            ) from None

    async def _dial(self) -> None:
        # A thread of our own, and a daemon: a name server may hang for minutes, and neither the
        # loop nor the exit of the process shall wait for it.
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(failed: Exception | None) -> None:
            if self.closed.done():  # nobody waits any more
                self.abort()
            elif failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)

        def connect() -> None:
            failed: Exception | None = None
            try:
                self._connect()
            except Exception as problem:  # noqa: BLE001 - whatever it was, there is no connection
                failed = TransportError(f"broker {self.at}: {_said(problem)}")
                failed.__cause__ = problem
            try:
                self._loop.call_soon_threadsafe(settle, failed)
            except RuntimeError:  # the loop has been closed meanwhile
                if self._socket is not None:
                    self._socket.close()

        try:
            threading.Thread(target=connect, name="mqtt-connect", daemon=True).start()
        except RuntimeError as none_left:  # the system has no thread for us now
            raise TransportError(f"broker {self.at}: {none_left}") from none_left
        await asyncio.wait((done, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if self.closed.done():
            raise TransportError(f"broker {self.at}: {self.closed.result()}")
        done.result()

    def _connect(self) -> None:
        broker, client = self._broker, self._client
        if broker.username:
            # Bytes pass through paho as they are; its annotation knows text only.
            client.username_pw_set(broker.username, security.password(broker))  # type: ignore[arg-type]
        if broker.tls is not None:
            client.tls_set_context(security.tls_context(broker.tls))
        if self.version == "5":
            client.connect(
                broker.host,
                broker.port,
                broker.keepalive_s,
                clean_start=False,
                properties=packets.connect_properties(broker, self._receive_maximum),
            )
        else:
            client.connect(broker.host, broker.port, broker.keepalive_s)

    # Running -------------------------------------------------------------------------------------

    async def stand(self) -> str:
        """Keep the connection alive until it ends; return why it did."""
        while not self.closed.done():
            self.came_round_at = time.monotonic()
            await asyncio.wait((self.closed,), timeout=TICK_S)
            self._drive(self._client.loop_misc)
        return self.closed.result()

    def subscribe(self, filters: list[tuple[str, int]]) -> int | None:
        """Ask for filters with their QoS; return the packet id, None without a connection."""
        if self.version == "5":
            with_options = [(name, SubscribeOptions(qos=qos)) for name, qos in filters]
            code, mid = self._client.subscribe(with_options)
        else:
            code, mid = self._client.subscribe(filters)
        return mid if code is MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def publish(self, publication: Outgoing) -> int | None:
        """Build the packet; return its id, None where it cannot be sent now. `flush` sends it."""
        properties = packets.publish_properties(publication) if self.version == "5" else None
        made = self._client.publish(
            publication.topic,
            publication.payload,
            qos=publication.qos,
            retain=publication.retain,
            properties=properties,
        )
        return made.mid if made.rc is MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def acknowledge(self, mid: int) -> None:
        """Send the acknowledgement of a QoS 1 message of this connection."""
        self._drive(lambda: self._client.ack(mid, 1))

    def flush(self) -> None:
        """Write what waits to be written, at once; what the kernel does not take follows."""
        self._drive(lambda: None)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Hold back what is sent inside, and write it in one piece at the end.

        Packet by packet, each would be a segment of its own and wake the broker up by itself: half
        of what a small packet costs on either side.
        """
        if self._holding:  # the outer one writes
            yield
            return
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self._cork(True)
            self.flush()
            self._cork(False)

    def look(self) -> None:
        """Read what has come, without waiting for the loop to find it."""
        if self._socket is not None:
            self._drive(self._read)

    def leave(self) -> None:
        """Say goodbye: the broker drops the will and ends the connection."""
        self._drive(self._client.disconnect)

    def abort(self) -> None:
        """Drop the connection without a goodbye. May be called in any state, and again."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._unwatch(sock)
            sock.close()
        self._end("dropped by us")

    # The loop's side -----------------------------------------------------------------------------

    def _drive(self, step: Callable[[], object]) -> None:
        try:
            step()
            if self._client.want_write() and not self._holding:
                self._client.loop_write()
        except Exception as broken:  # noqa: BLE001 - a packet that paho cannot digest ends its connection
            self.broken_callbacks += 1
            _log.error("mqtt-broken", broker=self.at, exc_info=broken)
            self._noted.append(Closed(f"paho failed: {type(broken).__name__}: {broken}"))
        self._watch_write()
        self._deliver()

    def _read(self) -> None:
        if self._pace is not None:
            with self.together():
                self._read_at(self._pace)
            return
        for _ in range(READS):
            if not self._read_packet():
                return
        self._read_the_rest()

    def _read_at(self, pace: Pace) -> None:
        """Deal with each packet before the next is read: only then is known what it took."""
        for _ in range(READS):
            if not pace.admit():
                self._rest(pace)
                return
            if not self._read_packet():
                pace.emptied()
                return
            self._deliver()
            pace.done()
            if self.closed.done():
                return
        self._read_the_rest()

    def _read_packet(self) -> bool:
        """Read a packet or so; as long as that brings something, there is likely another."""
        before = len(self._noted)
        self._client.loop_read()
        return len(self._noted) > before or self._decrypted()

    def _read_the_rest(self) -> None:
        if self._decrypted():
            self._loop.call_soon(self._drive, self._read)

    def _rest(self, pace: Pace) -> None:
        """Read nothing until the next slice of time."""
        sock = self._socket
        if self._resting is not None or sock is None:
            return
        self._loop.remove_reader(sock)
        self._noted.append(Paused())

        def go_on() -> None:
            self._resting = None
            if self._socket is sock:
                self._loop.add_reader(sock, self._drive, self._read)
                self.look()

        self._resting = self._loop.call_later(pace.rest_s, go_on)

    def _decrypted(self) -> bool:
        """TLS: whether something lies decrypted in the library, which no selector sees."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _cork(self, on: bool) -> None:
        """Have the kernel gather what is written (Linux: tcp(7), TCP_CORK)."""
        if self._socket is not None and hasattr(socket, "TCP_CORK"):
            with contextlib.suppress(OSError):  # the connection has just gone
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)

    def _write(self) -> None:
        self._client.loop_write()
        if isinstance(self._socket, ssl.SSLSocket):  # a TLS read may have waited for a write
            self._read()

    def _watch_write(self) -> None:
        if self._socket is None or self._holding or self._wants_write == self._watches_write:
            return
        self._watches_write = self._wants_write
        if self._wants_write:
            self._loop.add_writer(self._socket, self._drive, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _unwatch(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
        self._watches_write = self._wants_write = False

    def _deliver(self) -> None:
        if self._delivering:  # a receiver called us: the round that called it goes on
            return
        self._delivering = True
        try:
            while self._noted:
                with self.together():  # what follows from one read
                    while self._noted:
                        self._report(self._noted.popleft())
        finally:
            self._delivering = False

    def _report(self, event: Event) -> None:
        if isinstance(event, Closed):
            self._end(event.reason)
            self.abort()
        self._receive(event)

    def _end(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(
                UnansweredError(f"broker {self.at}: closed before its answer to CONNECT: {reason}")
            )
            self._opened.exception()  # retrieved: nobody may be waiting
        if not self.closed.done():
            self.closed.set_result(reason)

    # paho's side: runs inside its locks, so it notes and returns ---------------------------------

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        def guarded(_client: Client, _userdata: object, *arguments: object) -> None:
            try:
                callback(*arguments)
            except Exception as broken:  # noqa: BLE001 - it would end the connection, or a thread
                self.broken_callbacks += 1
                _log.error("mqtt-callback-broken", broker=self.at, exc_info=broken)

        return guarded

    def _set_wants_write(self, wanted: bool) -> None:
        self._wants_write = wanted

    def _on_socket_open(self, sock: socket.socket) -> None:
        self._socket = sock
        # Nagle's algorithm and delayed acknowledgements together cost tens of milliseconds.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._pace is not None:  # what waits for us shall wait at the broker, which knows limits
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RESTING_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: give up sooner on a peer that is gone
            timeout_ms = self._broker.keepalive_s * 1_000
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def _on_socket_close(self, sock: socket.socket) -> None:
        self._unwatch(sock)
        self._socket = None

    def _note_connect(
        self, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if self._opened.done():
            return
        if reason.is_failure:
            self._opened.set_exception(self._refusal(reason, properties))
            self._opened.exception()  # retrieved: nobody may be waiting any more
        else:
            self._opened.set_result(packets.opened(flags.session_present, properties))

    def _refusal(self, reason: ReasonCode, properties: Properties | None) -> TransportError:
        user = f"user {self._broker.username!r}" if self._broker.username else "no user name"
        text = (
            f"broker {self.at} refused us ({user}, MQTT {self.version}): "
            f"{packets.said(reason, properties)}"
        )
        unsupported = reason == "Unsupported protocol version"
        return UnsupportedError(text) if unsupported else TransportError(text)

    def _note_disconnect(
        self, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._noted.append(packets.closed(flags, reason, properties))

    def _note_message(self, message: MQTTMessage) -> None:
        waited_ns = self._pace.waited_ns if self._pace is not None else 0
        self._noted.append(
            packets.arrived(message, self.number, time.monotonic_ns(), time.time_ns(), waited_ns)
        )

    def _note_publish(self, mid: int, reason: ReasonCode, _properties: Properties) -> None:
        refusal = str(reason) if reason.is_failure else ""
        self._noted.append(Answered(mid, refusal, reason.value == _NO_SUBSCRIBERS))

    def _note_subscribe(
        self, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refusals = tuple(str(reason) if reason.is_failure else "" for reason in reasons)
        self._noted.append(Subscribed(mid, refusals))


def _said(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return str(problem.strerror)
    return str(problem) or type(problem).__name__
