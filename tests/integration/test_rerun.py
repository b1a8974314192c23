"""Verdicts of the real daemon, computed again from its ledger and the frames that it kept.

A module's daemon judges 100 boards, its worker killed in between; the tests then replay its state
directory, whole or with one thing changed, as a person would: by `edge ledger replay`.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from brokers import require_mosquitto
from daemons import DEPLOYMENT, TIMED_LAMP, Daemon, line_to
from deployments import copy_of

from edge.cli.main import main
from edge.mqtt.brokers import LocalBroker

BOARDS = 100
DEFECTS: tuple[tuple[str, ...], ...] = ((), (), ("open",), (), ("short", "spur"))
OVERRIDES = (
    "status.interval_s=0.5",
    "ledger.frames.pass_share=1.0",
    "ledger.frames.min_free_bytes=0",
    TIMED_LAMP,
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a daemon that judged `BOARDS` boards and was stopped."""
    require_mosquitto()
    folder = tmp_path_factory.mktemp("rerun")
    # A policy that remembers: from the third reject in a row on it stops the line.
    deployment = copy_of(
        DEPLOYMENT,
        folder / "made",
        (
            r"^reject_action = .*$",
            'line_stop_after = 3\nline_stop_action = { name = "action.reject" }',
        ),
    )
    asyncio.run(_judge_boards(folder, deployment))
    return folder / "state"


async def _judge_boards(folder: Path, deployment: Path) -> None:
    async with LocalBroker(kind="mosquitto") as broker:
        with Daemon(broker, folder, deployment=deployment, overrides=OVERRIDES) as daemon:
            async with line_to(broker) as line:
                for number in range(BOARDS):
                    if number % 10 == 0:
                        line.lamp(0.3 if number % 40 == 10 else 0.9)
                    if number == BOARDS // 2:
                        os.kill(daemon.worker(), signal.SIGKILL)
                        await asyncio.to_thread(daemon.logged, "pipeline_ready", times=2)
                    name = line.inspect(
                        number % 8, defects=DEFECTS[number % 5], part_id=f"part-{number}"
                    )
                    await line.verdict(name)
                await line.status(
                    lambda s: s["ledger"].get("committed") == BOARDS, "all are recorded"
                )
                assert await asyncio.to_thread(daemon.end) == 0


@pytest.fixture
def replayed(capsys: pytest.CaptureFixture[str], state: Path) -> Any:
    """Runs `edge ledger replay` and returns its status and what it found."""

    def run(
        *words: str, folder: Path = state, deployment: Path | None = None
    ) -> tuple[int, dict[str, Any]]:
        where = deployment or state.parent / "patient"
        capsys.readouterr()
        status = main(
            ["ledger", "replay", str(folder), *words, "--json", "--deployment", str(where)]
        )
        return status, json.loads(capsys.readouterr().out)

    return run


