"""What a person means by a rollback: the deployment that they saw, whatever happens meanwhile."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import until
from daemons import CONFIG
from updating import asynchronous

from edge import config, durable
from edge.config import BrokerSection
from edge.daemon import rollout
from edge.daemon.control import Deployments
from edge.daemon.lineup import Lineup
from edge.daemon.rollout import Rollout
from edge.deployment.fetch_messages import Fetched
from edge.deployment.installed import Installed, read_journal
from edge.deployment.rollout import Deployed, Event, State
from edge.mqtt.session import Session
from edge.observability.counters import Counters

ONE, TWO, THREE = (Deployed("pcb", number, str(number) * 64) for number in (1, 2, 3))
UPDATES = ("updates.repository=file:///r", "updates.root_file=/r/root.json", "updates.group=a")
TAKEN = (Event.OFFERED, Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD)


class Box:
    """A device's deployments, with nothing that runs."""

    def __init__(self, folder: Path) -> None:
        self.installed = Installed(folder / "deployments", 1 << 30, time.time_ns)
        self.rollout = Rollout(
            config.load(CONFIG),
            self.installed,
            Lineup.__new__(Lineup),  # no pipeline is asked for here
            Session(BrokerSection(), "edge-box1"),
            Counters(),
            folder / "guests",
            lambda: None,
        )

    def goes(self, deployed: Deployed, *events: Event) -> None:
        """Let a deployment go this way."""
        for event in events:
            self.installed.advance(event, offered=deployed if event is Event.OFFERED else None)

    async def rolls_back(self, leaves: Deployed | None = None) -> str:
        """Ask for it, and see what the next turns make of it."""
        request = Deployments("rollback", leaves=leaves.digest if leaves else "")
        return await self.rollout.asked(request)

    async def turn(self) -> None:
        """Take one turn of the loop, which finds a wish at once."""
        await asyncio.wait_for(self.rollout._turn(), 5)

    @property
    def candidate(self) -> Deployed | None:
        return self.installed.journal.candidate


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """One that runs revision 2, and ran 1 before."""
    made = Box(tmp_path)
    made.goes(ONE, *TAKEN)
    made.goes(TWO, *TAKEN)
    return made


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], threading.Event]]:
    """Call it: the next file that is replaced can be read, and its writer does not return yet."""
    let_go = threading.Event()
    replace = durable.replace

    def slow(path: Path, content: bytes) -> None:
        replace(path, content)
        assert let_go.wait(20)

    def begin() -> threading.Event:
        monkeypatch.setattr(durable, "replace", slow)
        return let_go

    yield begin
    let_go.set()


@asynchronous
async def test_who_reads_that_it_failed_and_rolls_back_leaves_the_one_before_it(
    box: Box, slow_disk: Callable[[], threading.Event]
) -> None:
    box.goes(THREE, *TAKEN[:4])
    let_go = slow_disk()
    failing = asyncio.create_task(asyncio.to_thread(box.goes, THREE, Event.FAILED))
    await until(lambda: read_journal(box.installed.folder).state is State.IDLE)
    assert box.installed.journal.state is State.PROBATION  # the daemon does not know it yet
    asked = asyncio.create_task(box.rolls_back())
    await asyncio.sleep(0.05)
    let_go.set()
    await failing
    assert await asked == ""
    await box.turn()
    assert box.candidate == ONE


@asynchronous
async def test_what_failed_while_its_rollback_was_on_the_way_costs_nothing_more(
    box: Box, slow_disk: Callable[[], threading.Event]
) -> None:
    box.goes(THREE, *TAKEN[:4])
    let_go = slow_disk()
    asked = asyncio.create_task(box.rolls_back(THREE))
    await until(lambda: read_journal(box.installed.folder).pinned)
    failing = asyncio.create_task(asyncio.to_thread(box.goes, THREE, Event.FAILED))
    await asyncio.sleep(0.05)
    let_go.set()
    assert await asked == ""
    await failing
    await box.turn()
    journal = box.installed.journal
    assert (journal.state, journal.active, journal.pinned) == (State.IDLE, TWO, True)


