"""Repositories of deployments, sound and hostile, the servers that offer them, and who looks.

A repository here is one that `edge fleet` made, with real keys and signatures. To attack is to edit
what lies in it: with its own keys where the attacker has them, without where he has not.
"""

import copy
import datetime as dt
import hashlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from deployment_samples import edit, write_folder
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge.deployment.fetch import Fetch
from edge.deployment.fetch_messages import (
    Fetched,
    Known,
    Line,
    Nothing,
    Outcome,
    Progress,
    Refused,
    Request,
)
from edge.deployment.pin import pin
from edge.deployment.trust import SIGNED_AT
from edge.errors import EdgeError
from edge.fleet.publisher.keys import KeyRing
from edge.fleet.publisher.releases import KEYS, Fleet
from edge.fleet.publisher.repository import Repository
from edge.wasm import binary

GROUP: Final = "press"
BOX: Final = "box1"
NOW: Final = dt.datetime.now(dt.UTC).replace(microsecond=0)


def days(number: float) -> dt.timedelta:
    """So many days."""
    return dt.timedelta(days=number)


def sample(folder: Path, revision: int, *edits: tuple[str, str], model: bytes = b"") -> Path:
    """A deployment folder of a revision, with its manifest edited, and with another model."""
    write_folder(folder)
    edit(folder / "manifest.toml", "revision = 3", f"revision = {revision}")
    for old, new in edits:
        edit(folder / "manifest.toml", old, new)
    if model:
        before = hashlib.sha256((folder / "model/board.int8.onnx").read_bytes()).hexdigest()
        (folder / "model/board.int8.onnx").write_bytes(model)
        edit(folder / "model/card.toml", before, hashlib.sha256(model).hexdigest())
    pin(folder)
    return folder


