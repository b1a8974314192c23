"""The supervisor: everything that the daemon consists of, wired, and its status to the world."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from edge import __version__
from edge.config import Binding, DeviceConfig
from edge.contracts.frame import parse_content_type
from edge.contracts.plan import PipelinePlan
from edge.daemon import signals
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.checkpoints import keys_of
from edge.daemon.control import Control
from edge.daemon.recording import Recording
from edge.daemon.references import ReferenceShelf
from edge.daemon.throttle import Throttle
from edge.errors import ConfigError, DecodeError, StorageError
from edge.mqtt.messages import Incoming, Will
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate
from edge.observability.counters import Counters
from edge.observability.systemd import Notifier

log = structlog.get_logger("edge.daemon")


class Supervisor:
    """Everything that the daemon consists of, wired.

    Args:
        config: The device config.
        plans: The pipelines of the active deployment.
        notifier: The line to systemd.
    """

    def __init__(
        self, config: DeviceConfig, plans: tuple[PipelinePlan, ...], notifier: Notifier
    ) -> None:
        self._config = config
        self._notifier = notifier
        self._topic = f"edge/{config.device.id}"
        self._counters = Counters()
        self._changed = asyncio.Event()
        self._draining = False
        self._announced = False
        self._throttle = Throttle(time.monotonic_ns)
        self.session = Session(
            config.broker,
            config.broker.client_id or f"edge-{config.device.id}",
            will=Will(f"{self._topic}/status", _encode(_offline("the connection was lost"))),
            on_connected=self._connected,
            on_disconnected=self._disconnected,
        )
        self._recording = self._open_ledger()
        self._shelves = {
            name: ReferenceShelf(config.limits.reference_bytes, self._reference_dropped)
            for name in sorted({plan.reference for plan in plans if plan.reference})
        }
        self._signals = {
            name: signals.SignalHistory(config.limits.signal_history)
            for name in sorted({grant.name for plan in plans for grant in plan.signals})
        }
        boot_id = f"{config.device.id}-{os.urandom(4).hex()}"
        self.pipelines = tuple(
            ActivePipeline(
                plan,
                config,
                self.session,
                self._counters,
                boot_id,
                self._shelves,
                self._signals,
                self._recording,
                self._changed.set,
            )
            for plan in plans
        )
        self._subscribe()

    async def prepare(self) -> None:
        """Recall what the ledger knows, before the first frame comes."""
        for pipeline in self.pipelines:
            await pipeline.recall()

    async def keep_control(self) -> None:
        """Answer on the control socket; until cancelled."""
        if self._recording is not None:
            await Control(self._config.storage.path, self._recording.override).serve()

    async def keep_sending(self) -> None:
        """Send records to the cloud until it has receipted them; until cancelled."""
        if self._recording is not None:
            await self._recording.keep_sending()

    @property
    def ready(self) -> bool:
        """Whether every pipeline stands and the broker is there."""
        return self.session.connected and all(pipeline.ready for pipeline in self.pipelines)

    async def keep_status(self) -> None:
        """Publish the retained status on each change and each interval, and feed the watchdog."""
        loop = asyncio.get_running_loop()
        interval_s = self._config.status.interval_s
        watchdog_s = self._notifier.watchdog_interval_s or interval_s
        next_status = loop.time()
        while True:
            pause_s = max(0.0, min(next_status - loop.time(), watchdog_s))
            # Not wait_for: until Python 3.12 it may swallow a cancellation (cpython #86296).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            self._notifier.watchdog()
            if self._changed.is_set() or loop.time() >= next_status:
                self._changed.clear()
                next_status = loop.time() + interval_s
                self._say_status()

    async def drain(self) -> None:
        """Take no more frames, answer those accepted, say goodbye, leave the broker."""
        self._draining = True
        self._notifier.stopping("draining")
        began = time.monotonic()
        grace_s = self._config.deadlines.drain_ms / 1e3
        left = await asyncio.gather(*(pipeline.drain(grace_s) for pipeline in self.pipelines))
        if self.session.connected:  # else the broker has said so already: the last will
            self.session.publish(
                f"{self._topic}/status", _encode(_offline("the daemon was stopped")), retain=True
            )
        if self._recording is not None:
            # First, so that the frames whose verdicts it commits are acknowledged yet.
            unrecorded = await self._recording.close(grace_s)
            if unrecorded:
                log.error(
                    "records_not_committed", unrecorded=unrecorded, detail="left to redelivery"
                )
        await self.session.close(grace_s)
        log.info("drained", unanswered=sum(left), drain_ms=round((time.monotonic() - began) * 1e3))

    def _say_status(self) -> None:
        if self._draining:
            return
        ready = self.ready
        # Without a broker it is not queued: hours of old statuses would crowd out the verdicts.
        # The connection that comes is a change, and says the status of that instant.
        if self.session.connected:
            self.session.publish(f"{self._topic}/status", _encode(self._status(ready)), retain=True)
        troubles = [f"{p.plan.name}: {p.trouble}" for p in self.pipelines if p.trouble]
        if self._recording is not None and self._recording.trouble:
            troubles.append(f"ledger: {self._recording.trouble}")
        if not self.session.connected:
            troubles.append(f"no broker at {self._config.broker.host}:{self._config.broker.port}")
        line = "; ".join(troubles) or f"{len(self.pipelines)} pipelines ready"
        if ready and not self._announced:
            self._announced = True
            self._notifier.ready(line)
            log.info("ready", pipelines=[p.plan.name for p in self.pipelines])
        else:
            self._notifier.status(line)

    def _status(self, ready: bool) -> dict[str, Any]:
        return {
            "v": 1,
            "state": "online",
            "ready": ready,
            "device": self._config.device.id,
            "version": __version__,
            "time_ns": time.time_ns(),
            "mqtt": {"protocol": self.session.protocol, **self.session.counters},
            "pipelines": {p.plan.name: p.status() for p in self.pipelines},
            "references": {
                name: {"bytes": shelf.bytes, "images": len(shelf)}
                for name, shelf in self._shelves.items()
            },
            "ledger": self._recording.status() if self._recording else None,
            "refused_filters": sorted(self.session.refused_filters),
            "counters": self._counters.snapshot(),
        }

    def _open_ledger(self) -> Recording | None:
        if not self._config.ledger.enabled:
            return None
        folder = self._config.storage.path / "ledger"
        try:
            return Recording(
                self._config.ledger,
                folder,
                self._config.device.id,
                self.session,
                self._counters,
                self._changed.set,
                keys_of(self._config.ledger, self._config.storage.path),
            )
        except StorageError as unusable:
            raise ConfigError(
                "storage.path", str(unusable), f"`edge ledger verify {folder}` says more"
            ) from unusable

    def _connected(self) -> None:
        if self._recording is not None:
            self._recording.connected()
        self._changed.set()

    def _disconnected(self, _reason: str) -> None:
        if self._recording is not None:
            self._recording.disconnected()
        self._changed.set()

    def _subscribe(self) -> None:
        cameras: dict[str, list[ActivePipeline]] = {}
        for pipeline in self.pipelines:
            cameras.setdefault(pipeline.plan.source, []).append(pipeline)
        for name, pipelines in cameras.items():
            self._listen(name, _frames_to(pipelines, self.session, lambda: self._draining))
        for name, shelf in self._shelves.items():
            self._listen(name, self._references_to(shelf))
        for name, history in self._signals.items():
            self._listen(name, self._signals_to(name, history))

    def _listen(self, name: str, take: Callable[[Binding, Incoming, dict[str, str]], None]) -> None:
        binding = self._config.bindings.find(name)
        assert binding is not None, "the plan was resolved against these bindings"
        template = TopicTemplate(binding.topic, binding.share)

        def receive(message: Incoming) -> None:
            take(binding, message, template.match(message.topic) or {})

        self.session.subscribe(template.filter, binding.qos, receive)

    def _references_to(
        self, shelf: ReferenceShelf
    ) -> Callable[[Binding, Incoming, dict[str, str]], None]:
        def take(_binding: Binding, message: Incoming, named: dict[str, str]) -> None:
            reference_id = message.properties.get("reference-id") or named.get("reference_id", "")
            limit = self._config.limits.max_payload_bytes
            try:
                if not message.payload:
                    shelf.remove(reference_id)
                elif len(message.payload) > limit:
                    raise DecodeError(f"{len(message.payload)} bytes; the limit is {limit}")
                else:
                    shelf.put(
                        reference_id, parse_content_type(message.content_type), message.payload
                    )
                    self._counters.count("references_received")
            except DecodeError as wrong:
                self._counters.count("references_refused", cause="not an image")
                self._complain("reference_refused", message.topic, str(wrong))
            self.session.acknowledge(message)

        return take

    def _signals_to(
        self, name: str, history: signals.SignalHistory
    ) -> Callable[[Binding, Incoming, dict[str, str]], None]:
        def take(binding: Binding, message: Incoming, _named: dict[str, str]) -> None:
            try:
                if len(message.payload) > self._config.limits.signal_payload_bytes:
                    raise signals.MalformedSignalError(f"{len(message.payload)} bytes")
                for time_ns, value in signals.read(
                    message.payload, binding, self._config.clock, message.arrived_at_ns
                ):
                    history.add(time_ns, value)
                self._counters.count("signals_received", signal=name)
            except signals.MalformedSignalError as wrong:
                self._counters.count("signals_refused", signal=name)
                self._complain("signal_refused", message.topic, str(wrong))
            self.session.acknowledge(message)

        return take

    def _reference_dropped(self, key: str, evicted: bool) -> None:
        if evicted:
            self._counters.count("references_evicted")
        for pipeline in self.pipelines:
            pipeline.reference_dropped(key)

    def _complain(self, event: str, topic: str, detail: str) -> None:
        unsaid = self._throttle.admit(event)
        if unsaid is not None:
            log.warning(event, topic=topic, detail=detail, not_logged=unsaid)


def _frames_to(
    pipelines: list[ActivePipeline], session: Session, draining: Callable[[], bool]
) -> Callable[[Binding, Incoming, dict[str, str]], None]:
    def take(_binding: Binding, message: Incoming, named: dict[str, str]) -> None:
        if draining():
            return  # not acknowledged: the broker keeps it for the next start
        left = len(pipelines)

        def settle() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                session.acknowledge(message)

        for pipeline in pipelines:
            pipeline.receive(message, named, settle)

    return take


def _offline(detail: str) -> dict[str, Any]:
    return {"v": 1, "state": "offline", "ready": False, "detail": detail}


def _encode(status: dict[str, Any]) -> bytes:
    return msgspec.json.encode(status)
