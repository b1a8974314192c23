"""The container image: built by podman, and run with a read-only root and without a capability.

Needs root, podman and mmdebstrap; `make image-test` brings them. The base is a Debian 12 made here
under the name of the registry's, so that nothing but Debian's packages has to be reached. The
broker is a Mosquitto on this machine's loopback; the container has this machine's network and no
other thing of it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from edge.mqtt.brokers import LocalBroker

ROOT: Final = Path(__file__).parents[2]
OUT: Final = ROOT / ".out" / "image"
BASE: Final = "docker.io/library/debian:bookworm-slim"
EPOCH: Final = "1700000000"
CONFIG: Final = "/etc/edge/edge.toml"
DEADLINE_S: Final = 60.0
# Explicit limits, because podman's own are above what a root with fewer rights may set.
RUN: Final = (
    *("--network", "host", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024"),
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--stop-timeout", "75"),
)

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="the package is built by Debian 12's Python, 3.11"
    ),
    pytest.mark.skipif(
        "EDGE_TEST_IMAGE" not in os.environ,
        reason="minutes, a container engine and a Debian mirror: make image-test",
    ),
]


def podman(*arguments: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    """Run podman on a store of our own. Of two runtimes, runc also takes hybrid control groups."""
    command = ["podman", "--root", str(OUT / "store"), "--runroot", str(OUT / "run")]
    command += ["--cgroup-manager", "cgroupfs"]
    if shutil.which("runc"):
        command += ["--runtime", "runc"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode and not may_fail:
        said = f"podman {' '.join(arguments)}: status {done.returncode}"
        pytest.fail(f"{said}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return done


@cache
def image() -> str:
    """Build package, base and image once; return the image's name."""
    if os.geteuid() != 0:
        pytest.skip(
            "running a container with this machine's network and a base of our own needs root"
        )
    missing = [tool for tool in ("podman", "mmdebstrap", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    dist = OUT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    base = OUT / "base"
    for command in (
        [sys.executable, "scripts/deb.py", "--out", str(dist), "--level", "1"],
        ["sh", "scripts/make_rootfs.sh", str(base), "bare"],
        ["tar", "-cf", str(OUT / "base.tar"), "-C", str(base), "."],
    ):
        subprocess.run(
            command, cwd=ROOT, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
        )
    podman("import", str(OUT / "base.tar"), BASE)
    (OUT / "base.tar").unlink()
    ulimit = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024")
    words = ("--pull=never", "--network", "host", "--build-arg", f"VERSION={version()}", *ulimit)
    recipe = ("--file", str(ROOT / "packaging" / "Containerfile"), "--format", "docker")
    podman("build", *recipe, *words, "--tag", f"edge:{version()}", str(dist))
    return f"edge:{version()}"


@cache
def version() -> str:
    """Of the package, as `make image` asks for it."""
    command = [sys.executable, str(ROOT / "scripts" / "deb.py"), "--print-version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def until(claim: Callable[[], object], what: str, container: "Container") -> None:
    """Wait until a claim holds, or fail with the container's own words."""
    end = time.monotonic() + DEADLINE_S
    while not claim():
        if time.monotonic() > end:
            pytest.fail(f"not in {DEADLINE_S:g} s: {what}\n{container.log()[-3000:]}")
        time.sleep(0.1)  # between two looks, until the deadline


class Container:
    """One container of edge, as hardened as the page says; `with` removes it whatever happens."""

    def __init__(self, name: str, volume: str, config: Path) -> None:
        self.name = name
        self._words = ("--volume", f"{volume}:/var/lib/edge", "--volume", f"{config}:{CONFIG}:ro")

    def __enter__(self) -> "Container":
        podman("run", "--detach", "--name", self.name, *RUN, *self._words, image())
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", "--time", "1", self.name, may_fail=True)

    def sh(self, *command: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command beside the daemon."""
        return podman("exec", self.name, *command, may_fail=may_fail)

    def log(self) -> str:
        """What the daemon has printed."""
        done = podman("logs", self.name, may_fail=True)
        return done.stdout + done.stderr

    def events(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == event]

    def ready(self) -> "Container":
        """Wait until it said that it is."""
        until(lambda: self.events("ready"), "ready", self)
        return self

    def records(self) -> int:
        """How many verdicts its ledger holds."""
        said = self.sh("edge", "ledger", "verify", "/var/lib/edge/ledger", "--json")
        found: int = json.loads(said.stdout)["records"]
        return found

    def ended(self) -> int:
        """Its exit status."""
        return int(podman("wait", self.name).stdout)


@pytest.fixture
def config(mosquitto: LocalBroker, tmp_path: Path) -> Path:
    """The shipped device config, for the broker of this test."""
    shipped = (ROOT / "device_configs" / "x86-cpu.toml").read_text()
    path = tmp_path / "edge.toml"
    path.write_text(shipped.replace("port = 1883", f"port = {mosquitto.port}"))
    path.chmod(0o644)
    return path


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume that outlives containers."""
    name = "edge-state"
    podman("volume", "rm", "--force", name, may_fail=True)
    yield name
    podman("volume", "rm", "--force", name, may_fail=True)


def replay(config: Path, frames: int) -> subprocess.Popen[str]:
    """Play boards from outside, at ten a second."""
    command = [sys.executable, "-m", "edge.cli.main", "replay", "--config", str(config), "--json"]
    return subprocess.Popen(
        [*command, "--frames", str(frames), "--rate", "10"], stdout=subprocess.PIPE, text=True
    )


def test_it_judges_drains_and_keeps_its_state(config: Path, volume: str) -> None:
    with Container("edge-first", volume, config) as edge:
        edge.ready()
        said, _ = replay(config, 20).communicate(timeout=DEADLINE_S)
        score = json.loads(said.splitlines()[-1])
        assert score["answered"] == 20, score
        assert edge.sh("edge", "status", "--config", CONFIG).returncode == 0
        held = edge.records()
        assert held == 20
        podman("healthcheck", "run", edge.name)
        playing = replay(config, 100)
        until(lambda: edge.records() > held + 10, "frames are on the way", edge)
        podman("stop", edge.name)
        playing.kill()
        playing.communicate()
        assert edge.ended() == 0, edge.log()[-3000:]
        (drained,) = edge.events("drained")
        assert drained["unanswered"] == 0, drained
    with Container("edge-second", volume, config) as edge:
        edge.ready()
        assert edge.records() >= held + 10
        said, _ = replay(config, 5).communicate(timeout=DEADLINE_S)
        assert json.loads(said.splitlines()[-1])["answered"] == 5


def test_it_is_a_user_without_rights_on_a_root_that_it_cannot_change(
    config: Path, volume: str
) -> None:
    with Container("edge-rights", volume, config) as edge:
        edge.ready()
        status = dict(
            line.split(":\t", 1)
            for line in edge.sh("cat", "/proc/1/status").stdout.splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == ["990"] * 4
        assert status["Gid"].split() == ["990"] * 4
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1"
        for path in ("/opt/edge/x", "/etc/edge/x", "/usr/bin/x", "/x"):
            refused = podman("exec", "--user", "0", edge.name, "touch", path, may_fail=True)
            assert "Read-only file system" in refused.stderr, (path, refused)
        state = edge.sh("stat", "--format", "%u %g %a", "/var/lib/edge").stdout.split()
        assert state == ["990", "990", "700"]


def test_without_a_broker_it_is_not_healthy(
    config: Path, volume: str, tmp_path: Path, mosquitto: LocalBroker
) -> None:
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(config.read_text().replace(f"port = {mosquitto.port}", "port = 1"))
    elsewhere.chmod(0o644)
    with Container("edge-alone", volume, elsewhere) as edge:
        until(edge.log, "it has said something", edge)
        assert podman("healthcheck", "run", edge.name, may_fail=True).returncode == 1


def test_a_wrong_configuration_ends_it_with_78_and_names_the_key(config: Path, volume: str) -> None:
    config.write_text(config.read_text().replace("[storage]", "[storaje]"))
    with Container("edge-wrong", volume, config) as edge:
        assert edge.ended() == 78
        assert "storaje" in edge.log()


def test_the_image_says_what_it_is_and_holds_no_secret() -> None:
    (told,) = json.loads(podman("image", "inspect", image()).stdout)
    labels = told["Labels"]
    assert labels["org.opencontainers.image.version"] == version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert told["User"] == "990:990"
    assert told["Architecture"] == "amd64"
    names = {each.partition("=")[0] for each in told["Config"]["Env"]}
    assert names <= {"PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "container"}
    assert list(told["Config"]["Volumes"]) == ["/var/lib/edge"]
    folders = ("/etc/credstore", "/var/lib/edge", "/tmp", "/var/lib/apt/lists", "/root")
    words = ("--rm", *RUN[:6], "--user", "0", "--workdir", "/", "--entrypoint", "find", image())
    held = podman("run", *words, *folders, "-type", "f").stdout.split()
    assert set(held) == {"/root/.bashrc", "/root/.profile"}
    assert not podman("run", *words, "/", "-xdev", "-name", "*.key").stdout
