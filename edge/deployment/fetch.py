"""The fetch process: `python -P -m edge.deployment.fetch < request > lines`.

One look for an update, from the repository's metadata to a whole deployment folder in the store. It
runs in a process of its own, so that whatever a repository sends can stall, fill or crash only it,
and the daemon's memory carries no TUF; the parent ends it at a deadline.

Obligations, in their order:
 1. the release document and every file are targets of this device's group (`trust`);
 2. the release is the one for this device, and higher than what it runs;
 3. a revision names one manifest for ever;
 4. the manifest and its cards are read in bounds before anything that they pin is fetched;
 5. each file is signed, and its digest is the one that the manifest or card pins;
 6. the folder that results loads as any deployment folder does.
What the release is worth on this device is not judged here: that is its trial.
"""

import datetime as dt
import os
import resource
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edge.config import TlsSection
from edge.deployment import folder, pins, release
from edge.deployment.card import Card
from edge.deployment.fetch_messages import (
    Fetched,
    Line,
    Nothing,
    Outcome,
    Progress,
    Refused,
    Request,
)
from edge.deployment.manifest import Manifest
from edge.deployment.pins import MANIFEST, Pin
from edge.deployment.schema import parse
from edge.deployment.store import Store
from edge.deployment.transport import Pace, Transport
from edge.deployment.trust import Target, Trust
from edge.errors import EdgeError, UntrustedError
from edge.mqtt.leash import die_with
from edge.mqtt.security import tls_context

MAX_SENTENCE: Final = 1_000
_NICENESS: Final = 10
_CPU_S: Final = 600
_MEMORY_BYTES: Final = 1 << 30


