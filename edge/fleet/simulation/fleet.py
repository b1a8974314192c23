"""Plays a scenario: a group and three releases. One runs, the next is good, the last one bad."""

import asyncio
import contextlib
import functools
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from edge import shipped
from edge.config import UpdateSection
from edge.deployment import asking, fetch
from edge.deployment.fetch_messages import Fetched, Nothing, Outcome, Refused, Request
from edge.deployment.installed import Installed
from edge.deployment.pin import pin
from edge.deployment.pins import MANIFEST
from edge.deployment.rollout import Deployed, Event, State
from edge.errors import ConfigError, DeploymentError, TransportError
from edge.fleet.publisher.releases import REPOSITORY, ROOT, SETTINGS, Fleet
from edge.fleet.publisher.rollout import Reports, Ring, widen
from edge.fleet.simulation.device import Look, SimulatedDevice
from edge.fleet.simulation.scenario import (
    Looks,
    Polls,
    Result,
    Rolled,
    Scenario,
    Standing,
)
from edge.fleet.simulation.server import StaticServer
from edge.mqtt.brokers import LocalBroker

GROUP: Final = "simulated"
FIRST, GOOD, BAD = 1, 2, 3
"""The revisions."""
GUEST_BYTES: Final = 50_000
"""What each release brings anew: a guest of this size."""
DEPLOYMENT: Final = "models/pcb/deployment"
_GUEST: Final = "guests/policy.wasm"
_DESCRIPTORS: Final = 512
"""Beside those of the devices."""
_AT_ONCE: Final = 50
"""Devices that connect at a time."""
_READY_S: Final = 180.0
_SETTLE_S: Final = 120.0


