"""The real daemon as a process, and a line that feeds it and hears it.

A `Daemon` is `edge run` on a broker; a `Line` is what stands around the box on a shop floor: the
camera, the recipes, the lamp, and the reject gate that waits for verdicts. Latencies are measured
where they count: at the subscriber, from the capture time that the frame carried.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from brokers import section, until

from edge.linesim import Board, encode_jpeg, render_part
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session

ROOT: Final = Path(__file__).parent.parent
CONFIG: Final = ROOT / "device_configs" / "x86-cpu.toml"
DEPLOYMENT: Final = ROOT / "models" / "pcb" / "deployment"
BUDGET_MS: Final = 200.0
TRANSPORT_MS: Final = 40.0
"""What a test allows on top of the budget, for the way from the daemon to this subscriber and for
two busy cores that run broker, daemon, worker and test; the fail-safe leaves 15 ms early."""
TIMED_LAMP: Final = 'bindings.signal.lamp={topic="line/lamp", pointer="/v", time_pointer="/t"}'
"""Has the box read the lamp's own time, so that a test need not wait between lamp and frame."""
PARTS: Final = 8
"""Good parts of board 3 that are played in turn."""
READY_S: Final = 40.0
END_S: Final = 20.0


class Daemon:
    """`edge run`, started in the background; `with` ends it whatever happens.

    Args:
        broker: Where it connects.
        folder: Its storage and its log.
        deployment: The folder that it runs; None: what is installed, from its repository.
        overrides: More `--set` values.
        config: The device config.
    """

    def __init__(
        self,
        broker: LocalBroker,
        folder: Path,
        *,
        deployment: Path | None = DEPLOYMENT,
        overrides: Sequence[str] = (),
        config: Path = CONFIG,
    ) -> None:
        self.log_file = folder / "log.jsonl"
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
        """Process id of its one worker."""
        (pid,) = self.children()
        self._workers.add(pid)
        return pid

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


class Line:
    """Everything around the box, as one MQTT client. Use by `line_to`.

    Attributes:
        verdicts: What the gate heard, by (pipeline, frame id): payload and ms since capture.
        statuses: The box's status messages.
        heard: Every other message, by topic.
    """

    def __init__(self, broker: LocalBroker, client_id: str, device: str, **changes: object) -> None:
        self.session = Session(section(broker, **changes), client_id)
        self.verdicts: dict[tuple[str, str], list[tuple[bytes, float]]] = {}
        self.statuses: list[dict[str, Any]] = []
        self.heard: dict[str, list[Incoming]] = {}
        self.sent: dict[str, int] = {}
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
            elif (late_ms := self.latency_ms(name, pipeline) - BUDGET_MS - TRANSPORT_MS) > 0:
                broken.append(f"frame {number} had its verdict {late_ms:.0f} ms late")
        return broken

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
        self, claim: Callable[[dict[str, Any]], bool], what: str, deadline_s: float = 30.0
    ) -> dict[str, Any]:
        """Wait until the latest status fulfils a claim, and return it."""
        # The last will, which may be the latest for a moment, has nothing but its state.
        bare: dict[str, Any] = {"counters": {}, "pipelines": {}, "ledger": {}}
        await until(
            lambda: bool(self.statuses) and claim({**bare, **self.statuses[-1]}), what, deadline_s
        )
        return self.statuses[-1]

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
    **changes: object,
) -> AsyncIterator[Line]:
    """A line that is connected, has taught board 3, and by default waited for the box."""
    for part in range(PARTS):  # drawing takes as long as judging: not while frames are on the way
        part_jpeg(3, part)
    line = Line(broker, client_id, device, **{"session_expiry_s": 0, **changes})
    running = asyncio.create_task(line.session.run(), name=client_id)
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
        await asyncio.wait((running,))


def spoken(place: Path, request: bytes) -> bytes:
    """Say something to a Unix socket, however deep it lies; return the answer, empty if none."""
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(f"/proc/self/fd/{folder}/{place.name}")
            connection.sendall(request)
            return connection.recv(4_096)
    except ConnectionResetError:
        return b""
    finally:
        os.close(folder)


@contextlib.contextmanager
def running_broker(**settings: Any) -> Iterator[LocalBroker]:
    """A local broker for code that is not async."""
    with asyncio.Runner() as runner:
        broker = LocalBroker(**settings)
        runner.run(broker.__aenter__())
        try:
            yield broker
        finally:
            runner.run(broker.__aexit__())


@cache
def reference_jpeg(seed: int) -> bytes:
    """The golden sample of a board, as its camera sends it."""
    return encode_jpeg(Board(seed).reference())


@cache
def part_jpeg(seed: int, index: int, defects: tuple[str, ...] = ()) -> bytes:
    """A part of a board, as its camera sends it."""
    return encode_jpeg(render_part(Board(seed), index, defects).image)