class Fetch:
    """One look for an update.

    Args:
        request: What to look for.
        say: Takes the progress.
        now: Of this device's clock, UTC.

    Attributes:
        chosen: Revision of the release under way; 0 before there is one.
    """

    def __init__(self, request: Request, say: Callable[[Progress], None], now: dt.datetime) -> None:
        self._request = request
        self._say = say
        self._transport = Transport(
            request.repository,
            _tls(request),
            Pace(least_bytes_per_s=request.least_bytes_per_s),
            time.monotonic() + request.deadline_s,
        )
        home = Path(request.folder)
        self._trust = Trust(home, request.root, self._transport, request.group, now)
        self._store = Store(home, request.store_bytes)
        self.chosen = 0
        self._document = ""

    def run(self) -> Fetched | Nothing:
        """Look, choose, fetch, assemble.

        Raises:
            UntrustedError: The repository breaks a rule.
            DeploymentError: The release document, the manifest or a card is unsound.
            TransportError: The repository cannot be read; what came is kept.
            StorageError: There is no room, or the disk failed.
        """
        chosen = self._choose()
        if isinstance(chosen, Nothing):
            return chosen
        self.chosen = chosen.revision
        wanted = Pin(MANIFEST, chosen.manifest, chosen.manifest_bytes)
        files = [(wanted, self._signed(wanted))]
        where = f"revision {chosen.revision}: {MANIFEST}"
        manifest = parse(self._bring(*files[0]), Manifest, where)
        said = manifest.deployment
        if (said.name, said.revision) != (chosen.name, chosen.revision):
            raise UntrustedError(
                f"released as {chosen.name} revision {chosen.revision}, but its manifest says "
                f"{said.name} revision {said.revision}"
            )
        files += [(pin, self._signed(pin)) for pin in pins.of_manifest(manifest)]
        cards = self._cards(manifest, dict(files))
        files += [(pin, self._signed(pin)) for pin in pins.of_cards(manifest, cards)]
        self._store.collect(
            self._request.keep,
            [self._document, *(pin.sha256 for pin, _ in files)],
        )
        try:
            self._assemble(chosen.manifest, files)
        except UntrustedError:
            # Bytes that lay here have changed on the disk since they were verified. A server's
            # wrong ones never get so far.
            if not self._store.mend(chosen.manifest, [pin.sha256 for pin, _ in files]):
                raise
            self._assemble(chosen.manifest, files)
        return Fetched(
            manifest.deployment.name,
            chosen.revision,
            chosen.manifest,
            self._transport.received_bytes,
        )

    def _assemble(self, digest: str, files: list[tuple[Pin, Target]]) -> None:
        """Fetch what is missing, and make the folder of it."""
        total = sum(target.bytes for _, target in files)
        held = 0
        for pin, target in files:
            self._store.fetch(self._transport, target.path, target.sha256, target.bytes)
            held += target.bytes
            self._say(Progress(pin.path, held, total))
        whole = self._store.assemble(digest, {pin.path: pin.sha256 for pin, _ in files})
        folder.load_folder(whole)  # 6

    def _choose(self) -> release.Release | Nothing:
        request = self._request
        target = self._trust.target(release.FILE)  # 1
        if target is None:
            return self._nothing(f"the repository has no releases for group {request.group!r}")
        if target.bytes > release.MAX_BYTES:
            raise UntrustedError(
                f"{request.group}/{release.FILE} has {target.bytes} bytes; at most "
                f"{release.MAX_BYTES} are taken"
            )
        self._document = target.sha256
        self._store.fetch(self._transport, target.path, target.sha256, target.bytes)
        releases = release.read(
            self._store.read(target.sha256, release.MAX_BYTES), f"{request.group}/{release.FILE}"
        )
        if releases.group != request.group:
            raise UntrustedError(
                f"{release.FILE} is signed for group {request.group!r} and speaks of "
                f"{releases.group!r}"
            )
        chosen = releases.choose(request.device)
        if chosen is None:
            return self._nothing("no release is for this device yet")
        for known in request.known:
            if known.revision == chosen.revision and known.manifest != chosen.manifest:  # 3
                raise UntrustedError(
                    f"revision {chosen.revision} was manifest {known.manifest[:12]} and is "
                    f"{chosen.manifest[:12]} now: a revision never changes"
                )
        active = request.active.revision if request.active else 0
        lost = chosen.revision == active and not self._store.assembled(chosen.manifest)
        if chosen.revision <= active and not lost:  # 2
            return self._nothing(f"revision {active} runs; {chosen.revision} is offered")
        if chosen.revision in request.barred:
            return self._nothing(f"revision {chosen.revision} is barred on this device")
        return chosen

    def _nothing(self, detail: str) -> Nothing:
        return Nothing(detail, self._transport.received_bytes)

    def _signed(self, pin: Pin) -> Target:
        target = self._trust.target(f"{self.chosen}/{pin.path}")
        if target is None:
            raise UntrustedError(
                f"revision {self.chosen}: {pin.path} is pinned, but no signed file of the group"
            )
        if target.sha256 != pin.sha256:  # 5
            raise UntrustedError(
                f"revision {self.chosen}: {pin.path} is pinned as {pin.sha256[:12]} and signed as "
                f"{target.sha256[:12]}"
            )
        if target.bytes > pin.max_bytes:  # 4
            raise UntrustedError(
                f"revision {self.chosen}: {pin.path} has {target.bytes} bytes; at most "
                f"{pin.max_bytes} are taken for its kind"
            )
        return target

    def _cards(self, manifest: Manifest, signed: dict[Pin, Target]) -> dict[str, Card]:
        by_path = {pin.path: (pin, target) for pin, target in signed.items()}
        found = {}
        for pipeline in manifest.pipelines.values():
            for _, model in pipeline.models:
                path = model.card.path
                content = self._bring(*by_path[path])
                found[path] = parse(content, Card, f"revision {self.chosen}: {path}")
        return found

    def _bring(self, pin: Pin, target: Target) -> bytes:
        self._store.fetch(self._transport, target.path, target.sha256, target.bytes)
        return self._store.read(pin.sha256, pin.max_bytes)


def _tls(request: Request) -> ssl.SSLContext | None:
    if not request.ca_file:
        return None
    section = TlsSection(
        ca_file=Path(request.ca_file),
        certificate_file=Path(request.certificate_file) if request.certificate_file else None,
        key_file=Path(request.key_file) if request.key_file else None,
    )
    return tls_context(section, "updates.tls")


def limit(request: Request) -> None:
    """Bound this process by the kernel, and let the frame path go first."""
    os.nice(_NICENESS)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, request.store_bytes),
    ):
        _, given = resource.getrlimit(what)
        bound = most if given == resource.RLIM_INFINITY else min(most, given)
        resource.setrlimit(what, (bound, bound))


def attempt(request: Request, say: Callable[[Progress], None]) -> Outcome:
    """Look once; what went wrong is an outcome, too."""
    fetch: Fetch | None = None
    try:
        fetch = Fetch(request, say, dt.datetime.now(dt.UTC))
        return fetch.run()
    except EdgeError as refused:
        revision = fetch.chosen if fetch is not None else 0
        sentence = " ".join(str(refused).split())[:MAX_SENTENCE]
        return Refused(type(refused).__name__, sentence, revision)


def main() -> int:
    """Serve one request: lines of progress, then one line with the outcome."""
    die_with(os.getppid())  # two of them in one store would spoil each other's parts
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    limit(request)
    _write(attempt(request, _write))
    return 0


def _write(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
