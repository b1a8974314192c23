"""From start to end: ready when it is, gone when it goes, and never silently wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import until
from crashes import killed_aside
from daemons import CONFIG, DEPLOYMENT, ROOT, Daemon, Line, line_to
from deployments import copy_of, with_policy
from evil_guests import ENDLESS, policy, probe_trapping_policy

from edge.deployment.installed import FOLDER
from edge.mqtt.brokers import LocalBroker

QUICK = ("status.interval_s=0.5",)


async def state(line: Line, wanted: str, detail: str = "") -> None:
    """Wait until the box's status says so."""
    await line.status(
        lambda s: s["state"] == wanted and detail in s.get("detail", ""), f"the box is {wanted}"
    )


def test_ready_is_said_after_the_probe_went_through(mosquitto: LocalBroker, tmp_path: Path) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, wait=False) as line:
            daemon.start()  # now that somebody listens
            await line.box_ready()
            states = [status["ready"] for status in line.statuses]
            assert states[0] is False
            status = line.statuses[-1]
            assert status["pipelines"]["pcb"]["provider"] == "cpu"
            assert status["pipelines"]["pcb"]["trouble"] == ""
            assert status["mqtt"]["protocol"] == "5"
            daemon.logged("ready")  # a moment after the status
            events = [entry.get("event") for entry in daemon.events()]
            assert events.index("pipeline_ready") < events.index("ready")
            assert daemon.events("pipeline_ready")[0]["probe_ms"]["infer"] > 0

    daemon = Daemon(mosquitto, tmp_path, overrides=QUICK)
    try:
        asyncio.run(scenario(daemon))
    finally:
        daemon.__exit__()


def test_a_pipeline_whose_probe_fails_is_never_ready_and_its_frames_are_answered(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    deployment = with_policy(DEPLOYMENT, tmp_path / "deployment", probe_trapping_policy())

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto, wait=False) as line:
            await line.status(
                lambda s: "the probe frame failed: guest-trap" in str(s.get("pipelines")),
                "the status says what is wrong",
            )
            name = line.inspect(0)
            assert await line.kept([name]) == {"not-ready": 1}
            assert not any(status["ready"] for status in line.statuses)
            # It is tried again and again, but not in a frenzy.
            daemon.logged("worker_lost", times=3)
            tries = [entry["next_try_s"] for entry in daemon.events("worker_lost")]
            assert tries[:3] == [0.0, 0.5, 1.0]

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=QUICK) as daemon:
        asyncio.run(scenario(daemon))


