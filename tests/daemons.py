"""The real daemon as a process, and a line that feeds it and hears it.

A `Daemon` is `edge run` on a broker; a `Line` is what stands around the box on a shop floor: the
camera, the recipes, the lamp, and the reject gate that waits for verdicts. Latencies are measured
where they count: at the subscriber, from the capture time that the frame carried.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from brokers import section, until

from edge.deployment.pin import pin
from edge.linesim import Board, encode_jpeg, render_part
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session

ROOT: Final = Path(__file__).parent.parent
CONFIG: Final = ROOT / "device_configs" / "x86-cpu.toml"
DEPLOYMENT: Final = ROOT / "models" / "pcb" / "deployment"
BUDGET_MS: Final = 200.0
PATIENT_MS: Final = 20_000
PATIENCE: Final = 20
"""So many times as long may a guest's call take with such a budget: that is wall time, too."""
TRANSPORT_MS: Final = 40.0
"""What a test allows on top of the budget, for the way from the daemon to this subscriber; the
fail-safe leaves 15 ms early. What the machine withheld meanwhile comes on top (`Pulse`)."""
TIMED_LAMP: Final = 'bindings.signal.lamp={topic="line/lamp", pointer="/v", time_pointer="/t"}'
"""Has the box read the lamp's own time, so that a test need not wait between lamp and frame."""
PARTS: Final = 8
"""Good parts of board 3 that are played in turn."""
READY_S: Final = 120.0
END_S: Final = 60.0


class Daemon:
    """`edge run`, started in the background; `with` ends it whatever happens.

    Args:
        broker: Where it connects.
        folder: Its storage and its log.
        deployment: The folder that it runs; None: what is installed, from its repository.
        overrides: More `--set` values.
        config: The device config.
        budget_ms: From capture to verdict, with time for guests and room for frames in the same
            measure: what a test that asks what becomes of a frame, and not when, waits for a busy
            machine. 0: the deployment's own, for a test that is about time.
    """

    def __init__(
        self,
        broker: LocalBroker,
        folder: Path,
        *,
        deployment: Path | None = DEPLOYMENT,
        overrides: Sequence[str] = (),
        config: Path = CONFIG,
        budget_ms: int = PATIENT_MS,
    ) -> None:
        self.log_file = folder / "log.jsonl"
        if deployment is not None and budget_ms:
            deployment = with_patience(deployment, folder / "patient", budget_ms)
        self.deployment = deployment
        self._command = [
            *(sys.executable, "-m", "edge.cli.main", "run", "--config", str(config)),
            *("--set", f"broker.port={broker.port}", "--set", f"storage.path={folder / 'state'}"),
            *(word for override in overrides for word in ("--set", override)),
        ]
        if deployment is not None:
            self._command += ["--deployment", str(deployment), "--allow-unsigned"]
        self._process: subprocess.Popen[bytes] | None = None
        self._workers: set[int] = set()

    def __enter__(self) -> "Daemon":
        """Start it; it is not ready yet."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it and its workers, which a hung one would outlive otherwise."""
        with contextlib.suppress(psutil.Error):
            self._workers.update(self.children())
        self.kill()
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, also again after its end; the log goes on."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ready(self) -> "Daemon":
        """Wait until it has logged that it is ready."""
        self.logged("ready", deadline_s=READY_S)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.ended()

    def ended(self, deadline_s: float = END_S) -> int:
        """Wait for its end and return the exit status."""
        assert self._process is not None
        return self._process.wait(deadline_s)

    def worker(self) -> int:
        """Process id of its one worker; one that is being replaced is waited for."""
        end = time.monotonic() + END_S
        while len(pids := self.children()) != 1:
            assert time.monotonic() < end, f"not one worker: {pids}"
            time.sleep(0.02)  # between two looks, until the deadline
        self._workers.update(pids)
        return pids[0]

    def children(self) -> list[int]:
        """Process ids of whatever it has started."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    def log(self) -> str:
        """All that it has written so far."""
        return self.log_file.read_text(errors="replace")

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """Its log lines, of one event or of all; what is no JSON is no log line."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if not event or entry.get("event") == event:
                    found.append(entry)
        return found

    def logged(self, event: str, *, times: int = 1, deadline_s: float = END_S) -> dict[str, Any]:
        """Wait until it has logged an event so often, and return the last of them."""
        end = time.monotonic() + deadline_s
        while len(found := self.events(event)) < times:
            if not self.alive or time.monotonic() > end:
                state = "it still runs" if self.alive else "it has ended"
                pytest.fail(f"the daemon has not logged {event!r} ({state}):\n{self.log()[-4000:]}")
            time.sleep(0.02)  # between two looks, until the deadline
        return found[times - 1]


