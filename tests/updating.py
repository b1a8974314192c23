"""A fleet of one group, its repository, and a daemon that is kept up to date from it.

The publisher is `edge fleet`'s own, keys and signatures are real, and the daemon is a process.
"""

import asyncio
import contextlib
import functools
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec

from brokers import until
from daemons import DEPLOYMENT, PARTS, TIMED_LAMP, Daemon, Line, line_to, part_jpeg, with_patience

from edge.daemon.control import Deployments, ask
from edge.deployment.installed import FOLDER, read_journal
from edge.deployment.pin import pin
from edge.deployment.rollout import Event, Journal, State, Step
from edge.errors import DeploymentError, StorageError, TransportError
from edge.fleet.publisher.releases import Fleet
from edge.mqtt.brokers import LocalBroker

GROUP: Final = "line-a"
ENDINGS: Final = (Event.HELD, Event.FAILED, Event.WITHDRAWN)
DEFECTS: Final = ("open", "short")
Change = Callable[[Path], None]
P = ParamSpec("P")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def deployment(
    folder: Path,
    revision: int,
    *changes: Change,
    shadow: int = 4,
    probation: int = 8,
    pinned: bool = True,
    in_time: bool = False,
) -> Path:
    """The reference deployment as another revision, with short rules, and changed.

    Unless `pinned`, its digests are those from before the changes. Unless `in_time`, a busy machine
    makes nothing late.
    """
    if in_time:
        shutil.copytree(DEPLOYMENT, folder)
    else:
        with_patience(DEPLOYMENT, folder)
    manifest = folder / "manifest.toml"
    edited(r"^revision = \d+", f"revision = {revision}")(folder)
    text = manifest.read_text()
    manifest.write_text(
        f"{text}\n[shadow]\nframes = {shadow}\nmax_latency_ratio = {5.0 if in_time else 100.0}\n\n"
        f"[probation]\nframes = {probation}\n"
    )
    for change in changes:
        change(folder)
    if pinned:
        with contextlib.suppress(DeploymentError):  # what cannot be pinned is published as it is
            pin(folder)
    return folder


def edited(pattern: str, replacement: str, *, file: str = "manifest.toml") -> Change:
    """A change of a text file, by a regular expression that must match."""

    def change(folder: Path) -> None:
        path = folder / file
        text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        assert count, f"{pattern!r} matches nothing in {path}"
        path.write_text(text)

    return change


def without_golden(folder: Path) -> None:
    """Take away the golden frames."""
    manifest = folder / "manifest.toml"
    text = manifest.read_text()
    start, end = text.index("# Judged on the device before"), text.index("\n[shadow]")
    manifest.write_text(text[:start] + text[end:])
    shutil.rmtree(folder / "golden")


def policy(wasm: bytes, *, call_ms: int = 800, memory_mib: int = 4, more: str = "") -> Change:
    """Another `decide`, without parameters, and no golden frames, which it would not pass."""

    def change(folder: Path) -> None:
        without_golden(folder)
        (folder / "guests/policy.wasm").write_bytes(wasm)
        manifest = folder / "manifest.toml"
        head, _, rest = manifest.read_text().partition("[pipelines.pcb.decide]")
        rest = rest[rest.index("[[pipelines.pcb.signals]]") :]
        manifest.write_text(
            f'{head}[pipelines.pcb.decide]\npath = "guests/policy.wasm"\nsha256 = "{"0" * 64}"\n'
            f"memory_mib = {memory_mib}\ncall_ms = {call_ms}\n{more}\n{rest}"
        )

    return change


