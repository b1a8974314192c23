"""Plays a playlist through a broker at a fixed rate, and collects the verdicts.

The schedule is absolute: frame n goes out at start + n / rate, so that delays do not add up; how
late frames went out is measured and told. Pictures are made a few frames ahead in a thread of
their own. Latency is counted from the instant a frame is handed to the connection to the instant
its verdict has been read from it.
"""

import asyncio
import itertools
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edge.config import BrokerSection
from edge.contracts import verdict as verdicts
from edge.errors import ConfigError, TransportError
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate
from edge.replay.parts import Payload, Playlist, ReplayPart
from edge.replay.score import Answer, Shot

_AHEAD: Final = 6
_KEPT_BYTES: Final = 256 << 20
"""Encoded pictures kept for the case that a playlist is played more than once."""
_REFERENCES_AT_ONCE: Final = 16
_FLUSH_S: Final = 2.0
_ANSWERS_A_FRAME: Final = 4
_UNFIT: Final = re.compile(r"[/+#\s]")


@dataclass(frozen=True)
class Target:
    """Where the daemon under test is.

    Attributes:
        frame_topic: With `{part_id}`-like placeholders where the device config binds them.
        reference_topic: With `{reference_id}`; empty: references are not published.
        frame_qos: 0 or 1.
    """

    broker: BrokerSection
    device_id: str
    pipeline: str
    frame_topic: str
    reference_topic: str = ""
    frame_qos: int = 1

    @property
    def verdict_topic(self) -> str:
        """Where the verdicts come."""
        return f"edge/{self.device_id}/{self.pipeline}/verdict"

    @property
    def status_topic(self) -> str:
        """Where the retained status stands."""
        return f"edge/{self.device_id}/status"


@dataclass(frozen=True)
class Pace:
    """How fast, how many, and how long to wait.

    Attributes:
        rate_hz: Frames a second.
        frames: How many; more than the playlist has: it is played again.
        connect_within_s: For the broker.
        ready_within_s: For the daemon's retained status to say `ready`.
        answer_within_s: For outstanding verdicts after the last frame.
        linger_s: After all verdicts have come, for second ones that nobody should send.
    """

    rate_hz: float
    frames: int
    connect_within_s: float = 15.0
    ready_within_s: float = 120.0
    answer_within_s: float = 10.0
    linger_s: float = 0.3


class Watcher:
    """Sees a replay as it goes; every method may be overridden, and must return at once."""

    def waits(self, for_what: str) -> None:
        """Something is being waited for."""

    def starts(self, title: str, frames: int) -> None:
        """The first frame is about to go."""

    def sends(self, shot: Shot) -> None:
        """A frame has gone."""

    def receives(self, shot: Shot, answer: Answer) -> None:
        """A verdict has come."""

    def ends(self) -> None:
        """Nothing more will come."""


@dataclass
class Played:
    """What happened.

    Attributes:
        unsent: Frames that the connection did not take, or the broker refused.
        unheard: Frames that nobody subscribes to; 0 where the broker does not say so.
        undecodable: Messages on the verdict topic that are no verdict.
        lag_ms: How much later than planned each frame went out.
    """

    shots: list[Shot] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    unsent: int = 0
    unheard: int = 0
    undecodable: int = 0
    lag_ms: list[float] = field(default_factory=list)


async def play(
    playlist: Playlist, target: Target, pace: Pace, run_id: str, watcher: Watcher | None = None
) -> Played:
    """Wait for the daemon, publish the references, play the frames, and wait for the verdicts.

    Args:
        playlist: What to play.
        target: Whom to play it to.
        pace: How.
        run_id: Begins every frame id; a daemon that has seen it answers from memory.
        watcher: Told as it goes.

    Raises:
        ConfigError: A topic is no template, or cannot tell frames apart on MQTT 3.1.1.
        TransportError: The broker or the daemon was not there in time, or refused.
    """
    player = _Player(playlist, target, pace, run_id, watcher or Watcher())
    return await player.play()