class Pulse:
    """How long this event loop was kept from running: the machine's doing, not the box's.

    Camera, broker, supervisor and gate each wait for a processor on a frame's way, two of them
    twice; what one loop found withheld in the meantime each of them may have met with. On a quiet
    machine that is nothing, and a promise is held to the millisecond.
    """

    BEAT_S: Final = 0.005
    SLACK_MS: Final = 2.0
    """Of a timer, on a machine that does nothing else."""
    ON_THE_WAY: Final = 6
    MOST_MS: Final = 3_000.0
    """No load excuses more: a box that is later than that is at fault."""

    def __init__(self) -> None:
        self._withheld: deque[tuple[int, int]] = deque(maxlen=10_000)

    async def beat(self) -> None:
        """Ask for a moment now and then, and note what came too late; until cancelled."""
        while True:
            due_ns = time.monotonic_ns() + round((self.BEAT_S + self.SLACK_MS / 1e3) * 1e9)
            await asyncio.sleep(self.BEAT_S)
            if (now_ns := time.monotonic_ns()) > due_ns:
                self._withheld.append((due_ns, now_ns))

    def withheld_ms(self, since_ns: int, until_ns: int) -> float:
        """What a frame that was on its way between two instants may be late for that."""
        met_ns = sum(
            back_ns - due_ns
            for due_ns, back_ns in self._withheld
            if back_ns > since_ns and due_ns < until_ns
        )
        return min(self.ON_THE_WAY * met_ns / 1e6, self.MOST_MS)


