"""`edge doctor` on real brokers, disks and models, sound ones and ones that are at fault."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brokers import connected, require_mosquitto, running_broker
from daemons import CONFIG, DEPLOYMENT, with_patience

from edge.cli.main import main
from edge.config import DeviceConfig, parse
from edge.doctor import broker as doctor_broker
from edge.doctor import engines
from edge.doctor.check import Check, Outcome
from edge.mqtt.brokers import LocalBroker

CLONE_NEWNS = 0x20000
MS_PRIVATE_ALL = 1 << 18 | 1 << 14
GONE = 9


@pytest.fixture(scope="module")
def sound_broker() -> Iterator[LocalBroker]:
    require_mosquitto()
    with running_broker(kind="mosquitto") as started:
        yield started


def settings(broker: LocalBroker, **more: Any) -> DeviceConfig:
    document = {
        "broker": {"host": broker.host, "port": broker.port, **more},
        "bindings": {"camera": {"top": "line/top/frame"}, "signal": {"lamp": "line/lamp"}},
    }
    return parse(document, "test")


def looked(config: DeviceConfig, wait_s: float | None = None) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(doctor_broker.examine(config, wait_s))}


def outcome(check: Check) -> str:
    return f"{check.outcome}: {check.said}"


def examined(
    broker: LocalBroker, folder: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, dict[str, str]]]:
    sets = (f"broker.port={broker.port}", f"storage.path={folder / 'state'}")
    words = [word for each in sets for word in ("--set", each)]
    status = main(["doctor", "--config", str(CONFIG), *words, "--json", *more])
    checks = json.loads(capsys.readouterr().out)["checks"]
    return status, {check["name"]: check for check in checks}


def test_a_sound_box_has_no_finding(
    sound_broker: LocalBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # How long its model takes on this machine is not this test's business.
    patient = with_patience(DEPLOYMENT, tmp_path / "patient")
    status, checks = examined(
        sound_broker, tmp_path, capsys, "--deployment", str(patient), "--set", "log.level=debug"
    )
    findings = [check for check in checks.values() if check["outcome"] == "finding"]
    # What a busy test machine may truly have is not this test's business.
    assert {check["name"] for check in findings} <= {
        "broker.round-trip",
        "broker.verdicts",
        "clock",
        "storage.fsync",
    }
    assert status == int(bool(findings))
    for name in ("broker.reachable", "broker.rights", "model.pcb", "wasm.compile", "deployment"):
        assert checks[name]["outcome"] == "ok", checks[name]
    assert "speaks MQTT 5" in checks["broker.reachable"]["said"]
    assert "runs on cpu" in checks["model.pcb"]["said"]
    assert checks["camera.top"]["outcome"] == "could-not-check"


def test_each_finding_is_shown_with_its_remedy(
    sound_broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", f"broker.port={sound_broker.port}", "--set", "storage.path=/proc/nowhere"]
    assert main(["doctor", "--config", str(CONFIG), *words, "--wait", "0.1"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "finding camera.top no frame on line/top/frame in 0.1 s → is the line running" in said
    assert "finding storage.writable /proc/nowhere" in said


def test_an_unsound_config_is_a_finding_and_the_box_is_examined_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edge.toml").write_text("[broker]\nprot = 1\n")
    assert main(["doctor", "--config", str(tmp_path / "edge.toml"), "--json"]) == 1
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["config"]["outcome"] == "finding"
    assert "did you mean 'port'" in checks["config"]["said"]
    assert "memory" in checks
    assert "broker.reachable" not in checks


def test_a_deployment_whose_model_is_random_bytes_is_a_finding(
    sound_broker: LocalBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = tmp_path / "deployment"
    shutil.copytree(DEPLOYMENT, spoilt)
    (model,) = spoilt.rglob("*.onnx")
    model.write_bytes(np.random.default_rng(1).bytes(50_000))
    status, checks = examined(sound_broker, tmp_path, capsys, "--deployment", str(spoilt))
    assert status == 1
    assert checks["deployment"]["outcome"] == "finding"
    assert model.name in checks["deployment"]["said"]


# The broker


def test_a_stopped_broker_is_a_finding_and_the_rest_is_unseen() -> None:
    require_mosquitto()
    with asyncio.Runner() as runner, running_broker(kind="mosquitto") as broker:
        runner.run(broker.kill())
        checks = looked(settings(broker))
    assert checks["broker.reachable"].outcome is Outcome.FINDING
    assert f"127.0.0.1:{broker.port}" in checks["broker.reachable"].said
    others = [check for name, check in checks.items() if name != "broker.reachable"]
    assert others
    assert {check.outcome for check in others} == {Outcome.UNKNOWN}


@pytest.mark.parametrize(
    ("rules", "protocol", "said"),
    [
        ("topic read edge/box1/#", "5", "refuses publications to edge/box1/doctor"),
        ("topic read edge/box1/#", "3.1.1", "did not deliver it"),
        ("topic write edge/box1/#", "5", "did not deliver it"),
    ],
    ids=["may not write", "may not write, 3.1.1", "may not read"],
)
def test_rights_that_are_not_granted_are_a_finding(
    tmp_path: Path, rules: str, protocol: str, said: str
) -> None:
    require_mosquitto()
    (tmp_path / "acl").write_text(f"{rules}\ntopic read line/#\n")
    lines = [f"acl_file {tmp_path / 'acl'}"]
    with running_broker(kind="mosquitto", settings=lines) as broker:
        checks = looked(settings(broker, protocol=protocol))
    assert checks["broker.reachable"].outcome is Outcome.OK
    assert checks["broker.rights"].outcome is Outcome.FINDING
    assert said in checks["broker.rights"].said
    assert "topic readwrite edge/box1/#" in checks["broker.rights"].remedy
    assert checks["broker.round-trip"].outcome is Outcome.UNKNOWN


def test_a_message_larger_than_the_broker_takes_is_a_finding() -> None:
    require_mosquitto()
    lines = ["message_size_limit 20000"]
    with running_broker(kind="mosquitto", settings=lines) as broker:
        checks = looked(settings(broker))
    assert checks["broker.rights"].outcome is Outcome.OK
    assert checks["broker.round-trip"].outcome is Outcome.FINDING
    assert "message_size_limit" in checks["broker.round-trip"].remedy


@pytest.mark.parametrize("nodelay", [True, False])
def test_a_broker_that_holds_small_messages_back_is_found(nodelay: bool) -> None:
    require_mosquitto()
    with running_broker(kind="mosquitto", nodelay=nodelay) as broker:
        checks = looked(settings(broker))
    held = checks["broker.verdicts"]
    if nodelay:
        assert held.said.startswith("from one client's word"), outcome(held)  # how long: the box's
    else:
        assert held.outcome is Outcome.FINDING, outcome(held)
        assert "set_tcp_nodelay true" in held.remedy
        # One client's own messages hide it: so there must be two.
        assert "median" in checks["broker.round-trip"].said


def test_the_embedded_broker_speaks_3_1_1_and_passes(embedded_broker: LocalBroker) -> None:
    checks = looked(settings(embedded_broker, protocol="3.1.1"))
    assert checks["broker.reachable"].said.endswith("speaks MQTT 3.1.1")
    assert checks["broker.rights"].outcome is Outcome.OK
    assert "KB at QoS 1" in checks["broker.round-trip"].said
    assert "median" in checks["broker.verdicts"].said


def test_a_frame_that_comes_makes_its_camera_alive_and_a_retained_one_does_not(
    sound_broker: LocalBroker,
) -> None:
    async def scenario() -> dict[str, Check]:
        async with connected(sound_broker, "camera") as camera:
            await camera.publish("line/top/frame", b"old", retain=True)
            examining = asyncio.create_task(doctor_broker.examine(settings(sound_broker), 0.1))
            before = {check.name: check for check in await examining}
            assert before["camera.top"].outcome is Outcome.FINDING, before["camera.top"].said
            examining = asyncio.create_task(doctor_broker.examine(settings(sound_broker), 20.0))
            while not examining.done():
                await camera.publish("line/top/frame", b"frame")
            await camera.publish("line/top/frame", b"", retain=True)
            return {check.name: check for check in await examining}

    check = asyncio.run(scenario())["camera.top"]
    assert check.outcome is Outcome.OK
    assert "alive" in check.said


# The disk and the engines


def test_a_full_disk_is_a_finding(tmp_path: Path) -> None:
    """On a file system of its own, in a mount namespace of its own; needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a full tmpfs needs root")
    script = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare({CLONE_NEWNS}) or libc.mount(b"none", b"/", None, {MS_PRIVATE_ALL}, None):
    sys.exit({GONE})
