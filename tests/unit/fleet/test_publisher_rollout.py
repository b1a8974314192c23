"""Rings over a real broker: widened as devices report, halted when they fail, never narrowed."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest
from brokers import Peer, running, section, until
from repositories import GROUP, Publisher

from edge.deployment.release import Release, position
from edge.deployment.report import DESIRED, TOPIC, Report, decode
from edge.deployment.rollout import Deployed, State
from edge.errors import DeploymentError
from edge.fleet.publisher import rings
from edge.fleet.publisher.releases import Fleet
from edge.fleet.publisher.rings import Fate, fate
from edge.fleet.publisher.rollout import End, Reports, Ring, widen
from edge.mqtt.brokers import LocalBroker

BOXES = sorted((f"box{n}" for n in range(20)), key=lambda box: position(GROUP, box))
"""The first of them come first."""


class Plant:
    """Devices of a group, as their broker knows them."""

    def __init__(self, broker: LocalBroker, publisher: Publisher) -> None:
        self.peer = Peer(section(broker), "plant", {DESIRED.format(device="+"): 1})
        self.fleet = publisher.fleet
        self.heard = Reports(section(broker))
        self.rings: list[Ring] = []

    async def report(self, box: str, **changes: object) -> None:
        """Have a device say how it is."""
        said = {"device": box, "group": GROUP, "state": State.IDLE, "time_ns": 0, **changes}
        report = msgspec.convert(said, Report)
        topic = TOPIC.format(device=box)
        await self.peer.publish(topic, msgspec.json.encode(report), retain=True)

    async def all_report(self) -> None:
        """Have every device run nothing yet, and wait until that was heard."""
        for box in BOXES:
            await self.report(box)
        await until(lambda: len(self.heard.by_device) == len(BOXES))

    async def widen(self, *percents: float, ring_s: float = 30.0) -> End:
        """Roll revision 1 out."""
        return await widen(self.fleet, self.heard, GROUP, 1, percents, ring_s, self.rings.append)

    @property
    def release(self) -> Release:
        """As it is offered now."""
        return Fleet(self.fleet.folder).find(GROUP, 1)

    @property
    def deployed(self) -> Deployed:
        """What is released."""
        return Deployed("bench", 1, self.release.manifest)


def on_a_loop(
    test: Callable[[Plant], Coroutine[None, None, None]],
) -> Callable[[Plant], None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(plant: Plant) -> None:
        asyncio.run(test(plant))

    return run


def test_a_report_of_a_newer_device_is_read_and_counts_as_under_way() -> None:
    said = {"device": "box1", "group": GROUP, "state": "simmering", "time_ns": 0, "new": [1]}
    deployed = {"name": "bench", "revision": 1, "digest": "0" * 64}
    report = decode(msgspec.json.encode({**said, "active": deployed, "candidate": deployed}), "")
    release = Release(name="bench", revision=1, percent=100, manifest="0" * 64, manifest_bytes=1)
    assert fate(report, release) is Fate.UNDER_WAY
    settled = msgspec.structs.replace(report, candidate=None)
    assert fate(settled, release) is not Fate.ON, "its state says that something goes on"
    assert fate(msgspec.structs.replace(settled, state="idle"), release) is Fate.ON


@pytest.fixture
def plant(embedded_broker: LocalBroker, tmp_path: Path) -> Plant:
    """A plant whose fleet has drafted revision 1 for nobody."""
    publisher = Publisher(tmp_path)
    publisher.release(1, percent=0)
    return Plant(embedded_broker, publisher)


@on_a_loop
async def test_a_release_is_widened_as_devices_take_it(plant: Plant) -> None:
    judged: list[str] = []

    def judge(report: Report, release: Release) -> Fate:
        judged.append(report.device)
        return fate(report, release)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rings, "fate", judge)
        await _widened(plant)
    # Both rings look at all once, and then at who reports: everybody before, and once in each ring.
    assert len(judged) <= 2 * len(BOXES) + 3 * len(BOXES)


async def _widened(plant: Plant) -> None:
    async with running(plant.peer), plant.heard.listening():
        await plant.all_report()
        rollout = asyncio.create_task(plant.widen(50, 100))
        hint = await plant.peer.next()
        assert hint.topic.endswith("deployment/desired")
        for share in (50.0, 100.0):
            await until(lambda share=share: plant.release.percent == share)  # type: ignore[misc] # mypy infers no default of a lambda
            for box in BOXES:
                if position(GROUP, box) < share:
                    await plant.report(box, active=plant.deployed)
        assert await rollout is End.REACHED
        assert plant.rings[-1].tally.on == len(BOXES)


@on_a_loop
async def test_a_rollout_halts_when_too_many_fail(plant: Plant) -> None:
    async with running(plant.peer), plant.heard.listening():
        await plant.all_report()
        rollout = asyncio.create_task(plant.widen(50, 100))
        await until(lambda: plant.release.percent == 50)
        await plant.report(BOXES[0], barred=(1,))
        assert await rollout is End.HALTED
        assert plant.release.halted
        assert plant.release.percent == 50
        assert not plant.release.includes(GROUP, BOXES[0])


@on_a_loop
async def test_a_group_of_which_nothing_is_heard_is_offered_no_more_than_the_first_ring(
    plant: Plant,
) -> None:
    async with running(plant.peer), plant.heard.listening():
        assert await plant.widen(1, 50, 100, ring_s=0) is End.TIMED_OUT
        assert plant.release.percent == 1
        # Control: where devices are heard, and none of them is in the ring, it goes by.
        assert position(GROUP, BOXES[-1]) > 50
        await plant.report(BOXES[-1])
        await until(lambda: len(plant.heard.by_device) == 1)
        assert await plant.widen(1, 50, 100, ring_s=0) is End.TIMED_OUT
        assert plant.release.percent == 100


@on_a_loop
async def test_what_an_operator_halts_elsewhere_stays_halted(plant: Plant) -> None:
    async with running(plant.peer), plant.heard.listening():
        await plant.all_report()
        rollout = asyncio.create_task(plant.widen(50, 100))
        await until(lambda: plant.release.percent == 50)
        Fleet(plant.fleet.folder).change(GROUP, 1, halted=True)
        for box in BOXES:  # the ring would be done now
            await plant.report(box, active=plant.deployed)
        assert await rollout is End.HALTED
        assert plant.release.halted


@on_a_loop
async def test_what_is_halted_just_before_the_next_ring_stays_halted(plant: Plant) -> None:
    alone = plant.fleet.alone

    def late() -> AbstractContextManager[None]:
        if plant.release.percent == 50 and not plant.release.halted:
            Fleet(plant.fleet.folder).change(GROUP, 1, halted=True)
        return alone()

    async with running(plant.peer), plant.heard.listening():
        await plant.all_report()
        rollout = asyncio.create_task(plant.widen(50, 100))
        await until(lambda: plant.release.percent == 50)
        plant.fleet.alone = late  # type: ignore[assignment, method-assign]
        for box in BOXES:
            await plant.report(box, active=plant.deployed)
        assert await rollout is End.HALTED
        assert plant.release.halted


@on_a_loop
async def test_a_rollout_that_is_begun_again_goes_on_where_it_was(plant: Plant) -> None:
    async with running(plant.peer), plant.heard.listening():
        await plant.all_report()
        assert await plant.widen(50, ring_s=0) is End.TIMED_OUT
        plant.fleet.change(GROUP, 1, halted=True)
        assert await plant.widen(1, 10, 40, ring_s=0) is End.TIMED_OUT
        assert (plant.release.percent, plant.release.halted) == (50, False)


@on_a_loop
async def test_reports_of_nonsense_and_in_another_name_are_not_believed(plant: Plant) -> None:
    async with running(plant.peer), plant.heard.listening():
        for payload in (b"[" * 5_000, b"{}", b"\xff", b"x" * 20_000):
            await plant.peer.publish(TOPIC.format(device="evil"), payload)
        other = msgspec.json.encode(Report("box1", GROUP, State.IDLE, 0))
        await plant.peer.publish(TOPIC.format(device="evil"), other)
        await plant.report("box2")
        await until(lambda: "box2" in plant.heard.by_device)
        assert list(plant.heard.by_device) == ["box2"]


@on_a_loop
async def test_a_release_that_is_not_there_is_told(plant: Plant) -> None:
    with pytest.raises(DeploymentError, match="has no release of revision 7; it has 1"):
        await widen(plant.fleet, plant.heard, GROUP, 7, [100], 1, plant.rings.append)


def test_a_publisher_hears_no_report_that_was_said_between_two_of_its_runs(
    mosquitto: LocalBroker,
) -> None:
    async def scenario() -> None:
        box = Peer(section(mosquitto, protocol="5"), "box1", {})
        said = msgspec.json.encode(Report("box1", GROUP, State.IDLE, 0))
        kept = msgspec.json.encode(Report("box2", GROUP, State.IDLE, 0))
        async with running(box):
            assert await box.publish(TOPIC.format(device="box2"), kept, retain=True)
            for run in (1, 2):
                heard = Reports(section(mosquitto, protocol="5"))
                async with heard.listening():
                    await until(lambda heard=heard: "box2" in heard.by_device)  # type: ignore[misc] # mypy infers no default of a lambda
                assert "box1" not in heard.by_device, run
                assert await box.publish(TOPIC.format(device="box1"), said)

    asyncio.run(scenario())