class Line:
    """Everything around the box, as one MQTT client. Use by `line_to`.

    Args:
        broker: Where it connects.
        client_id: As which client.
        device: The box that it feeds.
        budget_ms: What verdicts are held to by `kept`, whatever they say of theirs.
        changes: Of the config section that leads to the broker.

    Attributes:
        verdicts: What the gate heard, by (pipeline, frame id): payload and ms since capture.
        statuses: The box's status messages.
        heard: Every other message, by topic.
        pulse: What the machine withheld from this process, and from its neighbours likewise.
    """

    def __init__(
        self,
        broker: LocalBroker,
        client_id: str,
        device: str,
        budget_ms: float = PATIENT_MS,
        **changes: object,
    ) -> None:
        self.budget_ms = budget_ms
        self.session = Session(section(broker, **changes), client_id)
        self.verdicts: dict[tuple[str, str], list[tuple[bytes, float]]] = {}
        self.statuses: list[dict[str, Any]] = []
        self.heard: dict[str, list[Incoming]] = {}
        self.sent: dict[str, int] = {}
        self.pulse = Pulse()
        self._prefix = f"{client_id}-{time.time_ns()}"
        for topic, take in (
            (f"edge/{device}/+/verdict", self._verdict),
            (f"edge/{device}/status", self._status),
            ("line/top/reject", self._other),
            ("answers/#", self._other),
        ):
            self.session.subscribe(topic, 1, take)

    def _verdict(self, message: Incoming) -> None:
        pipeline = message.topic.split("/")[2]
        frame_id = json.loads(message.payload)["frame_id"]
        sent_ns = self.sent.get(frame_id, message.arrived_ns)
        self.verdicts.setdefault((pipeline, frame_id), []).append(
            (message.payload, (message.arrived_ns - sent_ns) / 1e6)
        )
        self.session.acknowledge(message)

    def _status(self, message: Incoming) -> None:
        self.statuses.append(json.loads(message.payload))
        self.session.acknowledge(message)

    def _other(self, message: Incoming) -> None:
        self.heard.setdefault(message.topic, []).append(message)
        self.session.acknowledge(message)

    # What the line does

    def new_id(self) -> str:
        """A frame id that was not used before."""
        return f"{self._prefix}-{len(self.sent)}"

    def send(
        self,
        image: bytes,
        *,
        reference: str = "",
        frame_id: str = "",
        age_ms: float = 0.0,
        topic: str = "line/top/frame",
        content_type: str = "image/jpeg",
        qos: int = 1,
        retain: bool = False,
        **properties: str,
    ) -> str:
        """Take a picture `age_ms` ago and publish it now; return its frame id."""
        frame_id = frame_id or self.new_id()
        captured = time.time_ns() - int(age_ms * 1e6)
        self.sent[frame_id] = time.monotonic_ns() - int(age_ms * 1e6)
        named = {
            "frame-id": frame_id,
            "reference-id": reference,
            "captured-at": str(captured),
            **{name.replace("_", "-"): value for name, value in properties.items()},
        }
        self.session.publish(
            topic, image, content_type=content_type, properties=named, qos=qos, retain=retain
        )
        return frame_id

    def lamp(self, value: float) -> None:
        """Publish the lamp's brightness as of now; the box must run with `TIMED_LAMP`."""
        sample = json.dumps({"t": time.time_ns(), "v": value}).encode()
        self.session.publish("line/lamp", sample)

    def teach(self, board: Board, reference_id: str = "") -> str:
        """Publish a board's reference image, retained; return its id."""
        name = reference_id or board.reference_id
        self.session.publish(
            f"line/top/reference/{name}",
            reference_jpeg(board.seed),
            retain=True,
            content_type="image/jpeg",
        )
        return name

    def inspect(self, part: int, *, defects: tuple[str, ...] = (), **how: Any) -> str:
        """Send a part of board 3 whose reference the box knows; return its frame id."""
        return self.send(part_jpeg(3, part, defects), reference="board-0003", **how)

    async def play(
        self, frames: int, interval_s: float = 0.05, during: Callable[[int], None] | None = None
    ) -> list[str]:
        """Send parts at a steady rate; `during` is called with the number of each before it."""
        began = time.monotonic()
        names = []
        for number in range(frames):
            await asyncio.sleep(max(0.0, began + number * interval_s - time.monotonic()))
            if during is not None:
                during(number)
            names.append(self.inspect(number % PARTS))
        return names

    # What the line hears

    async def verdict(self, frame_id: str, pipeline: str = "pcb") -> dict[str, Any]:
        """Wait for a frame's verdict and return it."""
        await until(lambda: (pipeline, frame_id) in self.verdicts, f"a verdict for {frame_id}")
        found: dict[str, Any] = json.loads(self.verdicts[pipeline, frame_id][0][0])
        return found

    async def all_verdicts(
        self, names: Sequence[str], pipeline: str = "pcb"
    ) -> list[dict[str, Any]]:
        """Wait for the verdicts of frames and return them in their order."""
        return [await self.verdict(name, pipeline) for name in names]

    def latency_ms(self, frame_id: str, pipeline: str = "pcb") -> float:
        """Milliseconds from capture to the first verdict's arrival here."""
        return self.verdicts[pipeline, frame_id][0][1]

    def excused_ms(self, frame_id: str, pipeline: str = "pcb") -> float:
        """Milliseconds that the machine may have kept a frame's verdict back."""
        sent_ns = self.sent[frame_id]
        took_ms = self.latency_ms(frame_id, pipeline)
        return self.pulse.withheld_ms(sent_ns, sent_ns + round(took_ms * 1e6))

    def late_ms(self, frame_id: str, pipeline: str = "pcb") -> float:
        """Milliseconds by which the first verdict came later than it may; below 0: in time."""
        allowed_ms = self.budget_ms + TRANSPORT_MS + self.excused_ms(frame_id, pipeline)
        return self.latency_ms(frame_id, pipeline) - allowed_ms

    def judgements(self, frame_id: str, pipeline: str = "pcb") -> int:
        """How many different verdicts a frame got; at QoS 1 the same one may come twice."""
        return len({payload for payload, _ in self.verdicts.get((pipeline, frame_id), ())})

    def broken_promises(self, names: Sequence[str], pipeline: str = "pcb") -> list[str]:
        """Say of which frames the box has not kept its promise: one verdict, in time."""
        broken = []
        for number, name in enumerate(names):
            count = self.judgements(name, pipeline)
            if count != 1:
                broken.append(f"frame {number} has {count} verdicts")
            elif (late_ms := self.late_ms(name, pipeline)) > 0:
                broken.append(f"frame {number} had its verdict {late_ms:.0f} ms late")
        return broken

    async def judges(self) -> None:
        """Inspect good parts, one after the other, until one is judged: a busy machine may be late
        for some.
        """
        reason = ""
        async with asyncio.timeout(READY_S):
            while reason != "ok":
                reason = (await self.verdict(self.inspect(len(self.sent) % PARTS)))["reason"]

    async def kept(self, names: Sequence[str], pipeline: str = "pcb") -> Counter[str]:
        """Wait for the verdicts, hold the box to its promise, and return the reasons."""
        await self.all_verdicts(names, pipeline)
        broken = self.broken_promises(names, pipeline)
        assert not broken, f"{broken}; {dict(self.reasons(names, pipeline))}"
        return self.reasons(names, pipeline)

    def reasons(self, names: Sequence[str], pipeline: str = "pcb") -> Counter[str]:
        """Count the reasons of frames."""
        return Counter(
            json.loads(self.verdicts[pipeline, name][0][0])["reason"]
            for name in names
            if (pipeline, name) in self.verdicts
        )

    async def status(
        self, claim: Callable[[dict[str, Any]], bool], what: str, deadline_s: float = READY_S
    ) -> dict[str, Any]:
        """Wait until the latest status, or one that follows, fulfils a claim, and return it."""
        # The last will, which may be the latest for a moment, has nothing but its state.
        bare: dict[str, Any] = {"counters": {}, "pipelines": {}, "ledger": {}}
        seen = max(0, len(self.statuses) - 1)
        found: list[dict[str, Any]] = []

        def fulfilled() -> bool:
            # Each, not the last alone: a busy machine may bring several between two looks.
            nonlocal seen
            news, seen = self.statuses[seen:], len(self.statuses)
            found.extend(status for status in news if claim({**bare, **status}))
            return bool(found)

        await until(fulfilled, what, deadline_s)
        return found[0]

    async def box_ready(self) -> dict[str, Any]:
        """Wait until the box says that it is ready."""
        return await self.status(lambda status: status["ready"] is True, "the box is ready")