class Site:
    """A fleet, and one device of it.

    Args:
        folder: Of everything.
        broker: Where they speak.
        overrides: More `--set` values of the device.
        in_time: Whether its deployments have no more time than they have on a line.

    Attributes:
        fleet: The publisher's side.
        daemon: The device; `with` starts it.
    """

    def __init__(
        self, folder: Path, broker: LocalBroker, *overrides: str, in_time: bool = False
    ) -> None:
        self.folder = folder
        self.in_time = in_time
        self.fleet = Fleet.create(folder / "fleet", (GROUP,))
        box = folder / "box"
        box.mkdir()
        self.storage = box / "state"
        self.daemon = Daemon(
            broker,
            box,
            deployment=None,
            overrides=(
                f"updates.repository={(folder / 'fleet/repository').as_uri()}",
                f"updates.root_file={folder / 'fleet/root.json'}",
                f"updates.group={GROUP}",
                "updates.poll_s=600",
                "status.interval_s=0.5",
                "log.format=json",
                TIMED_LAMP,
                *overrides,
            ),
        )

    def publish(self, folder: Path, percent: float = 100.0) -> str:
        """Build, sign and publish a release; return its manifest's digest."""
        made = self.fleet.build(GROUP, folder, percent)
        self.fleet.sign(GROUP)
        self.fleet.publish()
        return made.manifest

    async def offer(
        self, revision: int, *changes: Change, shadow: int = 4, probation: int = 8
    ) -> str:
        """Publish the reference deployment, changed; parts keep coming meanwhile."""
        return await asyncio.to_thread(
            lambda: self.publish(
                deployment(
                    self.folder / f"d{revision}",
                    revision,
                    *changes,
                    shadow=shadow,
                    probation=probation,
                    in_time=self.in_time,
                )
            )
        )

    @property
    def journal(self) -> Journal:
        """What the device remembers."""
        return read_journal(self.storage / FOLDER)

    def running(self) -> int:
        """Revision of the active deployment; 0: none."""
        active = self.journal.active
        return active.revision if active else 0

    def ask(self, act: Any, repository: str = "") -> str:
        """Speak to the daemon; return why it refused."""
        return ask(self.storage, Deployments(act, repository)).refusal

    async def look(self, repository: str = "") -> None:
        """Have the device look now, once its daemon listens and nothing is under way."""

        def done() -> bool:
            with contextlib.suppress(StorageError, TransportError):
                return not ask(self.storage, Deployments("look", repository)).refusal
            return False

        await asyncio.to_thread(_soon, done)

    def ending(self, digest: str) -> Step | None:
        """How the newest rollout of a deployment ended; None: it has not."""
        for step in reversed(self.journal.history):
            if step.deployment.digest == digest:
                return step if step.event in ENDINGS else None
        return None

    async def ended(self, digest: str, deadline_s: float = 180.0) -> Step:
        """Wait until a deployment is committed, or given up."""
        await until(lambda: self.ending(digest) is not None, f"an end of {digest[:8]}", deadline_s)
        step = self.ending(digest)
        assert step is not None
        return step

    async def reaches(self, state: State, deadline_s: float = 120.0) -> None:
        """Wait until the rollout is in a state."""
        await until(lambda: self.journal.state is state, f"state {state}", deadline_s)

    async def takes(self, digest: str) -> Step:
        """Have the device look, and wait for how it ends."""
        await self.look()
        return await self.ended(digest)


def _soon(claim: Callable[[], bool]) -> None:
    asyncio.run(until(claim, "the daemon listens, and is idle", 120.0))


class Stream:
    """Parts that come all the time, while something else happens.

    A machine that cannot keep up is not flooded: with many parts unanswered they come more slowly.

    Args:
        line: Who sends them.
        rate_hz: How many a second.
        bad_every: One in so many has two defects; 0: none.

    Attributes:
        names: Frame ids of those that were sent.
    """

    AHEAD: Final = 20
    AT_LEAST_S: Final = 1.0
    """Of a box that answers nothing."""

    def __init__(self, line: Line, rate_hz: float, bad_every: int = 0) -> None:
        self._line = line
        self._pause_s = 1 / rate_hz
        self._bad_every = bad_every
        self._sent_at = 0.0
        self.names: list[str] = []

    def _has_room(self) -> bool:
        if time.monotonic() - self._sent_at > self.AT_LEAST_S or not self._line.session.connected:
            return True
        ahead = self.names[-2 * self.AHEAD :]
        return sum(not self._line.judgements(name) for name in ahead) <= self.AHEAD

    async def run(self) -> None:
        """Send, until cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            number = len(self.names)
            await asyncio.sleep(max(0.0, began + number * self._pause_s - loop.time()))
            await until(self._has_room, "the box keeps up")
            self._sent_at = time.monotonic()
            bad = self._bad_every and number % self._bad_every == 0
            self.names.append(self._line.inspect(number % PARTS, defects=DEFECTS if bad else ()))


@asynccontextmanager
async def streaming(line: Line, rate_hz: float = 8.0, bad_every: int = 0) -> AsyncIterator[Stream]:
    """A stream that runs while the block lasts."""
    if bad_every:
        for part in range(PARTS):
            part_jpeg(3, part, DEFECTS)
    stream = Stream(line, rate_hz, bad_every)
    running = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        running.cancel()
        await asyncio.wait((running,))


@asynccontextmanager
async def on_the_line(
    site: Site, broker: LocalBroker, rate_hz: float = 8.0, bad_every: int = 0
) -> AsyncIterator[tuple[Line, Stream]]:
    """The device with revision 1 committed, and parts that come all the time."""
    first = await site.offer(1, probation=0)
    site.daemon.start()
    async with line_to(broker, wait=False) as line:
        step = await site.ended(first)
        assert step.event is Event.HELD, step
        await line.status(
            lambda s: s["ready"] and s["deployments"]["state"] == "idle", "revision 1 runs"
        )
        async with streaming(line, rate_hz, bad_every) as stream:
            yield line, stream
        if site.daemon.alive and line.session.connected:  # the last parts are still on their way
            await line.all_verdicts(stream.names)


def doubled(folder: Path) -> None:
    """Have a second pipeline that judges the same frames."""
    manifest = folder / "manifest.toml"
    text = manifest.read_text()
    one = text[text.index("[pipelines.pcb]") : text.index("\n[shadow]")]
    manifest.write_text(text + "\n" + one.replace("pipelines.pcb", "pipelines.second"))


@contextlib.contextmanager
def ending(site: Site) -> Iterator[Site]:
    """End a site's daemon, whatever happens."""
    try:
        yield site
    finally:
        if site.daemon.started:
            site.daemon.__exit__()