def _differences(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """What of a kind differs, by name, in the one record that was replayed."""
    (record,) = found["records"]
    return {each["what"]: each for each in record["differences"] if each["kind"] == kind}


def _place(state: Path, verdict: str, reason: str) -> int:
    """The first record with this verdict and reason."""
    for seq in range(1, BOARDS + 1):
        record = _record(state, seq)
        if (record["verdict"], record["reason"]) == (verdict, reason):
            return seq
    raise AssertionError(f"no record of a {verdict} for {reason}")


def test_a_hundred_boards_are_identical_bit_for_bit_across_a_worker_restart(
    replayed: Any,
) -> None:
    status, found = replayed("--last", str(BOARDS))
    wrong = [each for each in found["records"] if each["status"] != "identical"]
    assert (status, wrong) == (0, [])
    assert found["sum"]["identical"] == BOARDS
    kinds = {each["recorded"]["verdict"] for each in found["records"]}
    assert kinds == {"pass", "reject", "review"}
    reasons = {each["recorded"]["reason"] for each in found["records"]}
    assert "lamp-failure" in reasons


def test_a_changed_parameter_is_named_with_its_distance_and_the_verdicts_that_move(
    replayed: Any,
) -> None:
    status, found = replayed(
        "--last", "30", "--set", "pipelines.pcb.decide.parameters.reject=0.999"
    )
    assert status == 1
    assert found["sum"]["differs"] == 30
    named = {
        (each["what"], each["recorded"], each["here"])
        for record in found["records"]
        for each in record["differences"]
        if each["kind"] == "parameter"
    }
    assert named == {("decide.reject", "0.62", "0.999")}
    assert found["sum"]["moved"]["reject to review"] > 0


def test_a_changed_parameter_in_the_deployment_is_named_too(
    replayed: Any, state: Path, tmp_path: Path
) -> None:
    other = copy_of(state.parent / "patient", tmp_path / "other", (r"^score = 0\.5", "score = 0.4"))
    status, found = replayed("--seq", "1", deployment=other)
    assert status == 1
    assert _differences(found, "parameter")["postprocess.score"]["by"] == pytest.approx(-0.1)
    assert set(_differences(found, "deployment")) == {"manifest"}


def test_one_byte_of_a_guest_is_named(replayed: Any, state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(state.parent / "patient", other)
    guest = other / "guests" / "policy.wasm"
    # An empty custom section: another digest, the same code.
    guest.write_bytes(guest.read_bytes() + b"\x00\x02\x01x")
    other = copy_of(other, tmp_path / "pinned")
    status, found = replayed("--seq", "1", deployment=other)
    assert status == 1
    assert set(_differences(found, "deployment")) == {"manifest", "decide"}
    assert _differences(found, "verdict") == {}


def test_another_model_is_named_and_the_scores_move(
    replayed: Any, state: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(state.parent / "patient", other)
    model = other / "model" / "model.int8.onnx"
    content = bytearray(model.read_bytes())
    _bend_weights(content)
    model.write_bytes(content)
    _repin_model(other, bytes(content))
    seq = _place(state, "reject", "defect")
    status, found = replayed("--seq", str(seq), deployment=copy_of(other, tmp_path / "pinned"))
    assert status == 1
    assert {"manifest", "model"} <= set(_differences(found, "deployment"))
    assert _differences(found, "verdict")


def _bend_weights(content: bytearray) -> None:
    """Turn some bits in the largest initializer."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(bytes(content))
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = numpy_helper.to_array(largest).copy()
    flat = weights.reshape(-1)
    flat[::7] = flat[::7] // 2 if weights.dtype.kind in "iu" else flat[::7] * 0.5
    largest.CopyFrom(numpy_helper.from_array(weights, largest.name))
    content[:] = model.SerializeToString()


def _repin_model(folder: Path, content: bytes) -> None:
    import hashlib

    card = folder / "model" / "model.toml"
    text = card.read_text()
    old = re.search(r'file = "model\.int8\.onnx"\s+sha256 = "([0-9a-f]{64})"', text)
    assert old is not None
    card.write_text(text.replace(old[1], hashlib.sha256(content).hexdigest()))


def test_a_changed_signal_is_named(replayed: Any, state: Path) -> None:
    seq = _place(state, "pass", "ok")
    status, found = replayed("--seq", str(seq), "--set", "signals.signal.lamp=0.1")
    assert status == 1
    assert set(_differences(found, "input")) == {"signal signal.lamp"}
    assert _differences(found, "verdict")["verdict"]["here"] == "review"


@pytest.mark.parametrize(
    ("wish", "missed"),
    [
        ("signals.lamp=0.1", "signals.lamp"),
        ("pipelines.pbc.decide.parameters.reject=0.6", "pipelines.pbc"),
    ],
)
def test_a_wish_that_has_no_place_is_refused(
    state: Path, wish: str, missed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seq = _place(state, "pass", "ok")
    where = ["--deployment", str(state.parent / "patient")]
    words = ["ledger", "replay", str(state), "--seq", str(seq), *where, "--set", wish]
    assert main(words) == 78
    said = capsys.readouterr().err
    assert f"these records know no {missed}" in said
    assert "they know pipelines.pcb, signals.signal.lamp" in said


@pytest.mark.parametrize("what", ["frame", "reference"])
def test_one_altered_byte_of_a_kept_image_is_named(
    replayed: Any, state: Path, tmp_path: Path, what: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    digest = _record(copy, 1)["digests"][what]
    file = copy / "ledger" / "frames" / digest[:2] / digest
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    status, found = replayed("--seq", "1", folder=copy)
    assert status == 1
    assert found["records"][0]["status"] == "missing"
    assert _differences(found, "input")[what]["note"] == "altered since"
    file.unlink()
    _, found = replayed("--seq", "1", folder=copy)
    assert _differences(found, "input")[what]["note"] == "not kept"


def test_an_altered_record_is_named(replayed: Any, state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    database = sqlite3.connect(copy / "ledger" / "ledger.db")
    (body,) = database.execute("SELECT body FROM record WHERE seq=2").fetchone()
    database.execute(
        "UPDATE record SET body=? WHERE seq=2", (body.replace(b'"age_ns":', b'"age_ns":1'),)
    )
    database.commit()
    database.close()
    status, found = replayed("--seq", "2", folder=copy)
    assert status == 1
    assert "record 2" in _differences(found, "input")


def test_the_recorded_state_decides_and_not_the_order_of_replay(replayed: Any, state: Path) -> None:
    """The policy counts rejects: replayed alone, a record finds the state that it had."""
    states = {_record(state, seq)["digests"]["state"] for seq in range(1, BOARDS + 1)}
    assert len(states) > 2, "the policy's state did change"
    for seq in (BOARDS, BOARDS // 2 + 1, 3):
        assert replayed("--seq", str(seq))[0] == 0


def test_without_its_deployment_the_missing_digests_are_told(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "replay", str(state), "--seq", "1"]) == 1
    told = capsys.readouterr().out
    recorded = _record(state, 1)
    for digest in (recorded["deployment"]["digest"], recorded["digests"]["model"]):
        assert f"{digest} recorded, not here" in told


def _record(state: Path, seq: int) -> dict[str, Any]:
    database = sqlite3.connect(state / "ledger" / "ledger.db")
    (body,) = database.execute("SELECT body FROM record WHERE seq=?", (seq,)).fetchone()
    database.close()
    found: dict[str, Any] = json.loads(body)
    return found


def test_the_recorded_deployment_is_found_where_updates_put_it(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    digest = _record(state, 1)["deployment"]["digest"]
    shutil.copytree(state.parent / "patient", copy / "updates" / "deployments" / digest)
    assert main(["ledger", "replay", str(copy), "--seq", "1"]) == 0
    assert "1 record: 1 identical" in capsys.readouterr().out


def test_a_provider_that_is_not_here_is_named(replayed: Any) -> None:
    status, found = replayed("--seq", "1", "--provider", "cuda")
    assert status == 1
    assert "cannot stand here" in _differences(found, "runtime")["provider"]["note"]


def test_what_ran_it_is_recorded(state: Path) -> None:
    runtime = _record(state, 1)["runtime"]
    assert runtime["threads"] == 1
    assert {"onnxruntime", "wasmtime", "opencv", "simplejpeg", "machine"} <= set(
        runtime["versions"]
    )
    assert "unknown" not in runtime["versions"].values()


def test_a_wish_that_the_guest_does_not_take_is_refused_with_its_name(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = ("--deployment", str(state.parent / "patient"))
    wish = ("--set", "pipelines.pcb.decide.parameters.rejct=0.5")
    assert main(["ledger", "replay", str(state), "--seq", "1", *deployment, *wish]) == 1
    assert "rejct" in capsys.readouterr().err
    assert main(["ledger", "replay", str(state), "--seq", "1", *deployment, "--set", "x=1"]) == 78