def descriptors(devices: int) -> None:
    """Have room for a connection of each device, and for their requests.

    Raises:
        ConfigError: The system gives less.
    """
    needed = 2 * devices + _DESCRIPTORS
    given, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if given >= needed:
        return
    if most < needed:
        raise ConfigError(
            "--devices",
            f"{devices} devices need {needed} open files, and the system gives {most}",
            f"ulimit -Hn {needed}, or fewer devices",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


async def simulate(scenario: Scenario, folder: Path, say: Callable[[Standing], None]) -> Result:
    """Play it.

    Args:
        scenario: The terms.
        folder: Empty; takes the fleet and the devices' stores.
        say: Takes each change.

    Raises:
        ConfigError: A term is out of its bounds, or the system gives too few open files.
        TransportError: There is no Mosquitto, or the devices did not come up in time.
    """
    scenario.hold()
    descriptors(scenario.devices)
    began = time.monotonic()
    async with LocalBroker(kind="mosquitto") as broker:
        fleet = _fleet(folder / "fleet", broker.port, scenario)
        server = StaticServer(fleet.folder / REPOSITORY)
        # Spawned: a child of a process with threads must not be a fork of it.
        pool = ProcessPoolExecutor(
            os.cpu_count(),
            multiprocessing.get_context("spawn"),
            # Ctrl-C reaches the whole group; it is for this process to end the others.
            signal.signal,
            (signal.SIGINT, signal.SIG_IGN),
        )
        with server.serving(), pool:
            play = _Play(scenario, folder, fleet, server, pool, say)
            return await play.run(began)


class _Play:
    """One simulation under way."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        fleet: Fleet,
        server: StaticServer,
        pool: ProcessPoolExecutor,
        say: Callable[[Standing], None],
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._fleet = fleet
        self._server = server
        self._pool = pool
        self._say = say
        self._devices: list[SimulatedDevice] = []
        self._heard = Reports(fleet.settings.broker)

    async def run(self, began: float) -> Result:
        template = await self._first_device()
        self._devices = [self._device(number, template) for number in range(self._scenario.devices)]
        async with self._heard.listening(), self._running():
            polls = await self._watch_polls()
            rollouts = [await self._roll(GOOD, bad=False), await self._roll(BAD, bad=True)]
        return Result(
            scenario=self._scenario,
            seconds=round(time.monotonic() - began, 1),
            polls=polls,
            rollouts=tuple(rollouts),
            metadata_bytes=self._metadata_bytes(),
            refused=dict(
                Counter(
                    look.found.error
                    for look in self._all_looks()
                    if isinstance(look.found, Refused)
                )
            ),
        )

    async def _look(self, request: Request) -> Outcome:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _attempt, request)

    @functools.cached_property
    def _updates(self) -> UpdateSection:
        return UpdateSection(
            repository=self._server.address,
            root_file=self._fleet.folder / ROOT,
            group=GROUP,
        )

    async def _first_device(self) -> Path:
        """Have one device take the first release; all others begin as its copies."""
        release(self._fleet, self._folder, FIRST, 100.0)
        folder = self._folder / "template"
        installed = Installed(folder, self._updates.store_bytes, time.time_ns)
        found = await self._look(
            asking.request_of(self._updates, "template", folder, installed.journal)
        )
        if not isinstance(found, Fetched):
            raise DeploymentError(f"the first release was not taken: {found}")
        offered = Deployed(found.name, found.revision, found.manifest)
        installed.advance(Event.OFFERED, offered=offered)
        for event in (Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD):
            installed.advance(event)
        return folder

    def _device(self, number: int, template: Path) -> SimulatedDevice:
        name = f"sim-{number + 1:05}"
        folder = self._folder / "devices" / name
        # Every file there is replaced, and never written to: one on disk serves all.
        shutil.copytree(template, folder, symlinks=True, copy_function=os.link)
        return SimulatedDevice(
            name,
            folder,
            self._updates,
            self._fleet.settings.broker,
            self._scenario,
            self._look,
            lambda revision: revision == BAD,
        )

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Have all devices run while the block lasts; on entry each has reported."""
        tasks: list[asyncio.Task[None]] = []
        try:
            end = time.monotonic() + _READY_S
            for at in range(0, len(self._devices), _AT_ONCE):
                some = self._devices[at : at + _AT_ONCE]
                tasks += [asyncio.create_task(each.run(), name=each.name) for each in some]
                while len(self._heard.by_device) < at + len(some):
                    if time.monotonic() > end:
                        raise TransportError(
                            f"{len(self._heard.by_device)} of {len(self._devices)} devices "
                            f"reported within {_READY_S:g} s"
                        )
                    await self._heard.news(1.0)
                    _raise_first(tasks)
                self._say(Standing("devices report", len(self._heard.by_device)))
            yield
            _raise_first(tasks)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _watch_polls(self) -> Polls:
        """Wait until each device has looked and found nothing, and count what that took."""
        began, requests = time.monotonic(), self._server.requests
        looked = self._count_looks()
        end = began + 2 * self._scenario.poll_s + _SETTLE_S
        while any(not each.looks for each in self._devices) and time.monotonic() < end:
            await asyncio.sleep(0.2)  # between two counts
            self._say(Standing("each looks once", sum(bool(e.looks) for e in self._devices)))
        watched_s = time.monotonic() - began
        looks = [look for look in self._all_looks() if look.at_s >= began]
        each_second = Counter(int(look.at_s - began) for look in looks)
        received = [e.found.received_bytes for e in looks if isinstance(e.found, Nothing)]
        count = self._count_looks() - looked
        return Polls(
            looks=count,
            a_second=round(count / watched_s, 2),
            most_in_a_second=max(each_second.values(), default=0),
            requests_each=round((self._server.requests - requests) / max(1, count), 2),
            bytes_each=int(statistics.median(received)) if received else 0,
        )

    async def _roll(self, revision: int, *, bad: bool) -> Rolled:
        """Release a revision, and widen it as `edge fleet rollout` does."""
        word = "bad" if bad else "good"
        release(self._fleet, self._folder, revision, 0.0)
        began, requests, messages = time.monotonic(), self._server.requests, self._messages()
        rings: list[tuple[float, float, int, int]] = []

        def say(ring: Ring) -> None:
            found, percent = ring.tally, ring.release.percent
            now = (percent, round(time.monotonic() - began, 1), found.on, found.failed)
            if rings and rings[-1][0] == percent:
                rings.pop()
            rings.append(now)
            done = found.on + found.failed
            self._say(Standing(f"revision {revision}, {word}", done, percent, found))

        end = await widen(
            self._fleet,
            self._heard,
            GROUP,
            revision,
            self._scenario.steps,
            self._scenario.ring_s,
            say,
        )
        await self._settled()
        seconds = time.monotonic() - began
        ran = [each for each in self._devices if each.ran(revision)]
        on = sum(each.has(revision) for each in self._devices)
        return Rolled(
            revision=revision,
            bad=bad,
            end=end,
            percent=self._fleet.find(GROUP, revision).percent,
            seconds=round(seconds, 1),
            ran=len(ran),
            on=on,
            reverted=sum(not each.has(revision) for each in ran),
            untouched=sum(not each.took_up(revision) for each in self._devices),
            rings=tuple(rings),
            fetched=_summed(self._all_looks(), revision),
            requests=self._server.requests - requests,
            messages=self._messages() - messages,
        )

    async def _settled(self) -> None:
        """Wait until no device is in the midst of a rollout."""
        end = time.monotonic() + _SETTLE_S
        while any(each.state is not State.IDLE for each in self._devices):
            if time.monotonic() > end:
                raise TransportError(f"devices were still under way after {_SETTLE_S:g} s")
            await asyncio.sleep(0.2)  # between two counts

    def _all_looks(self) -> Iterable[Look]:
        return (look for device in self._devices for look in device.looks)

    def _count_looks(self) -> int:
        return sum(len(device.looks) for device in self._devices)

    def _messages(self) -> int:
        """Reports that the broker took, and hints that devices got."""
        return sum(
            each.session.counters["published"] + each.session.counters["received"]
            for each in self._devices
        )

    def _metadata_bytes(self) -> dict[str, int]:
        """The newest file of each role: `3.snapshot.json`, say."""
        newest: dict[str, tuple[int, int]] = {}
        for path in self._fleet.repository.metadata.glob("*.json"):
            version, _, role = path.stem.rpartition(".")
            newest[role] = max(newest.get(role, (0, 0)), (int(version or 0), path.stat().st_size))
        return {role: size for role, (_, size) in sorted(newest.items())}


def release(fleet: Fleet, folder: Path, revision: int, percent: float) -> None:
    """Publish the shipped deployment as this revision, with a guest that no other revision has."""
    made = folder / "releases" / str(revision)
    shutil.copytree(shipped.path(DEPLOYMENT), made)
    manifest = made / MANIFEST
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text(
        "".join(
            f"revision = {revision}\n" if line.startswith("revision = ") else line for line in lines
        )
    )
    guest = made / _GUEST
    guest.write_bytes(_padded(guest.read_bytes(), revision))
    pin(made)
    fleet.build(GROUP, made, percent)
    fleet.sign(GROUP)
    fleet.publish()


def _padded(module: bytes, revision: int) -> bytes:
    """The same code in another file of `GUEST_BYTES`: a custom section is put behind it.

    Source of the form: WebAssembly core specification, 5.5.3.
    """
    name = f"simulated-{revision}".encode()
    size = max(1, GUEST_BYTES - len(module) - len(name) - 5)
    content = bytes([len(name)]) + name + bytes((revision * n * n) % 251 for n in range(size))
    length = len(content)
    coded = bytes((length & 0x7F | 0x80, (length >> 7) & 0x7F | 0x80, length >> 14))
    return module + b"\x00" + coded + content


def _fleet(folder: Path, port: int, scenario: Scenario) -> Fleet:
    Fleet.create(folder, (GROUP,), "simulated")
    (folder / SETTINGS).write_text(
        f'name = "simulated"\nmax_failed_percent = {scenario.max_failed_percent!r}\n\n'
        f'[broker]\nhost = "127.0.0.1"\nport = {port}\n'
    )
    return Fleet(folder)


def _attempt(request: Request) -> Outcome:
    """Look once, in a process of the pool."""
    return fetch.attempt(request, lambda _progress: None)


def _summed(looks: Iterable[Look], revision: int) -> Looks:
    received = [
        look.found.received_bytes
        for look in looks
        if isinstance(look.found, Fetched) and look.found.revision == revision
    ]
    if not received:
        return Looks(0, 0, 0)
    return Looks(len(received), int(statistics.median(received)), max(received))


def _raise_first(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()
            raise TransportError(f"device {task.get_name()} ended")
