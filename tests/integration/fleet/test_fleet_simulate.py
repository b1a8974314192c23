"""A simulated fleet: publisher, repository, fetch, journal, broker and reports are real."""

import asyncio
from pathlib import Path

import pytest
from brokers import require_mosquitto

from edge.cli.main import main
from edge.deployment.release import position
from edge.fleet.publisher.rollout import End
from edge.fleet.simulation.fleet import GROUP, simulate
from edge.fleet.simulation.scenario import Result, Scenario, Standing

DEVICES = 30
SMALL = {"devices": DEVICES, "poll_s": 2.0, "stage_s": 0.05, "steps": (10.0, 100.0)}


def play(folder: Path, **terms: object) -> tuple[Result, list[Standing]]:
    require_mosquitto()
    told: list[Standing] = []
    scenario = Scenario(**{**SMALL, **terms})  # type: ignore[arg-type] # of one name each
    return asyncio.run(simulate(scenario, folder, told.append)), told


@pytest.mark.timeout(180)
def test_a_good_release_reaches_every_device_and_a_bad_one_no_more_than_its_first_ring(
    tmp_path: Path,
) -> None:
    result, told = play(tmp_path, bad_share=1.0)
    assert result.findings == []
    good, bad = result.rollouts
    assert (good.end, good.ran, good.on, good.reverted) == (End.REACHED, DEVICES, DEVICES, 0)
    first = sum(position(GROUP, f"sim-{n + 1:05}") < 10 for n in range(DEVICES))
    assert 0 < first < DEVICES / 2
    assert bad.end is End.HALTED
    assert (bad.percent, bad.on) == (10.0, 0)
    assert 0 < bad.ran == bad.reverted <= first
    assert bad.untouched >= DEVICES - first
    assert result.polls.bytes_each <= 1_000
    assert 50_000 < good.fetched.bytes_each <= good.fetched.bytes_most <= 60_000
    phases = list(dict.fromkeys(standing.phase for standing in told))
    assert phases == ["devices report", "each looks once", "revision 2, good", "revision 3, bad"]


@pytest.mark.timeout(180)
def test_control_without_a_threshold_a_bad_release_reaches_every_device(tmp_path: Path) -> None:
    result, _ = play(tmp_path, devices=12, bad_share=1.0, max_failed_percent=100.0)
    (_, bad) = result.rollouts
    assert (bad.end, bad.ran) == (End.REACHED, 12)
    (finding,) = result.findings
    assert "revision 3 is bad, and was not halted" in finding


@pytest.mark.parametrize(
    ("argument", "value"),
    [("--devices", "0"), ("--devices", "1000000"), ("--bad-share", "1.5"), ("--poll-s", "0")],
)
def test_terms_out_of_their_bounds_are_named_with_them(
    argument: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "simulate", argument, value]) == 78
    assert f"{argument}: is {float(value):g}; expected" in capsys.readouterr().err