@asynchronous
async def test_a_rollback_of_what_is_left_already_is_refused_and_changes_nothing(box: Box) -> None:
    box.goes(THREE, *TAKEN[:4], Event.FAILED)
    said = await box.rolls_back(THREE)
    assert "would leave another deployment, revision 2: see edge deploy status" in said
    assert not box.installed.journal.pinned
    assert await box.rolls_back(TWO) == ""
    await box.turn()
    assert box.candidate == ONE


@asynchronous
async def test_asked_twice_it_goes_back_once(box: Box) -> None:
    assert await box.rolls_back(TWO) == ""
    await box.turn()
    assert box.candidate == ONE
    assert await box.rolls_back(TWO) == ""
    box.goes(ONE, *TAKEN[1:])
    assert await box.rolls_back(TWO) != ""
    journal = box.installed.journal
    assert (journal.state, journal.active) == (State.IDLE, ONE)
    assert not box.rollout._leaving.wanted.is_set()


@asynchronous
async def test_a_candidate_that_came_meanwhile_is_dropped_and_the_wish_stands(box: Box) -> None:
    assert await box.rolls_back(TWO) == ""
    box.goes(THREE, Event.OFFERED)
    await box.turn()
    assert (box.installed.journal.state, box.candidate) == (State.IDLE, None)
    await box.turn()
    assert box.candidate == ONE


@asynchronous
async def test_a_wish_in_the_instant_in_which_a_deployment_is_offered_meets_it_written_down(
    box: Box, slow_disk: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetched(*_: object) -> Fetched:
        return Fetched(THREE.name, THREE.revision, THREE.digest, 0)

    monkeypatch.setattr(rollout, "look", fetched)
    box.rollout._by_hand = "https://example.com"
    box.rollout._wanted.set()
    let_go = slow_disk()
    looking = asyncio.create_task(box.turn())
    await until(lambda: read_journal(box.installed.folder).state is State.FETCHED)
    box.rollout._leaving.want(TWO)
    await asyncio.sleep(0.05)
    let_go.set()
    await looking
    await box.turn()  # what was offered is withdrawn
    await box.turn()
    assert box.candidate == ONE


@asynchronous
@pytest.mark.parametrize("by_hand", ["", "file:///media/stick/repository"])
async def test_what_was_being_fetched_when_the_device_was_pinned_is_taken_by_hand_alone(
    box: Box, monkeypatch: pytest.MonkeyPatch, by_hand: str
) -> None:
    async def look(*_: object) -> Fetched:
        assert await box.rollout.asked(Deployments("pin")) == ""
        return Fetched(THREE.name, THREE.revision, THREE.digest, 0)

    monkeypatch.setattr("edge.daemon.rollout.look", look)
    monkeypatch.setattr(box.rollout, "_config", config.load(CONFIG, UPDATES))
    if by_hand:
        assert box.rollout.look_now(by_hand) == ""
    await box.turn()
    assert box.candidate == (THREE if by_hand else None)
    assert box.installed.journal.pinned


@asynchronous
async def test_a_pin_drops_what_is_on_the_way_and_nothing_else(box: Box) -> None:
    box.goes(THREE, Event.OFFERED)
    assert await box.rollout.asked(Deployments("pin")) == ""
    await box.turn()
    journal = box.installed.journal
    assert (journal.state, journal.active, journal.pinned) == (State.IDLE, TWO, True)
    box.goes(THREE, *TAKEN[:4])
    assert await box.rollout.asked(Deployments("pin")) == ""
    assert not box.rollout._leaving.wanted.is_set(), "it is active, and on probation"
    box.goes(THREE, Event.FAILED)
    assert await box.rolls_back(TWO) == ""
    await box.turn()
    assert await box.rollout.asked(Deployments("pin")) == ""
    assert not box.rollout._leaving.wanted.is_set(), "it is what a person goes back to"