class Publisher:
    """A fleet with one group, or more, and the folders of its deployments.

    Args:
        folder: Of everything.
        groups: Names.

    Attributes:
        fleet: The fleet, at today's date.
        web: Its static files.
    """

    def __init__(self, folder: Path, groups: tuple[str, ...] = (GROUP,)) -> None:
        self._folder = folder
        self.fleet = Fleet.create(folder / "fleet", groups)
        self.web = folder / "fleet" / "repository"
        self.root = (folder / "fleet" / "root.json").read_bytes()

    def at(self, now: dt.datetime) -> "Publisher":
        """The same publisher on another day."""
        other = copy.copy(self)
        other.fleet = Fleet(self.fleet.folder, now=now)
        return other

    def release(
        self,
        revision: int,
        *edits: tuple[str, str],
        group: str = GROUP,
        percent: float = 100.0,
        model: bytes = b"",
    ) -> str:
        """Build, sign and publish a deployment; return its manifest's digest."""
        folder = self._folder / f"{group}-{revision}"
        made = self.fleet.build(group, sample(folder, revision, *edits, model=model), percent)
        self.fleet.sign(group)
        self.fleet.publish()
        return made.manifest

    def release_with_guest(self, revision: int, note: bytes, *, model: bytes) -> str:
        """Release a deployment whose guest `pre` carries a note; return its manifest's digest."""
        folder = sample(self._folder / f"{GROUP}-{revision}", revision, model=model)
        section = binary.name("note") + note
        (folder / "guests" / "pre.wasm").write_bytes(binary.module([(binary.CUSTOM, section)]))
        pin(folder)
        made = self.fleet.build(GROUP, folder, 100.0)
        self.fleet.sign(GROUP)
        self.fleet.publish()
        return made.manifest

    def copy(self, name: str) -> Path:
        """The static files as they are now, elsewhere."""
        return shutil.copytree(self.web, self._folder / name)

    # What an attacker does who has keys ----------------------------------------------------------

    def resign(
        self, role: str, change: Callable[[Any], object], *, keys_of: str = "", publish: bool = True
    ) -> None:
        """Edit a role's metadata as its next version, and sign it, with the keys of another."""
        repository = self.fleet.repository
        kinds: dict[str, Any] = {"root": Root, "snapshot": Snapshot, "timestamp": Timestamp}
        metadata = repository.load(kinds.get(role, Targets), role)
        if role != "timestamp":
            metadata.signed.version += 1
        change(metadata.signed)
        metadata.signatures.clear()
        self._sign(metadata, keys_of or role)
        _put(repository, role, metadata)
        if publish and role not in ("timestamp", "root"):
            self._describe(role)

    def _describe(self, role: str) -> None:
        """Have snapshot and timestamp speak of what lies here."""
        repository = self.fleet.repository
        if role != "snapshot":
            self.resign(
                "snapshot", lambda s: s.meta.update({f"{role}.json": _described(repository, role)})
            )
            return

        def change(timestamp: Timestamp) -> None:
            timestamp.version += 1
            timestamp.snapshot_meta = _described(repository, "snapshot")

        self.resign("timestamp", change)

    def _sign(self, metadata: Metadata[Any], role: str) -> None:
        root = self.fleet.repository.load(Root, "root").signed
        targets = self.fleet.repository.load(Targets, "targets").signed
        delegator: Root | Targets = root if role in root.roles else targets
        for signer in KeyRing([self.fleet.folder / KEYS]).find(
            delegator.get_delegated_role(role).keyids
        ):
            metadata.sign(signer, append=True)

    def lay(self, signed: Targets, path: str, content: bytes) -> None:
        """Make a file of a group's metadata, and its bytes lie where they belong."""
        target = TargetFile.from_data(path, content, ["sha256"])
        signed.targets[path] = target
        place = self.web / "targets" / path
        place = place.with_name(f"{target.hashes['sha256']}.{place.name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _described(repository: Repository, role: str) -> MetaFile:
    version = repository.version(role)
    content = (repository.metadata / f"{version}.{role}.json").read_bytes()
    return MetaFile.from_data(version, content, ["sha256"])


def _put(repository: Repository, role: str, metadata: Metadata[Any]) -> None:
    name = "timestamp" if role == "timestamp" else f"{metadata.signed.version}.{role}"
    (repository.metadata / f"{name}.json").write_bytes(metadata.to_bytes())


def spoil(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit metadata without any key."""
    found = json.loads(file.read_bytes())
    change(found)
    file.write_text(json.dumps(found))


def signed_at(when: dt.datetime) -> Callable[[Timestamp], None]:
    """Make a timestamp say when it was signed."""

    def change(timestamp: Timestamp) -> None:
        timestamp.version += 1
        timestamp.unrecognized_fields[SIGNED_AT] = when.isoformat()
        timestamp.expires = max(timestamp.expires, when + days(45))

    return change


class Device:
    """Who looks for updates: what it was given at its making, and its store.

    Args:
        folder: Of its store.
        publisher: Whose root file it was given.
    """

    def __init__(self, folder: Path, publisher: Publisher, **request: Any) -> None:
        self.folder = folder
        self.running: Known | None = None
        self._seen: dict[Known, None] = {}
        self._request = Request(
            repository="",
            root=publisher.root,
            group=GROUP,
            device=BOX,
            folder=str(folder),
            deadline_s=30.0,
            least_bytes_per_s=1_024,
            store_bytes=64 << 20,
        )
        self._request = msgspec.structs.replace(self._request, **request)

    def request(self, repository: Path | str, **changes: Any) -> Request:
        """What it asks its fetch process for."""
        return msgspec.structs.replace(
            self._request,
            repository=str(repository),
            active=self.running,
            known=tuple(self._seen),
            keep=(self.running.manifest,) if self.running else (),
            **changes,
        )

    def look(self, repository: Path | str, **changes: Any) -> Outcome:
        """Look once, in this process; what it fetches runs from then on."""
        fetch: Fetch | None = None
        outcome: Outcome
        try:
            fetch = Fetch(self.request(repository, **changes), _unheard, dt.datetime.now(dt.UTC))
            outcome = fetch.run()
        except EdgeError as refused:
            revision = fetch.chosen if fetch else 0
            outcome = Refused(type(refused).__name__, str(refused), revision)
        return self._took(outcome)

    def refused(self, repository: Path | str, error: str, *words: str) -> Refused:
        """Look, and find the look refused by an error that says these words; what runs, runs."""
        before = self.running
        outcome = self.look(repository)
        assert isinstance(outcome, Refused), outcome
        assert outcome.error == error, outcome
        missing = [word for word in words if word not in outcome.detail]
        assert not missing, f"{missing} not in: {outcome.detail}"
        assert self.running == before
        return outcome

    def takes(self, repository: Path | str, revision: int) -> Fetched:
        """Look, and fetch this revision."""
        outcome = self.look(repository)
        assert isinstance(outcome, Fetched), outcome
        assert outcome.revision == revision
        return outcome

    def finds_nothing(self, repository: Path | str, words: str = "") -> Nothing:
        """Look, and find nothing to do."""
        outcome = self.look(repository)
        assert isinstance(outcome, Nothing), outcome
        assert words in outcome.detail
        return outcome

    def runs(self, revision: int, manifest: str) -> None:
        """Say what it runs, where that did not come by a look; 0: nothing."""
        self.running = Known(revision, manifest) if revision else None

    def command(self, *prefix: str) -> list[str]:
        """The fetch process."""
        return [*prefix, sys.executable, "-P", "-m", "edge.deployment.fetch"]

    def look_by_process(self, repository: Path | str, *prefix: str, **changes: Any) -> Outcome:
        """Look once, in a process of its own as the daemon's; None's word is `Refused`."""
        done = subprocess.run(
            self.command(*prefix),
            input=msgspec.json.encode(self.request(repository, **changes)),
            capture_output=True,
            check=False,
            timeout=100,
        )
        lines = [msgspec.json.decode(line, type=Line) for line in done.stdout.splitlines()]
        if not lines or isinstance(lines[-1], Progress):
            return Refused("killed", f"status {done.returncode}: {done.stderr.decode()[-2000:]}")
        outcome: Outcome = lines[-1]
        return self._took(outcome)

    def _took(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Fetched):
            self.running = Known(outcome.revision, outcome.manifest)
            self._seen[self.running] = None
        return outcome


def _unheard(_progress: Progress) -> None:
    """Nobody watches."""


Answer = Callable[["Exchange"], None]
"""How a server answers one request."""


class Exchange(BaseHTTPRequestHandler):
    """One request; what a hostile answer is made of."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def site(self) -> "Site":
        """The server."""
        return cast("Site", self.server)

    @property
    def file(self) -> Path:
        """What is asked for."""
        return self.site.folder / self.path.lstrip("/")

    @property
    def offset(self) -> int:
        """From where."""
        return int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))

    def do_GET(self) -> None:
        """Answer, by the first rule whose name is in the path."""
        self.site.asked.append((self.path, self.headers.get("Range", "")))
        for name, answer in self.site.rules.items():
            if name in self.path:
                try:
                    answer(self)
                except OSError:  # the other side has had enough
                    self.close_connection = True
                return
        soundly(self)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        """Send the head."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def send(self, content: bytes) -> None:
        """Send bytes, and count them."""
        self.site.sent_bytes += len(content)  # first: who has got them may ask at once
        self.wfile.write(content)

    def reset(self) -> None:
        """Tear the connection down: RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def idle(self) -> None:
        """Say nothing until the test is over."""
        self.site.over.wait(60)
        self.close_connection = True


