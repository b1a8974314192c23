"""Sabotaged deployments: each is refused or undone with its reason, and the line sees nothing.

`EDGE_SABOTAGE=all` (`make sabotage`) plays every kind; otherwise it is a representative dozen.
"""

import asyncio
import os
from pathlib import Path

import pytest
from sabotage import KINDS, SHORT, Kind
from updating import Site, asynchronous, deployment, ending, on_the_line

from edge.deployment.rollout import Event
from edge.errors import EdgeError
from edge.mqtt.brokers import LocalBroker

ALL = os.environ.get("EDGE_SABOTAGE") == "all"
CHOSEN = tuple(KINDS) if ALL else SHORT


def _build(site: Site, name: str, revision: int) -> Path:
    kind = KINDS[name]
    return deployment(
        site.folder / name,
        revision,
        *kind.changes,
        shadow=kind.shadow,
        probation=kind.probation,
        pinned=kind.pinned,
    )


def test_there_are_at_least_forty_kinds() -> None:
    assert len(KINDS) >= 40
    assert set(SHORT) <= set(KINDS)


@pytest.mark.parametrize("name", [name for name in CHOSEN if not KINDS[name].reasons])
def test_the_publisher_refuses(name: str, tmp_path: Path, mosquitto: LocalBroker) -> None:
    site = Site(tmp_path, mosquitto)
    with pytest.raises(EdgeError):
        site.publish(_build(site, name, 2))
    assert site.fleet.releases("line-a").releases == ()


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mixed", [False, True])
@asynchronous
async def test_the_device_refuses_or_undoes(
    mixed: bool, tmp_path: Path, mosquitto: LocalBroker
) -> None:
    names = [n for n in CHOSEN if KINDS[n].reasons and KINDS[n].mixed == mixed]
    if not names:
        pytest.skip("make sabotage plays these")
    wrong = {}
    found = tmp_path / "found.txt"
    with ending(Site(tmp_path, mosquitto)) as site:
        async with on_the_line(site, mosquitto, 12.0, bad_every=2 if mixed else 0) as (line, parts):
            for revision, name in enumerate(names, start=2):
                kind: Kind = KINDS[name]
                try:
                    digest = await asyncio.to_thread(
                        lambda name=name, revision=revision: site.publish(  # type: ignore[misc]
                            _build(site, name, revision)
                        )
                    )
                except EdgeError as refused:
                    wrong[name] = (Event.OFFERED, "by the publisher", str(refused))
                    continue
                step = await site.takes(digest)
                with found.open("a") as lines:
                    lines.write(f"{name:28} {step.reason:14} {step.detail}\n")
                if (step.event, site.running()) != (Event.FAILED, 1) or (
                    step.reason not in kind.reasons
                ):
                    wrong[name] = (step.event, step.reason, step.detail)
                await line.status(
                    lambda s: s["pipelines"]["pcb"]["deployment"]["revision"] == 1, "1 judges"
                )
        assert not wrong
        await line.all_verdicts(parts.names)
        assert line.broken_promises(parts.names) == []
