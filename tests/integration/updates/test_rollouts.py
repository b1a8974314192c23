"""Deployments on a device, by the real daemon: taken, kept, undone, and what a person asks for."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from brokers import require_mosquitto, until
from daemons import line_to, spoken
from evil_guests import counting_policy, deciding, trapping_policy
from updating import (
    Site,
    asynchronous,
    deployment,
    doubled,
    edited,
    ending,
    on_the_line,
    policy,
    streaming,
)

from edge.daemon.control import WORDS, Deployments
from edge.deployment.rollout import Event, State
from edge.mqtt.brokers import LocalBroker


@pytest.fixture
def site(tmp_path: Path, mosquitto: LocalBroker) -> Iterator[Site]:
    """A fleet and a device, which is not started yet."""
    with ending(Site(tmp_path, mosquitto)) as made:
        yield made


@asynchronous
async def test_a_release_is_shadowed_swapped_watched_and_committed_and_no_frame_is_lost(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=20) as (line, stream):
        second = await site.offer(2, probation=20)
        step = await site.takes(second)
        assert step.event is Event.HELD, step
        assert site.running() == 2
        assert site.journal.previous is not None
        history = [s.event for s in site.journal.history if s.deployment.digest == second]
        assert history == [Event.OFFERED, Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD]
        said = await line.status(lambda s: s["deployments"]["state"] == "idle", "it is told")
        assert said["deployments"]["active"]["revision"] == 2
    reasons = await line.kept(stream.names)
    assert "overrun" not in reasons
    by = {
        json.loads(line.verdicts["pcb", name][0][0])["deployment"]["revision"]
        for name in stream.names
    }
    assert by == {1, 2}


@asynchronous
async def test_a_policys_state_goes_over_and_one_that_cannot_be_read_starts_empty(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto) as (line, stream):
        scores_may_move = edited(r"^\[probation\]$", "[probation]\nmax_score_shift = 1.0")
        for revision in (2, 3):
            step = await site.takes(
                await site.offer(revision, policy(counting_policy()), scores_may_move, probation=12)
            )
            assert step.event is Event.HELD, step
        names = tuple(stream.names)
        found = [v for v in await line.all_verdicts(names) if v["deployment"]["revision"] > 1]
        # Each frame since revision 2 was counted once, across the exchange for revision 3.
        assert {v["deployment"]["revision"] for v in found} == {2, 3}
        counts = [round(v["score"] * 100) for v in found]
        assert counts == list(range(counts[0], counts[0] + len(found)))
        refusing = deciding(
            "",
            state='(func (export "edge_state_save") (param i32 i32) (result i32) (i32.const 0))'
            '(func (export "edge_state_restore") (param i32 i32) (result i32) (i32.const -1))',
        )
        step = await site.takes(await site.offer(4, policy(refusing), scores_may_move))
        assert step.event is Event.HELD, step
        await line.status(
            lambda s: bool(s["pipelines"]["pcb"]["policy"].get("state_refused")),
            "that it began empty",
        )


@asynchronous
async def test_a_bad_release_is_undone_and_barred_after_three_failures(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=12) as (line, stream):
        bad = await site.offer(2, policy(trapping_policy(14)), probation=30)
        for attempt in range(1, 4):
            before = len(site.journal.history)
            await site.look()
            await until(
                lambda before=before: (
                    len(site.journal.history) > before  # type: ignore[misc]
                    and site.ending(bad) is not None
                ),
                "it ends",
                120,
            )
            step = await site.ended(bad)
            assert (step.event, step.reason) == (Event.FAILED, "guest-trap"), step
            assert site.running() == 1
            assert site.journal.failures[bad] == attempt
        assert bad in site.journal.barred
        before = len(site.journal.history)
        await site.look()
        better = await site.offer(3)
        step = await site.takes(better)
        assert step.event is Event.HELD
        assert [s.deployment.revision for s in site.journal.history[before:]] == [3] * 5
    await line.kept(stream.names)


@asynchronous
async def test_pin_rollback_and_import_by_hand(site: Site, mosquitto: LocalBroker) -> None:
    async with on_the_line(site, mosquitto) as (line, stream):
        assert site.ask("rollback") == "there is no deployment before this one"
        assert (await site.takes(await site.offer(2))).event is Event.HELD
        assert site.ask("rollback") == ""
        await until(lambda: site.running() == 1 and site.journal.state is State.IDLE, "1 runs", 120)
        pinned = site.journal
        assert pinned.pinned
        third = await site.offer(3)
        assert site.ask("look", (site.folder / "fleet/repository").as_uri()) == ""
        assert (await site.ended(third)).event is Event.HELD
        # Who may only give words on verdicts cannot, what `edge deploy` can.
        unpin = msgspec.json.encode(Deployments("unpin")) + b"\n"
        refused = json.loads(await asyncio.to_thread(spoken, site.storage / WORDS, unpin))
        assert "words.sock takes" in refused["refusal"]
        assert site.journal.pinned
        assert site.ask("unpin") == ""
        after = site.journal
        assert not after.pinned
    await line.kept(stream.names)


@asynchronous
async def test_what_was_undone_leaves_a_rollback_what_ran_before_both(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto) as (line, stream):
        assert (await site.takes(await site.offer(2))).event is Event.HELD
        bad = await site.offer(3, policy(trapping_policy(6)), probation=20)
        assert (await site.takes(bad)).event is Event.FAILED
        assert site.running() == 2
        assert site.ask("rollback") == ""
        await until(lambda: site.running() == 1 and site.journal.state is State.IDLE, "1 runs", 120)
        name = line.inspect(0)
        stream.names.append(name)
        await line.status(
            lambda s: s["pipelines"]["pcb"]["deployment"]["revision"] == 1, "1 judges"
        )
    await line.kept(stream.names)


@asynchronous
async def test_a_rollback_during_probation_is_at_once(site: Site, mosquitto: LocalBroker) -> None:
    async with on_the_line(site, mosquitto) as (line, stream):
        second = await site.offer(2, probation=100_000)
        await site.look()
        await site.reaches(State.PROBATION)
        assert site.ask("rollback") == ""
        step = await site.ended(second)
        assert (step.event, site.running()) == (Event.WITHDRAWN, 1)
        await line.status(
            lambda s: s["pipelines"]["pcb"]["deployment"]["revision"] == 1, "1 judges again"
        )
    await line.kept(stream.names)


@pytest.mark.parametrize("state", [State.SHADOW, State.PROBATION])
@asynchronous
async def test_a_killed_daemon_goes_on_where_its_journal_stands(
    site: Site, mosquitto: LocalBroker, state: State
) -> None:
    rules = {"shadow": 100_000} if state is State.SHADOW else {"probation": 100_000}
    async with on_the_line(site, mosquitto, rate_hz=5) as (_line, _stream):
        await site.offer(2, **rules)
        await site.look()
        await site.reaches(state)
        running = site.running()
        site.daemon.kill()
        assert site.running() == running  # neither is lost
        site.daemon.start()
        if state is State.PROBATION:
            await until(lambda: site.journal.starts == 1, "the start is counted", 120)
        else:
            await until(
                lambda: [s.event for s in site.journal.history].count(Event.PROVED) == 3,
                "it is in shadow again",
                120,
            )
        assert (site.journal.state, site.running()) == (state, running)


@asynchronous
async def test_a_deployment_that_takes_the_daemon_down_has_three_starts(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=5) as (line, _stream):
        second = await site.offer(2, probation=100_000)
        await site.look()
        await site.reaches(State.PROBATION)
        for starts in range(1, 4):
            site.daemon.kill()
            site.daemon.start()
            await until(lambda starts=starts: site.journal.starts >= starts, "it starts")  # type: ignore[misc]
        site.daemon.kill()
        site.daemon.start()
        step = await site.ended(second)
        assert (step.reason, site.running()) == ("restarts", 1)
        await line.status(
            lambda s: s["counters"].get("deployments_failed{reason=restarts}") == 1, "it is counted"
        )


@asynchronous
async def test_workers_that_die_beside_and_under_a_rollout(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=20) as (line, stream):
        active = site.daemon.worker()
        second = await site.offer(2, shadow=100_000)
        await site.look()
        await site.reaches(State.SHADOW)
        (beside,) = [pid for pid in site.daemon.children() if pid != active]
        os.kill(beside, signal.SIGKILL)
        step = await site.ended(second)
        assert (step.reason, site.running()) == ("worker-lost", 1)
        third = await site.offer(3, probation=99)  # one verdict that it costs is too many
        await site.look()
        await site.reaches(State.PROBATION)
        status = await line.status(
            lambda s: s["pipelines"]["pcb"]["deployment"]["revision"] == 3, "3 judges"
        )
        worker = status["pipelines"]["pcb"]["worker_pid"]
        os.kill(worker, signal.SIGSTOP)  # that it dies with a part at work
        line_sent = len(stream.names)
        await until(lambda: len(stream.names) > line_sent + 4, "parts are with it")
        os.kill(worker, signal.SIGKILL)
        step = await site.ended(third)
        assert (step.event, step.reason) == (Event.FAILED, "worker-lost"), step
        await line.status(
            lambda s: s["pipelines"]["pcb"]["deployment"]["revision"] == 1, "1 judges again"
        )
    await line.all_verdicts(stream.names)


@asynchronous
async def test_a_worker_that_dies_again_and_again_without_a_frame_is_a_finding(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=5):
        second = await site.offer(2, probation=100_000)
        await site.look()
        await site.reaches(State.PROBATION)
    killed = [0]
    async with line_to(mosquitto, wait=False) as line:  # it stands: no verdict tells of this
        for _ in range(2):
            said = await line.status(
                lambda s: (
                    s["pipelines"]["pcb"]["worker_pid"] not in killed
                    and s["pipelines"]["pcb"]["deployment"]["revision"] == 2
                ),
                "another worker of 2 stands",
            )
            killed.append(said["pipelines"]["pcb"]["worker_pid"])
            os.kill(killed[-1], signal.SIGKILL)
    step = await site.ended(second)
    assert (step.event, step.reason) == (Event.FAILED, "worker-lost"), step
    assert "lost 2 times, 1 may be" in step.detail
    assert site.running() == 1


@asynchronous
async def test_pipelines_come_and_go_with_their_deployment(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto, rate_hz=5) as (line, stream):
        assert (await site.takes(await site.offer(2, doubled))).event is Event.HELD
        await line.status(lambda s: sorted(s["pipelines"]) == ["pcb", "second"], "both")
        name = stream.names[-1]
        await line.verdict(line.inspect(1), "second")
        assert (await site.takes(await site.offer(3))).event is Event.HELD
        await line.status(lambda s: sorted(s["pipelines"]) == ["pcb"], "one")
        await line.verdict(name)
    await line.kept(stream.names)


@asynchronous
async def test_a_first_deployment_that_fails_leaves_an_empty_device_that_takes_the_next(
    site: Site, mosquitto: LocalBroker
) -> None:
    bad = await site.offer(1, policy(trapping_policy(6)), probation=20)
    site.daemon.start()
    async with line_to(mosquitto, wait=False) as line, streaming(line):
        step = await site.ended(bad)
        assert (step.reason, site.running()) == ("guest-trap", 0), step
        assert (await site.takes(await site.offer(2))).event is Event.HELD
        await line.box_ready()


@asynchronous
async def test_an_active_deployment_whose_files_are_lost_is_fetched_anew(
    site: Site, mosquitto: LocalBroker
) -> None:
    async with on_the_line(site, mosquitto):
        site.daemon.kill()
        (folder,) = (site.storage / "deployments/deployments").iterdir()
        (folder / "guests/policy.wasm").unlink()
        (folder / "guests/policy.wasm").write_bytes(b"damaged")
    site.daemon.start()
    async with line_to(mosquitto, client_id="again") as line:
        await line.verdict(line.inspect(0))
        assert site.running() == 1


@asynchronous
async def test_a_rollout_goes_on_without_the_broker_for_a_while(
    tmp_path: Path,
) -> None:
    require_mosquitto()
    async with LocalBroker(kind="mosquitto") as broker:
        with ending(Site(tmp_path, broker)) as site:
            async with on_the_line(site, broker) as (_line, _stream):
                second = await site.offer(2)
                await site.look()
                await site.reaches(State.SHADOW)
                port = broker.port
                await broker.__aexit__()
            assert site.journal.state is State.SHADOW
            async with (
                LocalBroker(kind="mosquitto", port=port) as again,
                line_to(again, client_id="later") as line,
                streaming(line),
            ):
                assert (await site.ended(second)).event is Event.HELD


def test_the_edits_of_this_file_match(tmp_path: Path) -> None:
    folder = deployment(tmp_path / "d", 7, edited("^budget_ms = 200", "budget_ms = 150"))
    assert "revision = 7" in (folder / "manifest.toml").read_text()
