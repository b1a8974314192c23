"""The supervisor: everything that the daemon consists of, wired, and its status to the world."""

import asyncio
import contextlib
import os
import time
from typing import Any

import msgspec
import structlog

from edge import __version__
from edge.config import DeviceConfig
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Verdict
from edge.daemon.actions import reverting
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.checkpoints import keys_of
from edge.daemon.control import Control
from edge.daemon.drifting import Drifting
from edge.daemon.figures import exposition
from edge.daemon.inputs import Inputs
from edge.daemon.intake import Frame
from edge.daemon.leases import Leases
from edge.daemon.lineup import Lineup
from edge.daemon.liveness import FRAMES_S, LEDGER_S, RECORDS_S, SESSION_S, Liveness
from edge.daemon.muster import Muster
from edge.daemon.outlets import Seen
from edge.daemon.recording import Recording
from edge.daemon.rollout import Rollout
from edge.daemon.telling import Telling
from edge.daemon.throttle import Throttle
from edge.deployment.installed import Installed
from edge.errors import ConfigError, MediumError, StorageError
from edge.mqtt.messages import Will
from edge.mqtt.session import Session
from edge.observability.counters import Counters
from edge.observability.systemd import Notifier

log = structlog.get_logger("edge.daemon")


class Supervisor:
    """Everything that the daemon consists of, wired.

    Args:
        config: The device config.
        plans: The pipelines of the active deployment.
        notifier: The line to systemd.
        installed: The deployments of this device; None where a local folder runs.
    """

    def __init__(
        self,
        config: DeviceConfig,
        plans: tuple[PipelinePlan, ...],
        notifier: Notifier,
        installed: Installed | None = None,
    ) -> None:
        self._config = config
        self._notifier = notifier
        self._topic = f"edge/{config.device.id}"
        self._counters = Counters()
        self._changed = asyncio.Event()
        self._draining = False
        self._announced = False
        client_id = config.broker.client_id or f"edge-{config.device.id}"
        self.session = Session(
            config.broker,
            client_id,
            will=Will(f"{self._topic}/status", _encode(_offline("the connection was lost"))),
            on_connected=self._connected,
            on_disconnected=self._disconnected,
        )
        self.sensors = Session(
            # What a signal was while we were away counts for nothing: no session is kept.
            config.broker.model_copy(update={"session_expiry_s": 0}),
            f"{client_id}-signals",
            on_connected=self._changed.set,
            on_disconnected=lambda _reason: self._changed.set(),
            packets_per_s=config.limits.signals_per_s,
        )
        self._recording = self._open_ledger()
        self._stuck: list[str] = []
        self._liveness = self._watched()
        self._leases = Leases(
            config.storage.path, reverting(self.session, config.device.id), self._counters
        )
        self._inputs = Inputs(
            config,
            self.session,
            self.sensors,
            self._counters,
            Throttle(time.monotonic_ns),
            self._forget,
        )
        self._telling = Telling(config, self._counters, self._figures)
        self._plans = plans
        self._boot_id = f"{config.device.id}-{os.urandom(4).hex()}"
        cache_dir = config.storage.path / "guests"
        self.lineup = Lineup(self._pipeline, self._inputs, Muster(config, cache_dir))
        self._drifting = Drifting(
            config.storage.path, self._counters, self._settled, self._changed.set
        )
        self._rollout: Rollout | None = None
        if installed is not None:
            self._rollout = Rollout(
                config,
                installed,
                self.lineup,
                self.session,
                self._counters,
                cache_dir,
                self._changed.set,
            )

    async def prepare(self) -> None:
        """Take up what the last run left: actions that are on, and verdicts that were given."""
        self._leases.recover()
        self._drifting.recover()
        for plan in self._plans:
            await self.lineup.add(plan)

    async def keep_sensors(self) -> None:
        """Stay connected for signals, from the first deployment that wants one; until cancelled."""
        await self._inputs.signals_wanted.wait()
        await self.sensors.run()

    async def keep_leases(self) -> None:
        """Keep the journal of the actions that hold; until cancelled."""
        await self._leases.keep_journal()

    async def keep_control(self) -> None:
        """Answer on the two sockets of this box; until cancelled."""
        record = self._recording.override if self._recording else None
        change = self._rollout.asked if self._rollout else None
        await Control(self._config.storage.path, record, change, self._drifting.learn_anew).serve()

    async def keep_drift(self) -> None:
        """Keep what was learnt of usual pictures and verdicts; until cancelled."""
        await self._drifting.keep()

    async def keep_deployments(self) -> None:
        """Look for updates, and take them; until cancelled."""
        if self._rollout is not None:
            await self._rollout.keep()

    async def keep_telling(self) -> None:
        """Serve the metrics, until cancelled."""
        await self._telling.keep()

    async def keep_sending(self) -> None:
        """Send records to the cloud until it has receipted them; until cancelled."""
        if self._recording is not None:
            await self._recording.keep_sending()

    @property
    def ready(self) -> bool:
        """Whether there is a pipeline, every one stands, and the broker is there."""
        stand = [pipeline.ready for pipeline in self.lineup]
        return self.session.connected and not self._deaf and bool(stand) and all(stand)

    @property
    def _deaf(self) -> bool:
        """Whether a pipeline that judges wants signals, and they cannot come.

        A candidate that is the first to want one changes nothing for those that run.
        """
        wanted = any(pipeline.plan.signals for pipeline in self.lineup)
        return wanted and not self.sensors.connected

    async def keep_status(self) -> None:
        """Publish the retained status on each change and each interval, and feed the watchdog.

        It is fed while every part makes progress (`edge.daemon.liveness`), not only this task.
        """
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
            self._feed_watchdog()
            if self._changed.is_set() or loop.time() >= next_status:
                self._changed.clear()
                next_status = loop.time() + interval_s
                self._say_status()

    async def drain(self) -> None:
        """Take no more frames, answer those accepted, say goodbye, leave the broker."""
        self._draining = True
        self._inputs.close()
        self._notifier.stopping("draining")
        began = time.monotonic()
        grace_s = self._config.deadlines.drain_ms / 1e3
        left = await asyncio.gather(*(pipeline.drain(grace_s) for pipeline in self.lineup))
        self._leases.release()  # before anything that may wait for a disk
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
        await asyncio.gather(self.session.close(grace_s), self.sensors.close(grace_s))
        await self._leases.close()
        await self._drifting.save()
        await self._telling.close()
        log.info("drained", unanswered=sum(left), drain_ms=round((time.monotonic() - began) * 1e3))

    def _watched(self) -> Liveness:
        broker, deadlines = self._config.broker, self._config.deadlines
        liveness = Liveness()
        session_s = 3 * broker.connect_timeout_s + SESSION_S
        liveness.watch("the broker's session", lambda: self.session.came_round_at, session_s)
        liveness.watch("the session for signals", self._sensors_came_round_at, session_s)
        if (recording := self._recording) is not None:
            liveness.watch("the ledger", lambda: recording.ledger_came_round_at, LEDGER_S)
            liveness.watch("the outbox", lambda: recording.came_round_at, RECORDS_S)
        frames_s = deadlines.hang_ms / 1e3 + FRAMES_S
        liveness.watch("the frames", self._frames_came_round_at, frames_s)
        return liveness

    def _sensors_came_round_at(self) -> float:
        wanted = self._inputs.signals_wanted.is_set()
        return self.sensors.came_round_at if wanted else time.monotonic()

    def _frames_came_round_at(self) -> float:
        """Now, or the deadline of the oldest frame that is still with a pipeline or its worker."""
        return min([time.monotonic(), *(pipeline.oldest_deadline_s for pipeline in self.lineup)])

    def _feed_watchdog(self) -> None:
        """Give a sign of life, on behalf of every part: where one is stuck, none is given."""
        stuck = self._liveness.stuck()
        if not stuck:
            self._notifier.watchdog()
        elif not self._stuck:
            log.critical("no_progress", parts=stuck, detail="the watchdog is not fed")
            self._notifier.status(f"no progress: {'; '.join(stuck)}")
        self._stuck = stuck

    def _say_status(self) -> None:
        if self._draining:
            return
        ready = self.ready
        # Without a broker it is not queued: hours of old statuses would crowd out the verdicts.
        # The connection that comes is a change, and says the status of that instant.
        if self.session.connected:
            self.session.publish(f"{self._topic}/status", _encode(self._status(ready)), retain=True)
        troubles = [f"no progress: {part}" for part in self._stuck]
        troubles += [f"{p.plan.name}: {p.trouble}" for p in self.lineup if p.trouble]
        if self._recording is not None and self._recording.trouble:
            troubles.append(f"ledger: {self._recording.trouble}")
        if not len(self.lineup):
            troubles.append("no deployment yet")
        if not self.session.connected:
            troubles.append(f"no broker at {self._config.broker.host}:{self._config.broker.port}")
        elif self._deaf:
            troubles.append(f"no signals: {self.sensors.last_error or 'not connected yet'}")
        line = "; ".join(troubles) or f"{len(self.lineup)} pipelines ready"
        if ready and not self._announced:
            self._announced = True
            self._notifier.ready(line)
            log.info("ready", pipelines=[p.plan.name for p in self.lineup])
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
            "mqtt_signals": self._hearing(),
            "pipelines": {
                p.plan.name: {**p.status(), "drift": self._drifting.status(p.plan)}
                for p in self.lineup
            },
            "references": self._inputs.status(),
            "deployments": self._rollout.status() if self._rollout else None,
            "ledger": self._recording.status() if self._recording else None,
            "refused_filters": sorted(
                {**self.session.refused_filters, **self.sensors.refused_filters}
            ),
            "actions_held": self._leases.held,
            "counters": self._counters.snapshot(),
        }

    def _hearing(self) -> dict[str, Any] | None:
        """The session for signals; None where no deployment has wanted one."""
        if not self._inputs.signals_wanted.is_set():
            return None
        return {
            "protocol": self.sensors.protocol,
            "trouble": self.sensors.last_error,
            **self.sensors.counters,
        }

    def _figures(self) -> bytes:
        return exposition(self._status(self.ready), self.lineup, self._counters)

    def _pipeline(self, plan: PipelinePlan) -> ActivePipeline:
        pipeline = ActivePipeline(
            plan,
            self._config,
            self.session,
            self._counters,
            self._boot_id,
            self._inputs.references,
            self._inputs.signals,
            self._recording,
            self._leases,
            self._changed.set,
            self._telling.traces,
        )
        rollout = self._rollout

        def given(frame: Frame, verdict: Verdict, seen: Seen) -> None:
            if rollout is not None:
                rollout.given(frame, verdict, seen)
            self._drifting.given(pipeline.plan, frame, verdict, seen)

        pipeline.on_given = given
        if rollout is not None:
            pipeline.on_lost = rollout.lost
        return pipeline

    def _settled(self) -> bool:
        return self._rollout is None or self._rollout.settled

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
                lambda: any(pipeline.unanswered for pipeline in self.lineup),
            )
        except MediumError:
            raise  # a start that comes later may find room
        except StorageError as unusable:
            raise ConfigError(
                "storage.path", str(unusable), f"`edge ledger verify {folder}` says more"
            ) from unusable

    def _connected(self) -> None:
        if self._recording is not None:
            self._recording.connected()
        if self._rollout is not None:
            self._rollout.say()
        self._changed.set()

    def _disconnected(self, _reason: str) -> None:
        if self._recording is not None:
            self._recording.disconnected()
        self._changed.set()

    def _forget(self, key: str) -> None:
        for pipeline in self.lineup:
            pipeline.reference_dropped(key)


def _offline(detail: str) -> dict[str, Any]:
    return {"v": 1, "state": "offline", "ready": False, "detail": detail}


def _encode(status: dict[str, Any]) -> bytes:
    return msgspec.json.encode(status)
