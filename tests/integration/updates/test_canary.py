"""A canary by the real daemon: a good one goes on to the swap, a bad one never has the line."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import until
from daemons import Line
from evil_guests import trapping_policy
from updating import (
    Change,
    Site,
    Stream,
    asynchronous,
    doubled,
    edited,
    ending,
    on_the_line,
    policy,
)

from edge.contracts.verdict import Verdict, from_json
from edge.deployment.rollout import Event, State
from edge.deployment.rules import CanaryRule
from edge.mqtt.brokers import LocalBroker

SHARE = 0.3
RULE = CanaryRule(frames=1, share=SHARE)


@pytest.fixture
def site(tmp_path: Path, mosquitto: LocalBroker) -> Iterator[Site]:
    """A fleet and a device, which is not started yet."""
    with ending(Site(tmp_path, mosquitto)) as made:
        yield made


def canary(frames: int) -> Change:
    """Ask for a canary."""
    return edited(
        r"^\[probation\]$", f"[canary]\nframes = {frames}\nshare = {SHARE}\n\n[probation]"
    )


async def verdicts(line: Line, stream: Stream) -> list[Verdict]:
    """What the line was given, one for each frame; that it is in time is test_rollouts' to hold."""
    await line.all_verdicts(stream.names)
    assert {line.judgements(name) for name in stream.names} == {1}
    return [from_json(line.verdicts["pcb", name][0][0]) for name in stream.names]


def before_the_swap(given: list[Verdict], revision: int, digest: str) -> list[Verdict]:
    """The candidate's verdicts while it was canary: those of parts that are drawn."""
    last = max(n for n, each in enumerate(given) if each.deployment.revision != revision)
    return [each for each in given[:last] if each.deployment.digest == digest]


@asynchronous
async def test_a_good_canary_judges_its_share_and_goes_on_to_the_swap(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=20) as (line, stream):
        digest = await site.offer(2, canary(24), probation=10)
        await site.look()
        await site.reaches(State.CANARY)
        assert site.running() == 1, "it is not active yet"
        said = await line.status(lambda s: bool(s["pipelines"]["pcb"]["canary"]), "the canary")
        assert said["pipelines"]["pcb"]["canary"]["deployment"]["revision"] == 2
        assert said["pipelines"]["pcb"]["deployment"]["revision"] == 1
        step = await site.ended(digest)
        assert step.event is Event.HELD, step
    events = [s.event for s in site.journal.history if s.deployment.digest == digest]
    assert events[-4:] == [Event.PROVED, Event.ADMITTED, Event.AGREED, Event.HELD]
    given = await verdicts(line, stream)
    shared = before_the_swap(given, 2, digest)
    agreed = site.journal.last_of(Event.AGREED)
    assert agreed is not None
    assert agreed.evidence["canary"]["pcb"]["frames"] == 24
    assert shared
    assert all(RULE.includes(digest, each.part_id or each.frame_id) for each in shared)
    first = given.index(shared[0])
    beside = [v for v in given[first : given.index(shared[-1])] if v.deployment.revision == 1]
    assert beside, "the active one had the rest"
    assert not any(RULE.includes(digest, each.part_id or each.frame_id) for each in beside[2:])


@asynchronous
async def test_a_bad_canary_is_withdrawn_with_evidence_and_only_its_share_saw_it(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=20) as (line, stream):
        digest = await site.offer(2, policy(trapping_policy(8)), canary(40))
        step = await site.takes(digest)
        assert (step.event, step.reason) == (Event.FAILED, "guest-trap"), step
        assert step.evidence["canary"]["pcb"]["faults"] == {"guest-trap": 1}
        assert site.running() == 1
        events = [s.event for s in site.journal.history if s.deployment.digest == digest]
        assert events[-2:] == [Event.ADMITTED, Event.FAILED]
        await line.status(lambda s: not s["pipelines"]["pcb"]["canary"], "it is gone")
    given = await verdicts(line, stream)
    hers = [each for each in given if each.deployment.revision == 2]
    assert all(RULE.includes(digest, each.part_id or each.frame_id) for each in hers)
    assert [each.reason for each in hers].count("guest-trap") == 1
    # A loaded machine may make the active worker late; what the canary did wrong is never its.
    assert "guest-trap" not in {each.reason for each in given if each.deployment.revision == 1}


@asynchronous
async def test_a_canary_whose_worker_dies_costs_no_frame_its_judgement(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=20) as (line, stream):
        digest = await site.offer(2, canary(100_000))
        await site.look()
        await site.reaches(State.CANARY)
        said = await line.status(lambda s: bool(s["pipelines"]["pcb"]["canary"]), "the canary")
        await until(lambda: _judged_by(line, 2) > 2, "it judges")
        os.kill(said["pipelines"]["pcb"]["canary"]["worker_pid"], signal.SIGKILL)
        step = await site.ended(digest)
        assert (step.event, step.reason, site.running()) == (Event.FAILED, "worker-lost", 1), step
    given = await verdicts(line, stream)
    assert "worker-lost" not in {each.reason for each in given}


@asynchronous
async def test_a_daemon_killed_during_a_canary_starts_the_active_one(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=10):
        await site.offer(2, canary(100_000))
        await site.look()
        await site.reaches(State.CANARY)
        site.daemon.kill()
        assert site.running() == 1
        site.daemon.start()
        await until(
            lambda: [s.event for s in site.journal.history].count(Event.ADMITTED) == 2,
            "it is canary again",
            120,
        )
        assert (site.journal.starts, site.running()) == (1, 1)


def _judged_by(line: Line, revision: int, pipeline: str = "pcb") -> int:
    found = [
        json.loads(heard[0][0])["deployment"]["revision"]
        for (name, _), heard in line.verdicts.items()
        if name == pipeline
    ]
    return found.count(revision)


@asynchronous
async def test_a_canary_of_two_pipelines_that_a_person_withdraws_costs_no_frame(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=5) as (line, stream):
        assert (await site.takes(await site.offer(2, doubled))).event is Event.HELD
        third = await site.offer(3, doubled, canary(100_000))
        await site.look()
        await site.reaches(State.CANARY)
        both = await line.status(
            lambda s: all(p["canary"] for p in s["pipelines"].values()), "a canary in each"
        )
        assert sorted(both["pipelines"]) == ["pcb", "second"]
        await until(
            lambda: all(_judged_by(line, 3, name) > 2 for name in both["pipelines"]), "both judge"
        )
        assert site.ask("rollback") == ""
        step = await site.ended(third)
        assert (step.event, site.running()) == (Event.WITHDRAWN, 2), step
        assert site.journal.pinned, "the next look would bring it back"
        await line.status(
            lambda s: not any(p["canary"] for p in s["pipelines"].values()), "they are gone"
        )
        last = stream.names[-1]
        await line.verdict(last, "second")
    await line.kept(stream.names)
    given = await verdicts(line, stream)
    assert {each.reason for each in given} <= {"ok", "defect"}
