"""The broker, as a client of this box sees it: there, speaking, granting, prompt; and the cameras.

Nothing is published but to `edge/{device}/doctor`, which no one acts on. Bound topics are
subscribed to without their share group, so that no frame is taken from the daemon.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from edge.config import DeviceConfig
from edge.doctor.check import Check, Outcome, finding, ok, unknown
from edge.errors import ConfigError
from edge.mqtt.bound import filters
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.mqtt.topics import matches

MESSAGES: Final = 20
PAYLOAD_BYTES: Final = 50_000
"""A camera frame of the reference line."""
SLOW_MS: Final = 20.0
"""Above it something waits for an acknowledgement, 40 ms each; a local broker takes 1 to 5."""
VERDICT_BYTES: Final = 600
JUDGING_S: Final = 0.005
"""Between a frame and its verdict: less than an acknowledgement is delayed by."""
ANSWER_S: Final = 3.0
ATTEMPTS: Final = 3
"""Failed attempts after which a broker counts as away; `auto` may need two to find its version."""
GOODBYE_S: Final = 0.5
_NONCE_BYTES: Final = 8
_LATER: Final = (
    "broker.rights",
    "broker.subscriptions",
    "broker.round-trip",
    "broker.verdicts",
    "cameras",
)


async def examine(config: DeviceConfig, wait_s: float | None) -> list[Check]:
    """Connect as one more client, and look.

    Args:
        config: Names the broker and the topics.
        wait_s: How long a frame of each camera is waited for; None: it is not missed.
    """
    try:
        visit = Visit(config)
    except ConfigError as wrong:
        return [finding("broker.reachable", wrong.problem, f"correct {wrong.where}"), *_unseen()]
    tasks = [asyncio.create_task(each.run()) for each in (visit.session, visit.judge)]
    try:
        reached = await visit.reach()
        if not visit.session.connected:
            return [reached, *_unseen()]
        rights = await visit.rights()
        times = ("broker.round-trip", visit.round_trip), ("broker.verdicts", visit.verdicts)
        return [
            reached,
            rights,
            visit.subscriptions(),
            *[
                await measure()
                if rights.outcome is Outcome.OK
                else unknown(name, "needs the rights that were not granted")
                for name, measure in times
            ],
            *await visit.cameras(wait_s),
        ]
    finally:
        await asyncio.gather(visit.session.close(GOODBYE_S), visit.judge.close(GOODBYE_S))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _unseen() -> list[Check]:
    return [unknown(name, "there is no connection to the broker") for name in _LATER]


class Visit:
    """Two connections to the broker, and what came over the first.

    Attributes:
        session: Stands for a camera: sends frames, and hears.
        judge: Stands for the daemon that answers them.
    """

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._at = f"{config.broker.host}:{config.broker.port}"
        self._topic = f"edge/{config.device.id}/doctor"
        self._arrived: dict[bytes, int] = {}  # by nonce: CLOCK_MONOTONIC, ns
        self._frames: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self.session, self.judge = self._client("doctor"), self._client("doctor-judge")
        self.session.subscribe(self._topic, 1, self._probe)
        bindings = config.bindings
        self._bound = {
            f"{kind}.{name}" + f" of {topic_filter}" * bool(binding.metric): topic_filter
            for kind, table in (
                ("camera", bindings.camera),
                ("reference", bindings.reference),
                ("signal", bindings.signal),
            )
            for name, binding in table.items()
            for topic_filter in filters(binding)
        }
        for topic_filter in set(self._bound.values()):
            self.session.subscribe(topic_filter, 0, self._bound_message)

    def _client(self, role: str) -> Session:
        """Make a client of its own, forgotten by the broker when it goes; the daemon's stands."""
        return Session(
            self._config.broker.model_copy(update={"session_expiry_s": 0}),
            f"edge-{role}-{os.urandom(4).hex()}",
            on_connected=self._changed.set,
        )

    async def reach(self) -> Check:
        """Connect; say the version spoken, or why not."""
        name, session = "broker.reachable", self.session
        longest_s = 2 * self._config.broker.connect_timeout_s + ANSWER_S
        await self._until(
            lambda: session.connected or session.counters["connect_failures"] >= ATTEMPTS,
            longest_s,
        )
        if session.connected:
            return ok(name, f"{self._at} speaks MQTT {session.protocol}")
        return finding(
            name,
            session.last_error or f"{self._at} gave no answer in {longest_s:g} s",
            "start it (systemctl status mosquitto), check broker.host, port, user and TLS, and "
            "the firewall between",
        )

    async def rights(self) -> Check:
        """Publish a word to the probe topic and hear it."""
        name = "broker.rights"
        granted, arrived = await self._send(b"")
        rules = f"grant `topic readwrite edge/{self._config.device.id}/#` in its access list"
        if granted is False:
            return finding(name, f"{self._at} refuses publications to {self._topic}", rules)
        if reason := self.session.refused_filters.get(self._topic):
            return finding(
                name, f"{self._at} refuses to subscribe to {self._topic}: {reason}", rules
            )
        if granted is None:
            return finding(
                name, f"{self._at} has not answered a publication in {ANSWER_S:g} s", rules
            )
        if arrived is None:
            # MQTT 3.1.1 has no word for a denied publication, Mosquitto none for a denied reading.
            return finding(
                name,
                f"{self._at} took a publication to {self._topic} and did not deliver it: it may "
                "be written or read by others only",
                rules,
            )
        return ok(name, f"may publish to {self._topic} and read it")

    def subscriptions(self) -> Check:
        """Were all bound topics granted?"""
        name = "broker.subscriptions"
        refused = [
            f"{logical} ({topic_filter}: {reason})"
            for logical, topic_filter in self._bound.items()
            if (reason := self.session.refused_filters.get(topic_filter))
        ]
        if refused:
            return finding(
                name,
                f"{self._at} refuses {', '.join(refused)}",
                "grant reading these topics in its access list",
            )
        return ok(name, f"{len(self._bound)} bound topics granted")

    async def round_trip(self) -> Check:
        """Send frames' worth of bytes there and back, one after the other."""
        name = "broker.round-trip"
        times: list[float] = []
        for _ in range(MESSAGES):
            began = time.monotonic_ns()
            granted, arrived = await self._send(b"\x5a" * PAYLOAD_BYTES)
            if arrived is None:
                what = "was refused" if granted is False else f"did not return in {ANSWER_S:g} s"
                text = f"a message of {PAYLOAD_BYTES} bytes {what}"
                return finding(
                    name, text, "raise message_size_limit of the broker, or mend the network"
                )
            times.append((arrived - began) / 1e6)
        return _prompt(name, f"{PAYLOAD_BYTES // 1_000} KB at QoS 1, there and back", times)

    async def verdicts(self) -> Check:
        """Let another client answer a frame, as the daemon does, and time the answer.

        A broker without TCP_NODELAY holds it back until the camera's kernel has acknowledged the
        broker's word for the frame. A message that one client sends to itself never shows that.
        """
        name = "broker.verdicts"
        times: list[float] = []
        for _ in range(MESSAGES):
            granted, _arrived = await self._send(b"\x5a" * PAYLOAD_BYTES)
            await asyncio.sleep(JUDGING_S)
            began = time.monotonic_ns()
            granted, arrived = await self._send(b"\x5a" * VERDICT_BYTES, self.judge)
            if arrived is None:
                what = "was refused" if granted is False else f"did not come in {ANSWER_S:g} s"
                return finding(
                    name,
                    f"the answer of a second client {what}",
                    "give this user more than one connection at the broker",
                )
            times.append((arrived - began) / 1e6)
        return _prompt(name, "from one client's word to the other who sent the frame", times)

    async def cameras(self, wait_s: float | None) -> list[Check]:
        """Has a frame come from each camera?"""
        cameras = {n: f for n, f in self._bound.items() if n.startswith("camera.")}
        if not cameras:
            return [unknown("cameras", "the config binds no camera", "add [bindings.camera]")]
        await self._until(lambda: all(self._frames[f] for f in cameras.values()), wait_s or 0.0)
        return [self._camera(name, heard_on, wait_s) for name, heard_on in cameras.items()]

    def _camera(self, name: str, heard_on: str, wait_s: float | None) -> Check:
        if count := self._frames[heard_on]:
            return ok(name, f"alive: {count} frame(s) on {heard_on}")
        if wait_s is None:
            return unknown(name, "no frame was waited for", "give --wait SECONDS with the line on")
        return finding(
            name,
            f"no frame on {heard_on} in {wait_s:g} s",
            f"is the line running, and does the camera publish to that topic? "
            f"bindings.{name} says where we listen",
        )

    async def _send(
        self, body: bytes, sender: Session | None = None
    ) -> tuple[bool | None, int | None]:
        """Publish to the probe topic; whether it was granted, and when it came back (ns)."""
        nonce = os.urandom(_NONCE_BYTES)
        answers: list[bool] = []

        def done(accepted: bool) -> None:
            answers.append(accepted)
            self._changed.set()

        (sender or self.session).publish(self._topic, nonce + body, on_done=done)
        await self._until(
            lambda: answers == [False] or (bool(answers) and nonce in self._arrived), ANSWER_S
        )
        return (answers[0] if answers else None), self._arrived.get(nonce)

    def _probe(self, message: Incoming) -> None:
        self._arrived[message.payload[:_NONCE_BYTES]] = message.arrived_ns
        self.session.acknowledge(message)
        self._changed.set()

    def _bound_message(self, message: Incoming) -> None:
        self.session.acknowledge(message)
        if not message.retain:  # what the broker kept is no sign of life
            for topic_filter in set(self._bound.values()):
                self._frames[topic_filter] += matches(topic_filter, message.topic)
            self._changed.set()

    async def _until(self, claim: Callable[[], bool], longest_s: float) -> None:
        """Return when the claim holds, or after so long."""
        deadline = time.monotonic() + longest_s
        while not claim() and (left_s := deadline - time.monotonic()) > 0:
            self._changed.clear()
            try:
                # The session tells of no failed attempt: its counters are looked at now and then.
                async with asyncio.timeout(min(left_s, 0.05)):
                    await self._changed.wait()
            except TimeoutError:
                continue


def _prompt(name: str, what: str, times: list[float]) -> Check:
    """Judge times (ms) by their median."""
    times = sorted(times)
    median = times[len(times) // 2]
    said = f"{what}: median {median:.1f} ms, longest {times[-1]:.1f} of {len(times)}"
    if median <= SLOW_MS:
        return ok(name, said)
    return finding(
        name,
        said,
        "set TCP_NODELAY on the broker (Mosquitto: set_tcp_nodelay true; see "
        "systemd/mosquitto-edge.conf): without it verdicts wait up to 40 ms for an "
        "acknowledgement; else look at the network",
    )