def test_kill_9_makes_the_broker_say_offline_and_the_next_start_says_online(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            worker = daemon.worker()
            daemon.kill()
            await state(line, "offline", "the connection was lost")
            await until(lambda: not Path(f"/proc/{worker}").exists(), "no worker is left behind")
            # What is sent meanwhile is kept by the broker, and gets its verdict, late as it is.
            name = line.inspect(0)
            await until(lambda: line.session.unanswered == 0, "the broker has the frame")
            daemon.start()
            await line.box_ready()
            assert (await line.verdict(name))["reason"] in ("stale", "not-ready")
            await line.judges()

    with Daemon(mosquitto, tmp_path, overrides=QUICK, budget_ms=0) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_a_start_removes_what_killed_writers_left_aside(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    state, deployments = tmp_path / "state", tmp_path / "state" / FOLDER
    deployments.mkdir(parents=True)
    left = [killed_aside(folder / "any.json") for folder in (state, deployments)]
    with Daemon(mosquitto, tmp_path, overrides=QUICK) as daemon:
        daemon.ready()
        assert not [each for each in left if each.exists()]


def endless_under_the_lamp(folder: Path) -> Path:
    """A deployment whose policy, when the lamp is evil, is not interrupted for seconds."""
    plain = copy_of(
        DEPLOYMENT,
        folder / "plain",
        (r"^call_ms = [24]0", "call_ms = 2000"),
        (r"^budget_ms = 200", "budget_ms = 20000"),
    )
    return with_policy(plain, folder / "deployment", policy(ENDLESS), call_ms=10_000)


async def in_an_endless_call(line: Line) -> str:
    """Have the box judge a frame with no end; return its id."""
    line.session.publish("line/lamp", b"99")
    await line.status(
        lambda s: s["counters"].get("signals_received{signal=signal.lamp}") == 1,
        "the lamp was heard",
    )
    name = line.inspect(0)
    await line.status(
        lambda s: s["pipelines"]["pcb"]["unanswered"] == 1, "the frame is being judged"
    )
    return name


def test_an_orphan_in_an_endless_call_ends_with_its_supervisor(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    deployment = endless_under_the_lamp(tmp_path)

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            worker = daemon.worker()
            await in_an_endless_call(line)
            daemon.kill()
            await until(
                lambda: not Path(f"/proc/{worker}").exists(), "the orphan ends", deadline_s=5
            )

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=QUICK) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_sigterm_drains_says_goodbye_and_loses_no_frame(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            names = await line.play(10, interval_s=0.03)
            await line.verdict(names[7])
            os.kill(daemon.pid, signal.SIGTERM)
            while daemon.alive:  # the camera goes on all the while, and beyond
                names += await line.play(2, interval_s=0.03)
            names += await line.play(2)
            assert daemon.ended() == 0
            await state(line, "offline", "the daemon was stopped")
            assert daemon.events("drained")[0]["unanswered"] == 0
            answered = [name for name in names if line.judgements(name)]
            assert len(answered) >= 8
            assert len(answered) < len(names)
            # The rest was left with the broker, and is answered after the next start.
            daemon.start()
            await line.all_verdicts(names)
            assert all(line.judgements(name) == 1 for name in names)

    overrides = (*QUICK, "deadlines.drain_ms=60000")  # for as much as a busy machine has left over
    with Daemon(mosquitto, tmp_path, overrides=overrides) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_sigterm_gives_a_frame_that_is_not_judged_in_the_grace_its_fail_safe(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            name = await in_an_endless_call(line)
            status = await asyncio.to_thread(daemon.end)
            verdict = await line.verdict(name)
            assert (verdict["verdict"], verdict["reason"]) == ("review", "worker-lost")
            assert (status, daemon.events("drained")[0]["unanswered"]) == (0, 1)

    with Daemon(
        mosquitto,
        tmp_path,
        deployment=endless_under_the_lamp(tmp_path),
        overrides=(*QUICK, "deadlines.drain_ms=100"),
    ) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_after_a_restart_an_id_still_belongs_to_the_frame_that_had_it_first(
    mosquitto: LocalBroker, tmp_path: Path
) -> None:
    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            name = line.inspect(2)
            assert (await line.verdict(name))["reason"] == "ok"
            line.inspect(3, frame_id=name, defects=("open",))
            await until(lambda: len(line.verdicts["pcb", name]) == 2, "the refusal")
            assert daemon.end() == 0
            await state(line, "offline", "the daemon was stopped")
            daemon.start()
            await line.box_ready()
            line.inspect(2, frame_id=name)
            line.inspect(3, frame_id=name, defects=("open",))
            await until(lambda: len(line.verdicts["pcb", name]) == 4, "both come again")
            heard = [json.loads(payload) for payload, _ in line.verdicts["pcb", name]]
            assert heard[2:] == heard[:2]

    with Daemon(mosquitto, tmp_path, overrides=QUICK) as daemon:
        asyncio.run(scenario(daemon.ready()))


def test_sigterm_while_the_worker_loads_ends_both(mosquitto: LocalBroker, tmp_path: Path) -> None:
    with Daemon(mosquitto, tmp_path, overrides=QUICK) as daemon:
        for _ in range(10):
            worker = daemon.worker()
            assert daemon.end() == 0
            assert not Path(f"/proc/{worker}").exists()
            if not daemon.events("pipeline_ready"):
                return
            # The signal was so late, on a busy machine, that it had loaded: another one.
            daemon.log_file.unlink()
            daemon.start()
        pytest.fail("ten workers had loaded before they were told to stop")


def test_without_a_broker_sigterm_ends_it_as_well(tmp_path: Path) -> None:
    with Daemon(LocalBroker(port=1), tmp_path, overrides=QUICK) as daemon:
        daemon.logged("pipeline_ready")
        assert daemon.events("ready") == []
        assert daemon.end(signal.SIGINT) == 0


def started(*words: str) -> subprocess.Popen[str]:
    """Start `edge run`, which is to end by itself."""
    command = [sys.executable, "-m", "edge.cli.main", "run", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(run: subprocess.Popen[str], said: str) -> None:
    """Wait for the end of a run: a configuration error that says this."""
    try:
        _, stderr = run.communicate(timeout=200)
    finally:
        run.kill()
    assert (run.returncode, said in stderr) == (78, True), (run.args, stderr)
    assert "Traceback" not in stderr


@pytest.fixture
def tampered(tmp_path: Path) -> Path:
    folder = copy_of(DEPLOYMENT, tmp_path / "tampered")
    guest = folder / "guests" / "policy.wasm"
    content = bytearray(guest.read_bytes())
    content[-1] ^= 1
    guest.write_bytes(content)
    return folder


def test_a_config_that_cannot_be_used_ends_with_78_and_names_the_key(
    tmp_path: Path, tampered: Path
) -> None:
    good = [f"--config={CONFIG}", "--set", f"storage.path={tmp_path / 's'}", "--set"]
    local = [f"--deployment={DEPLOYMENT}", "--allow-unsigned"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    cases = (
        ([*good, "brocker.port=1", *local], "brocker"),
        ([*good, "broker.port=high", *local], "broker.port"),
        ([f"--config={tmp_path / 'none.toml'}", *local], "none.toml"),
        ([*good, "device.id=b", f"--deployment={tmp_path / 'void'}", "--allow-unsigned"], "void"),
        ([*good, "device.id=b", f"--deployment={tampered}", "--allow-unsigned"], "policy.wasm"),
        ([*good, "device.id=b", f"--deployment={DEPLOYMENT}"], "--allow-unsigned"),
        ([*good, "device.id=b"], "--deployment"),
        ([*good, "broker.username='b'", "--set", "broker.password_file=/none", *local], "/none"),
        ([*good, "bindings.camera={}", *local], "camera.top"),
        ([*good, f"storage.path={blocked}/x", *local], "storage.path"),
    )
    for run, said in [(started(*words), said) for words, said in cases]:
        refused(run, said)


def test_two_daemons_do_not_share_a_storage_folder(broker: LocalBroker, daemon: Daemon) -> None:
    storage = daemon.log_file.parent / "state"
    second = started(
        f"--config={CONFIG}",
        *("--set", f"storage.path={storage}", "--set", f"broker.port={broker.port}"),
        *(f"--deployment={DEPLOYMENT}", "--allow-unsigned"),
    )
    refused(second, "another daemon uses")
    assert daemon.alive


def test_a_bug_ends_the_daemon_with_a_status_and_a_log_line(tmp_path: Path) -> None:
    # The bug is put in from outside: a timer that raises, as a fail-safe's might.
    program = f"""
import asyncio, sys
from edge.cli.main import main
from edge.daemon.inputs import Inputs

def plant(self, pipeline):
    asyncio.get_running_loop().call_later(0.1, lambda: 1 / 0)

Inputs.connect = plant
sys.exit(main(["run", "--config={CONFIG}", "--set", "storage.path={tmp_path / "s"}",
    "--set", "broker.port=1", "--deployment={DEPLOYMENT}", "--allow-unsigned"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    (bug,) = [line for line in lines if line["event"] == "daemon_bug"]
    assert bug["error"] == "ZeroDivisionError"
    assert ended.stderr.splitlines()[-1].startswith("edge: the daemon ended by a bug")


def test_the_supervisor_carries_no_engine_and_no_numpy() -> None:
    program = (
        "import sys, edge.cli.main, edge.cli.run, edge.daemon.supervisor\n"
        "heavy = {'wasmtime', 'onnxruntime', 'cv2', 'numpy', 'simplejpeg', 'onnx', 'pandas'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ended.stdout.strip() == "[]"
