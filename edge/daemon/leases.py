"""Actions that hold for a time: what the daemon turned on, it turns off, whatever happens to it.

A lease is an action whose grant names a value to revert to. When its time is over, the daemon
stops, or one before it was killed, that value is published. So what may be on stands in a journal
on disk:

1. the journal names an action before the message that turns it on leaves; only that first step
   waits for the disk, a longer time or another value does not;
2. an action leaves the journal when the broker has its revert; one that was refused, or given up
   with connections that ended on it, is sent again;
3. at start whatever the journal names is reverted when its time is over, at the latest as long
   after the start as it was to hold.

A crash between message and broker's answer may revert twice, and never not at all.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from edge import durable
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

FILE: Final = "actions.json"
"""In the state directory."""
_MAX_JOURNAL_BYTES: Final = 1 << 20
_NS_PER_MS: Final = 1_000_000
_AGAIN_S: Final = 1.0
"""Where the outgoing queue is full: when to try again. Where the broker refused it, too, and then
after twice as long each time, up to `_LAST_AGAIN_S`."""
_LAST_AGAIN_S: Final = 60.0


class Lease(msgspec.Struct, frozen=True):
    """An action that holds, and how it ends.

    Attributes:
        topic: Where its revert goes; the binding may be another at the next start.
        until_ns: UTC.
    """

    action: str
    topic: str
    pipeline: str
    frame_id: str
    part_id: str
    revert: float
    ttl_ms: int
    until_ns: int


Publish = Callable[[Lease, str, Callable[[bool], None]], bool]
"""Sends a lease's revert, with its cause; as `Session.publish`, with its `on_done`."""


class Leases:
    """All leases of the daemon, by action; on the event loop's thread.

    Args:
        folder: Where the journal lies.
        publish: Sends reverts.
        counters: The daemon's.
    """

    def __init__(self, folder: Path, publish: Publish, counters: Counters) -> None:
        self._file = folder / FILE
        self._publish = publish
        self._counters = counters
        self._leases: dict[str, Lease] = {}
        self._journaled: frozenset[str] = frozenset()
        self._waiting: list[tuple[Lease, Callable[[], None]]] = []
        self._released = False
        self._refused: Counter[str] = Counter()
        self._writing = asyncio.Lock()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._dirty = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the actions that hold."""
        return tuple(sorted(self._leases))

    def recover(self) -> None:
        """Take over what an earlier daemon left on."""
        for lease in self._read():
            self._leases[lease.action] = lease
            left_ns = min(max(lease.until_ns - time.time_ns(), 0), lease.ttl_ms * _NS_PER_MS)
            self._end_in(lease, left_ns / 1e9, "restart")
            log.warning(
                "action_left_on",
                action=lease.action,
                topic=lease.topic,
                reverted_in_s=round(left_ns / 1e9, 1),
            )
        self._journaled = frozenset(self._leases)

    def hold(self, lease: Lease, send: Callable[[], None]) -> None:
        """Turn an action on, or keep it on: `send` is called when the journal knows of it.

        After `release` nothing is turned on: nobody would turn it off.
        """
        if self._released:
            return
        self._leases[lease.action] = lease
        self._dirty.set()
        if lease.action in self._journaled and not self._waiting:
            self._turn_on(lease, send)
        else:
            self._waiting.append((lease, send))

    async def keep_journal(self) -> None:
        """Write the journal whenever something changed; until cancelled."""
        while True:
            await self._dirty.wait()
            async with self._writing:
                await self._write_once()

    async def _write_once(self) -> None:
        self._dirty.clear()
        leases = tuple(self._leases.values())
        names = frozenset(lease.action for lease in leases)
        waiting, self._waiting = self._waiting, []
        self._journaled &= names  # what is about to leave the journal must enter it anew
        try:
            await asyncio.to_thread(self._write, leases)
            self._journaled = names
        except OSError as failed:
            # The gate must get its message: without the journal only a crash leaves it on.
            self._counters.count("action_leases_unwritten")
            log.error("action_lease_unwritten", detail=str(failed))
        for lease, send in waiting:
            self._turn_on(lease, send)

    def _turn_on(self, lease: Lease, send: Callable[[], None]) -> None:
        if self._released:  # while the journal was written: its revert has gone out
            return
        send()
        if self._leases.get(lease.action) is lease:  # its time begins when it is sent
            self._end_in(lease, lease.ttl_ms / 1e3, "ttl")

    def release(self) -> None:
        """Revert everything now: the daemon stops, and no one would later."""
        self._released = True
        for lease in tuple(self._leases.values()):
            self._end_in(lease, None, "stop")
            self._end(lease, "stop")

    async def close(self) -> None:
        """Write what is still on; the next daemon reverts it."""
        for timer in self._timers.values():
            timer.cancel()
        self._waiting.clear()
        async with self._writing:
            if self._dirty.is_set():
                await self._write_once()

    def _end_in(self, lease: Lease, delay_s: float | None, cause: str) -> None:
        if (timer := self._timers.pop(lease.action, None)) is not None:
            timer.cancel()
        if delay_s is not None:
            self._timers[lease.action] = self._loop.call_later(delay_s, self._end, lease, cause)

    def _end(self, lease: Lease, cause: str) -> None:
        def done(accepted: bool) -> None:
            if not accepted:
                log.error("action_revert_refused", action=lease.action, topic=lease.topic)
            if self._leases.get(lease.action) is not lease:
                return
            if accepted:
                del self._leases[lease.action]
                del self._refused[lease.action]
                self._dirty.set()
            elif not self._released:  # else the next daemon tries it
                again_s = min(_AGAIN_S * 2 ** self._refused[lease.action], _LAST_AGAIN_S)
                self._refused[lease.action] += 1
                self._end_in(lease, again_s, cause)

        if self._publish(lease, cause, done):
            self._counters.count("actions_reverted", action=lease.action, cause=cause)
        elif cause != "stop":
            self._end_in(lease, _AGAIN_S, cause)

    def _read(self) -> list[Lease]:
        try:
            with self._file.open("rb") as file:
                content = file.read(_MAX_JOURNAL_BYTES)
            return msgspec.json.decode(content, type=list[Lease])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as unreadable:
            log.error(
                "action_journal_unreadable",
                file=str(self._file),
                detail=f"{unreadable}: look whether an action is on that should not be",
            )
            return []

    def _write(self, leases: tuple[Lease, ...]) -> None:
        durable.replace(self._file, msgspec.json.encode(leases))