@asynccontextmanager
async def line_to(
    broker: LocalBroker,
    client_id: str = "line",
    device: str = "box1",
    *,
    taught: bool = True,
    wait: bool = True,
    budget_ms: float = PATIENT_MS,
    **changes: object,
) -> AsyncIterator[Line]:
    """A line that is connected, has taught board 3, and by default waited for the box."""
    for part in range(PARTS):  # drawing takes as long as judging: not while frames are on the way
        part_jpeg(3, part)
    line = Line(broker, client_id, device, budget_ms, **{"session_expiry_s": 0, **changes})
    running = asyncio.create_task(line.session.run(), name=client_id)
    beating = asyncio.create_task(line.pulse.beat(), name="pulse")
    try:
        await until(lambda: line.session.connected, "the line is connected")
        if taught:
            line.teach(Board(3))
            await until(lambda: line.session.unanswered == 0, "the reference is out")
        if wait:
            await line.box_ready()
        yield line
    finally:
        await line.session.close(1.0)
        running.cancel()
        beating.cancel()
        await asyncio.wait((running, beating))


def spoken(place: Path, request: bytes) -> bytes:
    """Say something to a Unix socket, however deep it lies; return the answer, empty if none."""
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(f"/proc/self/fd/{folder}/{place.name}")
            connection.sendall(request)
            return connection.recv(4_096)
    except ConnectionResetError:
        return b""
    finally:
        os.close(folder)


def with_patience(source: Path, folder: Path, budget_ms: int = PATIENT_MS) -> Path:
    """A deployment's copy that has time; itself where its budget is one that a test has set."""
    text = (source / "manifest.toml").read_text()
    budget = re.compile(rf"^budget_ms = {BUDGET_MS:.0f}$", re.MULTILINE)
    if not budget.search(text):
        return source
    shutil.copytree(source, folder)
    text = budget.sub(f"budget_ms = {budget_ms}", text)
    calls = re.compile(r"^call_ms = (\d+)$", re.MULTILINE)
    text = calls.sub(lambda call: f"call_ms = {PATIENCE * int(call[1])}", text)
    text = re.sub(r"^queue_frames = 4\b", "queue_frames = 64", text, flags=re.MULTILINE)
    (folder / "manifest.toml").write_text(text)
    pin(folder)
    return folder


@cache
def reference_jpeg(seed: int) -> bytes:
    """The golden sample of a board, as its camera sends it."""
    return encode_jpeg(Board(seed).reference())


def part_jpeg(seed: int, index: int, defects: tuple[str, ...] = ()) -> bytes:
    """A part of a board, as its camera sends it; drawn once, which takes as long as judging it."""
    return _drawn(seed, index, defects)  # the cache tells an argument that is left out from `()`


@cache
def _drawn(seed: int, index: int, defects: tuple[str, ...]) -> bytes:
    return encode_jpeg(render_part(Board(seed), index, defects).image)