path = {str(tmp_path)!r}
if libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, b"size=64k"):
    sys.exit({GONE})
with open(path + "/filling", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
from pathlib import Path
from edge.doctor.disk import storage
for check in storage(Path(path)):
    print(check.name, check.outcome, check.said, "|", check.remedy)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    if done.returncode == GONE:
        pytest.skip("this sandbox lets no one mount a file system")
    assert done.returncode == 0, done.stderr
    assert "storage.writable finding" in done.stdout
    assert "No space left on device" in done.stdout
    assert "storage.free finding" in done.stdout
    assert "storage.fsync could-not-check" in done.stdout


def test_a_provider_that_is_not_offered_is_a_finding() -> None:
    wanted = parse({"inference": {"provider": "openvino"}}, "test").inference
    check = engines.provider(wanted)
    if "openvino" in check.said.split(";")[0]:
        pytest.skip("this ONNX Runtime has OpenVINO")
    assert check.outcome is Outcome.FINDING
    assert "the config asks for openvino" in check.said
    honest = engines.provider(parse({"inference": {"provider": "cpu"}}, "test").inference)
    assert honest.outcome is Outcome.OK


def test_a_process_that_may_not_make_machine_code_is_a_finding() -> None:
    """Under what MemoryDenyWriteExecute= asks of the kernel (PR_SET_MDWE, Linux 6.3)."""
    script = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(9)
from edge.doctor.engines import guests
check = guests(())
print(check.outcome, check.said, check.remedy)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    if done.returncode == GONE:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.stdout.startswith("finding"), done.stdout + done.stderr
    assert "MemoryDenyWriteExecute" in done.stdout


def test_the_doctor_carries_no_engine() -> None:
    code = (
        "import sys, edge.doctor.examination; print(sorted("
        "{'onnxruntime', 'wasmtime', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