class Site(ThreadingHTTPServer):
    """A web server of static files, as sound or as hostile as its rules.

    Attributes:
        rules: Answers by a part of the path.
        asked: Path and range of each request.
        sent_bytes: Of bodies.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.folder = folder
        self.rules: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []
        self.sent_bytes = 0
        self.over = threading.Event()

    @property
    def address(self) -> str:
        """Of the repository."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error."""


@contextmanager
def serving(folder: Path, **rules: Answer) -> Iterator[Site]:
    """A server of a folder."""
    site = Site(folder)
    site.rules.update(rules)
    thread = threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        site.shutdown()
        site.server_close()
        thread.join()


def soundly(exchange: Exchange) -> None:
    """As a web server does."""
    try:
        content = exchange.file.read_bytes()
    except OSError:
        exchange.head(404, 0)
        return
    offset = exchange.offset
    if offset >= len(content) and offset:
        exchange.head(416, 0)
        return
    if offset:
        where = f"bytes {offset}-{len(content) - 1}/{len(content)}"
        exchange.head(206, len(content) - offset, Content_Range=where)
    else:
        exchange.head(200, len(content))
    exchange.send(content[offset:])


def status(number: int, **headers: str) -> Answer:
    """A status without a body."""
    return lambda exchange: exchange.head(number, 0, **headers)


def page(content: bytes) -> Answer:
    """Always these bytes, as a portal says."""

    def answer(exchange: Exchange) -> None:
        exchange.head(200, len(content))
        exchange.send(content)

    return answer


def whole(exchange: Exchange) -> None:
    """The whole file, whatever range was asked for."""
    content = exchange.file.read_bytes()
    exchange.head(200, len(content))
    exchange.send(content)


def cut_after(count: int, *, reset: bool = False) -> Answer:
    """The file's first bytes behind the offset, then the connection ends."""

    def answer(exchange: Exchange) -> None:
        content = exchange.file.read_bytes()[exchange.offset :]
        total = exchange.offset + len(content)
        where = f"bytes {exchange.offset}-{total - 1}/{total}"
        if exchange.offset:
            exchange.head(206, len(content), Content_Range=where)
        else:
            exchange.head(200, len(content))
        exchange.send(content[:count])
        exchange.wfile.flush()
        exchange.close_connection = True
        if reset:
            exchange.reset()

    return answer


def drip(pause_s: float, count: int = 1) -> Answer:
    """A few bytes at a time."""

    def answer(exchange: Exchange) -> None:
        content = exchange.file.read_bytes()
        exchange.head(200, len(content))
        for start in range(0, len(content), count):
            exchange.send(content[start : start + count])
            if exchange.site.over.wait(pause_s):
                return

    return answer


def endless(exchange: Exchange) -> None:
    """Bytes without end and without a length."""
    exchange.head(200, None)
    end = time.monotonic() + 20
    while not exchange.site.over.is_set() and time.monotonic() < end:
        exchange.send(b"x" * 65_536)