class _Player:
    """One replay, from connection to goodbye."""

    def __init__(
        self, playlist: Playlist, target: Target, pace: Pace, run_id: str, watcher: Watcher
    ) -> None:
        if not playlist.parts:
            raise ConfigError(playlist.title, "holds no part to play")
        self._playlist = playlist
        self._target = target
        self._pace = pace
        self._run_id = run_id
        self._watcher = watcher
        self._played = Played()
        self._open: set[str] = set()
        self._shots: dict[str, Shot] = {}
        self._status: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._frames = TopicTemplate(target.frame_topic)
        self._references = TopicTemplate(target.reference_topic) if target.reference_topic else None
        self._session = Session(
            target.broker,
            target.broker.client_id or run_id,
            on_connected=self._changed.set,
        )
        self._session.subscribe(target.status_topic, 1, self._take_status)
        self._session.subscribe(target.verdict_topic, 1, self._take_verdict)

    async def play(self) -> Played:
        running = asyncio.create_task(self._session.run(), name="replay-session")
        try:
            await self._connect(running)
            await self._publish_references(running)
            await self._daemon_ready(running)
            self._watcher.starts(self._playlist.title, self._pace.frames)
            unheard = self._session.unheard  # references, perhaps
            await self._publish_frames()
            await self._collect(running)
            self._played.unheard = self._session.unheard - unheard
        finally:
            self._watcher.ends()
            await self._session.close(_FLUSH_S)
            running.cancel()
            await asyncio.wait((running,))
        return self._played

    # Before the first frame ----------------------------------------------------------------------

    async def _connect(self, running: asyncio.Task[None]) -> None:
        broker = self._target.broker
        at = f"{broker.host}:{broker.port}"
        self._watcher.waits(f"the broker on {at}")
        if not await self._until(
            lambda: self._session.connected, self._pace.connect_within_s, running
        ):
            raise TransportError(
                f"no broker on {at} within {self._pace.connect_within_s:g} s: "
                f"{self._session.last_error or 'no answer'} "
                "(is it running? broker.host and broker.port, of --config or --set, say where)"
            )
        for topic_filter, reason in self._session.refused_filters.items():
            raise TransportError(f"the broker refuses to subscribe us to {topic_filter}: {reason}")
        if self._session.protocol == "3.1.1" and "frame_id" not in self._frames.names:
            raise ConfigError(
                f"frame topic {self._target.frame_topic!r}",
                "this broker speaks MQTT 3.1.1, which carries no frame ids beside the frame",
                "bind and play a topic with {frame_id}, {part_id} and {reference_id}",
            )

    async def _publish_references(self, running: asyncio.Task[None]) -> None:
        """Publish them retained, a few at a time, each until the broker has it."""
        if self._references is None:
            return
        waiting: set[str] = set()
        refused: list[str] = []

        def done(reference_id: str, accepted: bool) -> None:
            waiting.discard(reference_id)
            if not accepted:
                refused.append(reference_id)
            self._changed.set()

        count = len(self._playlist.references)
        for number, (reference_id, picture) in enumerate(self._playlist.references.items()):
            self._watcher.waits(f"reference {number + 1} of {count} to be taken by the broker")
            payload = await asyncio.to_thread(picture)
            waiting.add(reference_id)
            sent = self._session.publish(
                self._references.fill(reference_id=_level(reference_id)),
                payload.image,
                retain=True,
                content_type=payload.content_type,
                on_done=lambda ok, reference_id=reference_id: done(reference_id, ok),  # type: ignore[misc]
            )
            room = _REFERENCES_AT_ONCE if number + 1 < count else 1
            if not sent or not await self._until(
                lambda room=room: len(waiting) < room,  # type: ignore[misc]
                self._pace.connect_within_s,
                running,
            ):
                raise TransportError(
                    f"reference {reference_id}: the broker did not take it within "
                    f"{self._pace.connect_within_s:g} s: {self._session.last_error or 'no answer'}"
                )
        if refused:
            raise TransportError(
                f"the broker refused reference {refused[0]} (check its access list, and how large "
                "a message it takes)"
            )

    async def _daemon_ready(self, running: asyncio.Task[None]) -> None:
        device = self._target.device_id
        self._watcher.waits(f"the daemon {device} to be ready")
        if await self._until(
            lambda: self._status.get("ready") is True, self._pace.ready_within_s, running
        ):
            self._hold_pipeline()
            return
        said = "nothing"
        if self._status:
            shown = {k: self._status[k] for k in ("state", "ready", "reason") if k in self._status}
            said = msgspec.json.encode(shown).decode()
        raise TransportError(
            f"the daemon {device} was not ready within {self._pace.ready_within_s:g} s; "
            f"{self._target.status_topic} says {said} (is `edge run` up, with this device id?)"
        )

    def _hold_pipeline(self) -> None:
        """Have a pipeline that is not there said at once, not by verdicts that do not come."""
        there = self._status.get("pipelines")
        if isinstance(there, dict) and there and self._target.pipeline not in there:
            raise ConfigError(
                "--pipeline",
                f"the daemon {self._target.device_id} has no {self._target.pipeline!r}; "
                f"it has {', '.join(there)}",
                "name one of them",
            )

    # Frames and verdicts -------------------------------------------------------------------------

    async def _publish_frames(self) -> None:
        loop = asyncio.get_running_loop()
        start = 0.0
        number = 0
        async for part, payload in self._pictures():
            start = start or loop.time()
            due = start + number / self._pace.rate_hz
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._played.lag_ms.append(max(0.0, loop.time() - due) * 1e3)
            self._publish_frame(number, part, payload)
            number += 1

    def _publish_frame(self, number: int, part: ReplayPart, payload: Payload) -> None:
        frame_id = f"{self._run_id}-{number:06d}"
        identity = {"frame-id": frame_id, "part-id": part.part_id}
        if part.reference_id:
            identity["reference-id"] = _level(part.reference_id)
        topic = self._frames.fill(
            frame_id=frame_id,
            part_id=_level(part.part_id),
            reference_id=_level(part.reference_id) if part.reference_id else "none",
        )
        shot = Shot(
            frame_id, part.part_id, part.truth, time.monotonic_ns(), part.series, part.grouped
        )
        self._shots[frame_id] = shot
        self._open.add(frame_id)
        self._played.shots.append(shot)
        sent = self._session.publish(
            topic,
            payload.image,
            qos=self._target.frame_qos,
            content_type=payload.content_type,
            properties={**identity, "captured-at": str(time.time_ns())},
            on_done=self._note_refusal,
        )
        if not sent:
            self._played.unsent += 1
        self._watcher.sends(shot)

    def _note_refusal(self, accepted: bool) -> None:
        self._played.unsent += not accepted

    async def _pictures(self) -> AsyncIterator[tuple[ReplayPart, Payload]]:
        """Each part with its picture, in order, made a few ahead in one thread."""
        parts = itertools.islice(itertools.cycle(self._playlist.parts), self._pace.frames)
        album = _Album()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
            ahead: deque[tuple[ReplayPart, asyncio.Future[Payload]]] = deque()
            try:
                for part in parts:
                    ahead.append((part, loop.run_in_executor(thread, album.picture, part)))
                    if len(ahead) > _AHEAD:
                        first, made = ahead.popleft()
                        yield first, await made
                while ahead:
                    first, made = ahead.popleft()
                    yield first, await made
            finally:
                for _, made in ahead:
                    made.cancel()

    async def _collect(self, running: asyncio.Task[None]) -> None:
        if self._open:
            await self._until(lambda: not self._open, self._pace.answer_within_s, running)
        # Nothing announces that no second verdict will come: a fixed time must do.
        await asyncio.sleep(self._pace.linger_s)

    def _take_status(self, message: Incoming) -> None:
        try:
            status = msgspec.json.decode(message.payload, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            status = {}
        self._status = status
        self._session.acknowledge(message)
        self._changed.set()

    def _take_verdict(self, message: Incoming) -> None:
        self._session.acknowledge(message)
        if message.retain:
            return  # of an earlier run; verdicts are not retained, but a bridge may do so
        try:
            verdict = verdicts.from_json(message.payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._played.undecodable += 1
            return
        answer = Answer(verdict, message.arrived_ns, message.duplicate)
        if len(self._played.answers) < _ANSWERS_A_FRAME * self._pace.frames:
            self._played.answers.append(answer)
        if verdict.frame_id in self._open:
            self._open.discard(verdict.frame_id)
            self._watcher.receives(self._shots[verdict.frame_id], answer)
            self._changed.set()

    async def _until(
        self, claim: Callable[[], bool], within_s: float, running: asyncio.Task[None]
    ) -> bool:
        """Wait until the claim holds; False where it does not in time, or the session ended."""
        try:
            async with asyncio.timeout(within_s):
                while not claim():
                    if running.done():
                        await running  # its own error, where it had one
                        return False
                    self._changed.clear()
                    woken = asyncio.ensure_future(self._changed.wait())
                    try:
                        await asyncio.wait((woken, running), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        woken.cancel()
        except TimeoutError:
            return claim()
        return True


class _Album:
    """Pictures of parts, made once, while they fit; the playlist keeps the parts alive."""

    def __init__(self) -> None:
        self._kept: dict[int, Payload] = {}
        self._bytes = 0

    def picture(self, part: ReplayPart) -> Payload:
        """The part's picture; called from one thread at a time."""
        kept = self._kept.get(id(part))
        if kept is None:
            kept = part.picture()
            if self._bytes + len(kept.image) <= _KEPT_BYTES:
                self._kept[id(part)] = kept
                self._bytes += len(kept.image)
        return kept


def _level(text: str) -> str:
    """An id as it can stand in a topic."""
    return _UNFIT.sub("_", text)
