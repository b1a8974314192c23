"""The reference cascade in the real daemon, through a real Mosquitto, and again from its ledger."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from brokers import require_mosquitto
from cascades import CASCADE, ROOMY, TRAPS_IN_THE_LIGHT, with_guest
from daemons import Daemon, line_to
from guest_wat import assemble, guest

from edge.cli.main import main
from edge.mqtt.brokers import LocalBroker

BOARDS: tuple[tuple[str, ...], ...] = (
    (),
    ("short",),
    ("open", "spur", "mousebite", "copper", "pin-hole"),
    (),
    ("spur", "copper"),
)
OVERRIDES = (
    "status.interval_s=0.5",
    "ledger.frames.pass_share=1.0",
    "ledger.frames.min_free_bytes=0",
)
REFINED = {"refine_preprocess", "refine_infer", "refine_postprocess"}


class Played:
    """What a line saw of a daemon that judged `BOARDS`, and what the daemon left."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.deployment = CASCADE
        self.verdicts: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    require_mosquitto()
    folder = tmp_path_factory.mktemp("cascade")
    return asyncio.run(_play(folder))


async def _play(folder: Path) -> Played:
    made = Played(folder)
    async with LocalBroker(kind="mosquitto") as broker:
        with Daemon(broker, folder, deployment=CASCADE, overrides=OVERRIDES) as daemon:
            assert daemon.deployment is not None
            made.deployment = daemon.deployment
            async with line_to(broker) as line:
                for number, defects in enumerate(BOARDS):
                    name = line.inspect(number, defects=defects, part_id=f"part-{number}")
                    made.verdicts.append(await line.verdict(name))
                made.status = await line.status(
                    lambda s: s["ledger"].get("committed") == len(BOARDS), "all are recorded"
                )
                assert await asyncio.to_thread(daemon.end) == 0
    return made


def test_boards_are_judged_by_two_models_and_kinds_are_those_that_were_drawn(
    played: Played,
) -> None:
    for defects, verdict in zip(BOARDS, played.verdicts, strict=True):
        assert verdict["verdict"] == ("reject" if defects else "pass")
        assert sorted(each["class"] for each in verdict["defects"]) == sorted(defects)
        assert verdict["provider"] == "cpu"


def test_verdicts_tell_the_second_models_time_where_it_looked_at_something(
    played: Played,
) -> None:
    for defects, verdict in zip(BOARDS, played.verdicts, strict=True):
        assert REFINED & verdict["latency_ms"].keys() == (REFINED if defects else set())


def test_the_status_names_both_models_and_counts_the_crops(played: Played) -> None:
    pipeline = played.status["pipelines"]["pcb"]
    assert len(set(pipeline["models"])) == 2
    crops = played.status["counters"]["crops_judged{pipeline=pcb}"]
    assert crops == sum(map(len, BOARDS))


def test_every_verdict_comes_again_from_the_ledger_bit_for_bit(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = _replay(played, capsys, "--last", str(len(BOARDS)))
    wrong = [each for each in found["records"] if each["status"] != "identical"]
    assert (status, wrong) == (0, [])
    assert found["sum"]["identical"] == len(BOARDS)


def test_a_changed_parameter_of_the_second_model_is_named_and_moves_the_verdict(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = "pipelines.pcb.refine.postprocess.parameters.score.default=1.0"
    status, found = _replay(played, capsys, "--seq", "2", "--set", wish)
    (record,) = found["records"]
    assert status == 1
    named = {(each["kind"], each["what"]) for each in record["differences"]}
    # Unsure of every kind, the classifier names nothing, and the detector's score stands alone.
    assert ("parameter", "refine.postprocess.score.default") in named
    assert ("verdict", "defect 1 score") in named


def _replay(
    played: Played, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    where = ("--json", "--deployment", str(played.deployment))
    status = main(["ledger", "replay", str(played.state), *words, *where])
    return status, json.loads(capsys.readouterr().out)


def test_a_crop_guest_that_traps_costs_the_fail_safe_and_the_next_board_is_judged(
    tmp_path: Path,
) -> None:
    require_mosquitto()
    wasm = assemble(guest(memory=ROOMY, preprocess=TRAPS_IN_THE_LIGHT))
    deployment = with_guest(tmp_path / "trapping", "preprocess", wasm)
    told = asyncio.run(_verdicts(tmp_path, deployment, ((), ("short",), (), ("spur",), ())))
    assert told == [
        *(("pass", "ok"), ("review", "guest-trap")),
        *(("pass", "ok"), ("review", "guest-trap")),
        ("pass", "ok"),
    ]


async def _verdicts(
    folder: Path, deployment: Path, boards: tuple[tuple[str, ...], ...]
) -> list[tuple[str, str]]:
    told = []
    async with LocalBroker(kind="mosquitto") as broker:
        with Daemon(broker, folder, deployment=deployment) as daemon:
            async with line_to(broker) as line:
                for number, defects in enumerate(boards):
                    verdict = await line.verdict(line.inspect(number, defects=defects))
                    told.append((verdict["verdict"], verdict["reason"]))
            assert await asyncio.to_thread(daemon.end) == 0
    return told
