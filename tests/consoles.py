"""The page on a port of its own, over a ledger that is being written."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from ledgers import Line, entry, frame

from edge import config
from edge.console.app import Say
from edge.console.serving import Options, serve
from edge.contracts.messages import PolicyState
from edge.contracts.verdict import Kind
from edge.ledger import entry as entries
from edge.ledger.entry import Correction, Entry, Pinned
from edge.ledger.kept import Keeper, Keeping
from edge.ledger.ledger import Ledger

ROOT: Final = Path(__file__).parent.parent
RECORDS: Final = 60
TOKEN: Final = "a token of a plant"
HOUR_NS: Final = 3_600 * 10**9
BEGIN_NS: Final = 1_790_000_000 * 10**9
"""One record an hour from then on."""
PARAMETERS: Final[list[dict[str, Any]]] = [{}, {"score": 0.25}, {"reject": 0.6, "review": 0.4}]
_START_S: Final = 60.0


class Answer(NamedTuple):
    """What the page answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """A client that says exactly what it is told to."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, *, method: str = "GET", body: bytes = b"", **headers: str | None
    ) -> Answer:
        """Ask for a path; a header of None is left out, `_` in names is `-`."""
        said: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}"}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in said.items():
                if value is not None:
                    connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: Any) -> Any:
        """Return what a path holds; it must be there."""
        answer = self.ask(path, **headers)
        assert answer.status == 200, answer
        return answer.json

    def post(self, path: str, document: object, **headers: str | None) -> Answer:
        """Post as the page does; headers may be changed or left out."""
        said: dict[str, Any] = {"content_type": "application/json", "x_edge_console": "1"}
        said |= headers
        return self.ask(path, method="POST", body=json.dumps(document).encode(), **said)


class Stand(NamedTuple):
    """A state directory with a ledger that is open, as a daemon has it."""

    folder: Path
    line: Line
    ledger: Ledger
    said: list[Correction]

    def say(self, correction: Correction) -> tuple[str, int]:
        """Record a word as the daemon would."""
        self.said.append(correction)
        taken = self.line.answer(self.ledger.override, correction)
        return str(taken[0]), int(taken[1])

    def record(self, one: Entry, pixels: bytes) -> int:
        """Record a verdict; return its place."""
        before = len(self.line.places)
        self.ledger.append(one, pixels, self.line.places.append)
        self.line.until(lambda: len(self.line.places) > before)
        return self.line.places[-1]


def judged(number: int) -> Entry:
    """The verdict of frame `number`: its score tells its kind, at 0.4 and 0.6."""
    score = (number * 7 % 100) / 100
    kind = Kind.REJECT if score >= 0.6 else Kind.REVIEW if score >= 0.4 else Kind.PASS
    document = entries.parameters_document(PARAMETERS)
    pinned = Pinned("1" * 64, "2" * 64, "3" * 64, "4" * 64, entries.digest(document), document)
    plain = entry(number, decided_at_ns=BEGIN_NS + number * HOUR_NS)
    verdict = msgspec.structs.replace(
        plain.verdict,
        verdict=kind,
        reason="ok" if kind is Kind.PASS else "defect",
        score=score,
        part_id=f"part-{number:03d}",
    )
    reference = b"a golden board"
    return msgspec.structs.replace(
        plain,
        verdict=verdict,
        pinned=pinned,
        policy=PolicyState(number, b""),
        reference=reference,
        reference_digest=hashlib.sha256(reference).hexdigest(),
    )


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A ledger of `RECORDS` verdicts, whose rejects and reviews have their frames kept."""
    folder = tmp_path_factory.mktemp("state")
    line = Line()
    keeper = Keeper(folder / "ledger" / "frames", Keeping(pass_share=0, min_free_bytes=0))
    ledger = Ledger(folder / "ledger", "box1", line.deliver, keeper=keeper)
    made = Stand(folder, line, ledger, [])
    wanted = 0
    for number in range(1, RECORDS + 1):
        one = judged(number)
        wanted += one.verdict.verdict is not Kind.PASS
        made.record(one, frame(number))
    deadline = time.monotonic() + _START_S
    while keeper.counts.kept < wanted:
        assert time.monotonic() < deadline, keeper.counts
        time.sleep(0.001)  # between two looks, until the deadline
    yield made
    ledger.close(0)


Serve = Callable[..., Visitor]


@pytest.fixture(scope="module")
def served(stand: Stand) -> Iterator[Serve]:
    """Serve the page, with options; ends with the module."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None], threading.Thread]] = []
    settings = config.parse(
        {
            # Nobody listens there: the page has to do without.
            "broker": {"host": "127.0.0.1", "port": 9},
            "storage": {"path": str(stand.folder)},
            "ledger": {"frames": {"pass_share": 0.0}},
        },
        "test",
    )

    def start(
        *, token: str = "", names: tuple[str, ...] = (), say: Say | None = stand.say
    ) -> Visitor:
        options = Options("127.0.0.1", 0, stand.folder, token, frozenset(names))
        ready = threading.Event()
        addresses: list[str] = []

        def tell(address: str) -> None:
            addresses.append(address)
            ready.set()

        async def run() -> None:
            task = asyncio.create_task(serve(settings, options, say, tell))
            running.append((asyncio.get_running_loop(), task, thread))
            with contextlib.suppress(asyncio.CancelledError):
                await task

        thread = threading.Thread(target=lambda: asyncio.run(run()), name="page")
        thread.start()
        assert ready.wait(_START_S)
        return Visitor(int(addresses[0].rsplit(":", 1)[1].strip("/")))

    yield start
    for loop, task, thread in running:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(_START_S)


@pytest.fixture(scope="module")
def page(served: Serve) -> Visitor:
    """The page on loopback, open to everybody on the box."""
    return served()


class Console:
    """`edge console` as a process, beside a `Daemon` on the same folder; `with` ends it.

    Args:
        port: The broker's.
        folder: As the daemon's.
        words: More arguments.

    Attributes:
        visitor: Asks it.
    """

    def __init__(self, port: int, folder: Path, *words: str) -> None:
        self._log = folder / f"console-{time.monotonic_ns()}.jsonl"
        self._command = [
            *(sys.executable, "-m", "edge.cli.main", "console", "--listen", "127.0.0.1:0"),
            *("--config", str(ROOT / "device_configs" / "x86-cpu.toml")),
            *("--set", f"broker.port={port}", "--set", f"storage.path={folder / 'state'}"),
            *words,
        ]

    def __enter__(self) -> "Console":
        """Start it; on return it can be asked."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + _START_S
        while not (ready := self._ready()):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)  # between two looks, until the deadline
        self.visitor = Visitor(int(ready.rsplit(":", 1)[1].strip("/")))
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self.process.wait(_START_S)

    def _ready(self) -> str:
        for line in self._log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                event = json.loads(line)
                if event.get("event") == "console_ready":
                    return str(event["address"])
        return ""
