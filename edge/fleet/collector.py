"""The collector: records of all devices in, receipts and alarms out. Belongs to the event loop.

Rules:

1. A message is acknowledged when its record is committed, or when it will never be.
2. A receipt says what is committed, verified and whole, and nothing else. It is sent again whenever
   a device sends again: a lost receipt heals by itself.
3. Whatever a device sends costs, at worst, that device its receipts.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from edge import __version__
from edge.errors import ProofError
from edge.fleet import arrivals
from edge.fleet.alarms import ALARMS, Alarm
from edge.fleet.arrivals import RefusedError
from edge.fleet.config import CollectConfig
from edge.fleet.keeping import Keeping
from edge.fleet.register import DeviceRow, Held, Taken
from edge.fleet.store import Store
from edge.fleet.watch import Watch
from edge.fleet.witness import Claim, Compared, Witness
from edge.mqtt.messages import Incoming, Will
from edge.mqtt.session import Session

log = structlog.get_logger("edge.fleet")

COUNTERS: Final = (
    "records_stored", "records_repeated", "records_left", "records_refused",
    "records_overflowed", "devices_refused", "topics_refused", "receipts_sent",
    "checkpoints_compared", "checkpoints_refused",
)  # fmt: skip
_MAX_KEPT_ALARMS: Final = 100_000
_RECEIVE_MAXIMUM: Final = 512
"""Records that the broker sends ahead of our acknowledgements: while one batch is committed, the
next one comes in."""
_RECEIPT_RECORDS: Final = 256
"""So many since the last receipt, and the next does not wait: a device that catches up sends no
more than 1,024 beyond its receipt."""


class Collector:
    """Everything that the collector consists of, wired.

    Args:
        config: Its config.
        store: Prepared; owned by this object's thread until `close`.
        witness: Checks and cosigns checkpoints.
    """

    def __init__(self, config: CollectConfig, store: Store, witness: Witness) -> None:
        collect = config.collect
        self._config = config
        self._topic = f"fleet/collectors/{collect.name}/status"
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._watch = Watch(collect.silent_after_s, collect.gap_after_s, config.store.max_devices)
        self._witness = witness
        self._receipts: dict[tuple[str, str], Held] = {}
        self._receipted: dict[str, int] = {}  # the last receipt of each device's present ledger
        self._claims: dict[str, Claim] = {}  # the one checkpoint of each device that is compared
        self._cosigned: dict[tuple[str, str], tuple[int, str]] = {}
        self._kept_alarms: set[str] = set()  # topics that the broker keeps
        self._trouble = ""
        self._draining = False
        self.session = Session(
            config.broker,
            config.broker.client_id or f"edge-fleet-{collect.name}",
            will=Will(self._topic, b'{"v":1,"state":"offline"}'),
            on_connected=self._connected,
            receive_maximum=_RECEIVE_MAXIMUM,
        )
        self._loop = asyncio.get_running_loop()
        self._keeping = Keeping(store, self._deliver, self._taken)
        share = f"$share/{collect.share}/" if collect.share else ""
        self.session.subscribe(f"{share}edge/+/records", 1, self._record)
        # Retained, and so not shared: brokers send what they kept to plain subscriptions only.
        self.session.subscribe("edge/+/checkpoints", 1, self._checkpoint)
        self.session.subscribe("edge/+/status", 1, self._device_status)
        self.session.subscribe(f"{ALARMS}/#", 1, self._kept_alarm)

    @property
    def ready(self) -> bool:
        """Whether records come in and can be kept."""
        return self.session.connected and not self._keeping.trouble

    @property
    def trouble(self) -> str:
        """Why not; empty where all is well."""
        if self._keeping.trouble:
            return self._keeping.trouble
        return "" if self.session.connected else self.session.last_error

    def start(self) -> None:
        """Begin to keep; then run `session.run`, `keep_receipting` and `keep_watch` as tasks."""
        self._keeping.start()
        self._keeping.ask(Store.devices, self._know)

    async def keep_receipting(self) -> None:
        """Send receipts, at most one in an interval for each ledger; until cancelled."""
        while True:
            await asyncio.sleep(self._config.collect.receipt_interval_s)
            self._send_receipts()

    async def keep_watch(self, on_look: Callable[[], None], longest_s: float) -> None:
        """Look for silence and gaps, and say how we are; until cancelled.

        Args:
            on_look: Called each time.
            longest_s: Between two looks, where the config would have it longer.
        """
        pause_s = min(self._config.collect.status_interval_s, longest_s)
        while True:
            self._look()
            self._say_status()
            on_look()
            await asyncio.sleep(pause_s)

    async def close(self, grace_s: float) -> None:
        """Commit what came, receipt it, and say goodbye."""
        self._draining = True
        await asyncio.to_thread(self._keeping.close)
        await asyncio.sleep(0)  # what the thread delivered last runs now
        self._send_receipts()
        if self.session.connected:
            self.session.publish(self._topic, b'{"v":1,"state":"offline"}', retain=True)
        await self.session.close(grace_s)

    # What comes ----------------------------------------------------------------------------------

    def _record(self, message: Incoming) -> None:
        device = self._speaker(message)
        if not device:
            return
        try:
            arrival = arrivals.record(
                device, message.payload, self._config.collect.max_record_bytes
            )
        except RefusedError as wrong:
            self.counters["records_refused"] += 1
            self._watch.refused(device, str(wrong))
            self.session.acknowledge(message)
            return
        if not self._keeping.take(arrival, lambda: self.session.acknowledge(message)):
            self.counters["records_overflowed"] += 1
            self.session.acknowledge(message)  # the device keeps it, and sends it again

    def _device_status(self, message: Incoming) -> None:
        self.session.acknowledge(message)
        device = arrivals.device_of(message.topic)
        if not device or not message.payload:  # an empty one clears what the broker kept
            return
        try:
            status = arrivals.status(message.payload)
        except RefusedError as wrong:
            self._watch.refused(device, str(wrong))
            return
        if not self._watch.said(device, status.state, time.monotonic(), retained=message.retain):
            self.counters["devices_refused"] += 1

    def _checkpoint(self, message: Incoming) -> None:
        self.session.acknowledge(message)
        device = arrivals.device_of(message.topic)
        if not device or not message.payload:  # an empty one clears what the broker kept
            return
        try:
            claim = self._witness.read(device, message.payload)
        except ProofError as wrong:
            self.counters["checkpoints_refused"] += 1
            self._watch.refused(device, f"a checkpoint: {str(wrong)[:200]}")
            return
        before = self._claims.get(device)
        if before is None and len(self._claims) >= self._config.store.max_devices:
            self.counters["devices_refused"] += 1
        # One that waits for its records is not pushed out by the next, or none were ever compared.
        elif before is None or before.ledger != claim.ledger or claim.size <= before.size:
            self._claims[device] = claim
            self._compare(claim)

    def _compare(self, claim: Claim) -> None:
        def compared(result: tuple[Compared, Taken]) -> None:
            found, taken = result
            self._announce(taken)
            if found is Compared.MORE:
                self._compare(claim)
            if found in (Compared.MORE, Compared.EARLY):
                return  # an early one is compared when more has come
            if self._claims.get(claim.device) is claim:
                del self._claims[claim.device]
            if found is Compared.SAME:
                self.counters["checkpoints_compared"] += 1
                self._cosign(claim, taken.held)

        self._keeping.ask(lambda store: store.compare(claim), compared)

    def _cosign(self, claim: Claim, held: list[Held]) -> None:
        line = self._witness.cosignature(claim, int(time.time()))
        if line:
            for each in held:
                name = (each.device, each.ledger)
                self._cosigned[name] = (claim.size, line)
                self._receipts[name] = each

    def _kept_alarm(self, message: Incoming) -> None:
        """What the broker keeps as alarms, by its own word: ours, or another collector's."""
        self.session.acknowledge(message)
        if not message.payload:
            self._kept_alarms.discard(message.topic)
        elif len(self._kept_alarms) < _MAX_KEPT_ALARMS:
            self._kept_alarms.add(message.topic)

    def _speaker(self, message: Incoming) -> str:
        """Return whose message it is; empty, and acknowledged, where it is nobody's we take."""
        device = arrivals.device_of(message.topic)
        if device and self._watch.heard(device, time.monotonic()):
            return device
        self.counters["devices_refused" if device else "topics_refused"] += 1
        self.session.acknowledge(message)
        return ""

    # What became of it ---------------------------------------------------------------------------

    def _deliver(self, call: Callable[[], None]) -> None:
        """Have the loop do what the store's thread has to tell: acknowledgements in one piece."""
        self._loop.call_soon_threadsafe(self._tell, call)

    def _tell(self, call: Callable[[], None]) -> None:
        with self.session.together():
            call()

    def _taken(self, taken: Taken) -> None:
        self.counters["records_stored"] += taken.stored
        self.counters["records_repeated"] += taken.repeated
        self.counters["records_left"] += taken.left
        due = False
        for held in taken.held:
            if held.seq:
                self._receipts[held.device, held.ledger] = held
                due = due or held.seq - self._receipted.get(held.device, 0) >= _RECEIPT_RECORDS
            claim = self._claims.get(held.device)
            if claim is not None and claim.ledger == held.ledger and claim.size <= held.seq:
                self._compare(claim)
        if due:
            self._send_receipts()
        self._announce(taken)

    def _announce(self, taken: Taken) -> None:
        for alarm in taken.raised:
            log.error(
                "alarm", device=alarm.device, kind=alarm.kind.value, ledger=alarm.ledger,
                seq=alarm.seq, detail=alarm.detail,
            )  # fmt: skip
            self._publish_alarm(alarm)
        for alarm in taken.ended:
            log.info("alarm_ended", device=alarm.device, kind=alarm.kind.value, ledger=alarm.ledger)
            self.session.publish(alarm.topic(), b"", retain=True)

    def _publish_alarm(self, alarm: Alarm) -> None:
        self.session.publish(alarm.topic(), alarm.to_json(), retain=True)

    def _send_receipts(self) -> None:
        if not self.session.connected:
            return
        for name, held in list(self._receipts.items()):
            body: dict[str, Any] = {
                "ledger": held.ledger, "seq": held.seq, "head": held.head.hex()
            }  # fmt: skip
            if name in self._cosigned:
                body["checkpoint"], body["cosignature"] = self._cosigned[name]
            if not self.session.publish(f"edge/{held.device}/receipts", json.dumps(body).encode()):
                return  # the queue is full: the rest follows
            del self._receipts[name]
            self._receipted[held.device] = held.seq
            self._cosigned.pop(name, None)
            self.counters["receipts_sent"] += 1

    # Watching ------------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._kept_alarms.clear()  # the broker says anew what it keeps
        self._say_status()

    def _make_true(self, standing: list[Alarm]) -> None:
        """Have the broker keep the alarms that stand, and no others.

        It may have lost them, and they may have been accepted, or ended by another collector.
        """
        if not self.session.connected:
            return
        wanted = {alarm.topic(): alarm for alarm in standing}
        for topic in self._kept_alarms - wanted.keys():
            self.session.publish(topic, b"", retain=True)
        for topic in wanted.keys() - self._kept_alarms:
            self._publish_alarm(wanted[topic])

    def _know(self, devices: list[DeviceRow]) -> None:
        for row in devices:
            self._watch.know(row.device, row.state, time.monotonic())

    def _look(self) -> None:
        if changed := self._watch.take_changed():
            self._keeping.ask(
                lambda store: store.note_devices(changed),
                self._announce,
                lambda: self._watch.give_back(changed),
            )
        raised, ended = self._watch.alarms(time.monotonic())

        def told(taken: Taken) -> None:
            self._watch.told(raised, ended)
            self._announce(taken)

        if raised or ended:
            self._keeping.ask(lambda store: store.change_alarms(raised, ended), told)
        self._keeping.ask(Store.alarms, self._make_true)
        self._keeping.ask(
            Store.gaps, lambda gaps: self._raise(self._watch.gaps(gaps, time.monotonic()))
        )

    def _raise(self, alarms: list[Alarm]) -> None:
        if alarms and not self._draining:
            self._keeping.ask(lambda store: store.change_alarms(alarms, ()), self._announce)

    def _say_status(self) -> None:
        if self.trouble != self._trouble:
            self._trouble = self.trouble
            if self._trouble:
                log.error("collector_trouble", detail=self._trouble)
            else:
                log.info("collector_well")
        if self.session.connected and not self._draining:
            self.session.publish(self._topic, json.dumps(self._status()).encode(), retain=True)

    def _status(self) -> dict[str, Any]:
        return {
            "v": 1,
            "state": "online",
            "ready": self.ready,
            "version": __version__,
            "time_ns": time.time_ns(),
            "devices": len(self._watch),
            "waiting": self._keeping.waiting,
            "trouble": self._trouble,
            "counters": dict(self.counters),
        }
