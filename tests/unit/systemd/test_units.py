"""The service unit and the broker's configuration, judged by systemd and Mosquitto themselves."""

import asyncio
import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge import config
from edge.daemon.control import CONTROL, WORDS
from edge.errors import TransportError
from edge.mqtt.brokers import LocalBroker

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "systemd" / "edge.service"
COLLECT_UNIT = ROOT / "systemd" / "edge-collect.service"
CONSOLE_UNIT = ROOT / "systemd" / "edge-console.service"
CAMERA_UNIT = ROOT / "docs" / "examples" / "edge-camera@.service"
GENICAM = CAMERA_UNIT.with_name("edge-camera@.service.d") / "genicam.conf"
WORST_EXPOSURE = 1.3
DROP_INS = {"plain": 1.3, "interpreted": 1.2, "cuda": 1.5, "jetson": 1.5}
"""The worst exposure by systemd's own reckoning: a GPU's device nodes cost 0.2."""


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing, and in CI it must not be")
        pytest.skip(f"{name} is not installed")
    return found


def _exposure(unit: Path) -> float:
    command = [_tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", str(unit)]
    report = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert found is not None, report
    return float(found[1])


def _copy(folder: Path, drop_in: str = "plain", *, of: Path = UNIT) -> Path:
    """A copy of a unit whose program exists, so that only real complaints are left."""
    text = of.read_text().replace("/opt/edge/bin/edge", shutil.which("true") or "/bin/true")
    unit = folder / of.name
    unit.write_text(text)
    shutil.copyfile(UNIT.with_name("edge.slice"), folder / "edge.slice")
    if drop_in != "plain":
        (folder / "edge.service.d").mkdir()
        shutil.copy(UNIT.with_name("edge.service.d") / f"{drop_in}.conf", folder / "edge.service.d")
    return unit


def test_every_drop_in_is_judged_here() -> None:
    shipped = {path.stem for path in (ROOT / "systemd" / "edge.service.d").iterdir()}
    assert shipped == DROP_INS.keys() - {"plain"}


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path, drop_in: str) -> None:
    unit = _copy(tmp_path, drop_in)
    command = [_tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    about_us = [line for line in done.stderr.splitlines() if "edge.service" in line]
    assert about_us == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("of", [COLLECT_UNIT, CONSOLE_UNIT], ids=["collect", "console"])
def test_the_other_units_are_sound_and_confined_more_tightly(tmp_path: Path, of: Path) -> None:
    unit = _copy(tmp_path, of=of)
    command = [_tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    assert done.returncode == 0, done.stderr
    assert _exposure(unit) <= _exposure(_copy(tmp_path))
    assert "MemoryDenyWriteExecute=yes" in unit.read_text()


def test_the_console_is_the_daemons_user_and_can_neither_write_nor_sign_nor_signal() -> None:
    text = CONSOLE_UNIT.read_text()
    assert "User=edge" in text.splitlines()
    bound = re.findall(r"^Bind\w*=(.*)$", text, re.MULTILINE)
    state, seen = "/var/lib/private/edge", "/run/edge-console"
    assert bound == [f"{state}/words:{seen}/words", f"-{state}/ledger:{seen}/ledger"]
    assert str(Path(WORDS).parent) == "words"
    assert str(Path(CONTROL).parent) == "."
    assert "InaccessiblePaths=-/run/credentials/edge.service" in text
    assert "SystemCallFilter=~kill tkill tgkill pidfd_send_signal" in text
    for granted in ("StateDirectory", "ReadWritePaths", "BindPaths"):
        assert not re.search(f"^{granted}=", text, re.MULTILINE)
    assert "--token-file" in text
    assert "--listen 127.0.0.1:" in text


def test_the_example_of_a_cameras_unit_is_sound(tmp_path: Path) -> None:
    unit = _copy(tmp_path, of=CAMERA_UNIT).rename(tmp_path / "edge-camera@top.service")
    command = [_tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    assert done.returncode == 0, done.stderr
    assert _exposure(unit) <= WORST_EXPOSURE


def test_a_genicam_bridge_is_confined_like_any_camera(tmp_path: Path) -> None:
    unit = _copy(tmp_path, of=CAMERA_UNIT).rename(tmp_path / "edge-camera@top.service")
    plain = _exposure(unit)
    (tmp_path / "edge-camera@top.service.d").mkdir()
    shutil.copy(GENICAM, tmp_path / "edge-camera@top.service.d")
    command = [_tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "edge-camera@top" in line] == []
    assert plain < _exposure(unit) <= WORST_EXPOSURE  # more: the grant is seen


def test_systemd_complains_about_an_unknown_key(tmp_path: Path) -> None:
    unit = _copy(tmp_path)
    unit.write_text(unit.read_text().replace("OOMPolicy=", "OOMPolitics="))
    command = [_tool("systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "OOMPolitics" in done.stderr


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_the_unit_is_confined(tmp_path: Path, drop_in: str) -> None:
    assert _exposure(_copy(tmp_path, drop_in)) <= DROP_INS[drop_in]


def test_a_unit_without_its_sandbox_would_be_found_out(tmp_path: Path) -> None:
    unit = _copy(tmp_path)
    kept = [line for line in unit.read_text().splitlines() if not line.startswith("SystemCall")]
    unit.write_text("\n".join(kept))
    assert _exposure(unit) > WORST_EXPOSURE


def _service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # keys are case-sensitive
    unit.read(UNIT)
    return unit["Service"]


def test_the_unit_restarts_for_ever_but_not_on_a_wrong_configuration() -> None:
    service = _service()
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "78"
    assert service["OOMPolicy"] == "continue"
    assert "StartLimitIntervalSec=0" in UNIT.read_text()


def test_the_unit_lets_guests_be_compiled() -> None:
    assert "MemoryDenyWriteExecute" not in _service()


def test_the_unit_waits_longer_than_the_config_may_tell_the_daemon_to() -> None:
    bounds = config.DeadlineSection.model_json_schema()["properties"]
    service = _service()
    assert (
        float(service["TimeoutStartSec"].removesuffix("min")) * 60_000
        > (bounds["start_ms"]["maximum"])
    )
    assert (
        float(service["TimeoutStopSec"].removesuffix("s")) * 1_000 > (bounds["drain_ms"]["maximum"])
    )


def test_the_unit_keeps_its_state_where_the_config_looks_for_it() -> None:
    assert config.StorageSection().path == Path("/var/lib") / _service()["StateDirectory"]


def test_mosquitto_starts_with_the_shipped_configuration() -> None:
    _tool("mosquitto")
    shipped = (ROOT / "systemd" / "mosquitto-edge.conf").read_text()
    assert "\nset_tcp_nodelay true\n" in shipped
    assert "Error" not in _words_of_mosquitto(shipped)
    with pytest.raises(TransportError, match="max_packet_sise"):
        _words_of_mosquitto(shipped.replace("packet_size", "packet_sise"))


def _words_of_mosquitto(settings: str) -> str:
    async def start() -> str:
        # It has answered a CONNECT when the block begins.
        async with LocalBroker(kind="mosquitto", settings=settings.splitlines()) as broker:
            return broker.output()

    return asyncio.run(start())
