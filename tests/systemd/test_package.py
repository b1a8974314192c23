"""The Debian package on a fresh gateway: Debian 12 with systemd as PID 1, in a container.

Needs root, mmdebstrap and systemd-nspawn (`scripts/setup_tests.sh` installs them). `make
systemd-test` runs it and leaves the transcript, .out/systemd/transcript.txt;
EDGE_TEST_SYSTEMD=short takes the steps that a change is most likely to break.

The gateway tells how each step ended (`driver.py`); a test here is one step.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from gateways import EPOCH, OUT, booted, hold, package

BILL: Final = "usr/share/doc/edge-verdict/edge.cdx.json"
FULL: Final = os.environ.get("EDGE_TEST_SYSTEMD") == "full"
STEPS: Final = (
    "one_command_installs_and_starts_the_demo",
    "every_command_of_the_page_does_what_it_says",
    "it_is_a_user_that_exists_while_it_runs",
    "the_journal_has_fields_to_search_by",
    "the_page_looks_on_as_the_daemons_user_and_can_alter_nothing",
    "who_takes_over_the_page_can_ask_nothing_about_deployments",
    "a_killed_daemon_is_started_again_after_a_second",
    "a_wrong_configuration_is_said_and_not_restarted",
    "stopping_drains",
    "going_back_over_a_newer_format_is_refused_and_changes_nothing",
    "removal_stops_and_keeps_what_is_yours",
    "an_installation_after_a_removal_starts_again_what_was_stopped",
    "purging_leaves_nothing",
)
LONG_STEPS: Final = (
    "boards_from_outside_get_verdicts",
    "the_doctor_finds_the_unit_in_order",
    "a_hung_daemon_is_killed_by_the_watchdog",
    "a_crash_loop_is_never_given_up",
    "a_worker_out_of_memory_dies_alone",
    "guests_are_interpreted_where_no_machine_code_may_be_made",
    "a_password_comes_as_a_credential_and_shows_nowhere",
    "a_backup_is_made_while_it_runs_and_can_be_verified",
    "an_upgrade_keeps_configuration_state_and_deployment",
    "going_back_is_allowed_within_one_format_of_the_state",
    "the_way_back_over_a_newer_format_is_as_the_page_says",
    "what_was_disabled_stays_so_over_a_removal",
)
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="the package is built by Debian 12's Python, 3.11"
    ),
    pytest.mark.skipif(
        "EDGE_TEST_SYSTEMD" not in os.environ,
        reason="minutes and a Debian mirror: make systemd-test",
    ),
]


@cache
def gateway() -> dict[str, dict[str, Any]]:
    """Boot the gateway once, and return how each step ended, by name."""
    words = () if FULL else ("--short",)
    return booted("amd64", OUT / "shared", "driver.py", *words, upgrade=FULL)


@pytest.mark.parametrize("step", STEPS if not FULL else (*STEPS, *LONG_STEPS))
def test_on_a_fresh_gateway(step: str) -> None:
    hold(gateway()[step])


@pytest.mark.skipif(not FULL, reason="make systemd-test builds the package a second time")
def test_two_builds_are_equal_to_the_byte() -> None:
    first = _digest(package("first"))
    old = os.umask(0o077)  # negative control of the modes: another user's habits
    try:
        again = _digest(package("again"))
    finally:
        os.umask(old)
    assert first == again


def test_the_package_holds_the_lock_and_nothing_of_development() -> None:
    listing = _packed(package("first"))
    site = "./opt/edge/lib/python3.11/site-packages/"
    names = {name.removeprefix(site).split("/")[0] for name in listing if name.startswith(site)}
    assert {"edge", "wasmtime", "onnxruntime", "cv2", "paho"} <= names
    assert not names & {"pytest", "mypy", "ruff", "uv", "onnx", "ziglang", "hypothesis", "bin"}
    assert listing["./opt/edge/bin/edge"].mode & 0o777 == 0o755
    assert listing["./usr/bin/edge"].linkname == "/opt/edge/bin/edge"
    assert listing["./opt/edge/bin/python"].linkname == "/usr/bin/python3.11"
    assert {member.uname for member in listing.values()} == {"root"}
    assert all(member.mtime <= int(EPOCH) for member in listing.values())
    assert f"{site}edge/cli/__pycache__/main.cpython-311.pyc" in listing


def test_the_pages_that_errors_name_are_in_the_package() -> None:
    listing = _packed(package("first"))
    folder = "./usr/share/doc/edge-verdict/"
    pages = {name.removeprefix(folder) for name in listing if name.startswith(f"{folder}docs/")}
    assert {"docs/configuration.md", "docs/models.md", "docs/console-live.png"} <= pages
    assert {f"{folder}{name}" for name in ("CHANGELOG.md", "guests/ABI.md")} <= listing.keys()
    assert listing[f"{folder}docs/examples"].linkname == "../examples"


def test_the_package_carries_no_tests_of_others_and_nothing_for_compilers() -> None:
    site = "./opt/edge/lib/python3.11/site-packages/"
    files = [name.removeprefix(site) for name in _packed(package("first")) if name.startswith(site)]
    others = [name for name in files if not name.startswith("edge/")]
    assert "numpy/testing/__init__.py" in others  # no test, though its name is near
    assert not [name for name in others if re.search(r"/tests?/|\.(pyi|pxd|pyx|[acho])$", name)]
    # Our own: what `edge guest new` copies.
    assert [name for name in files if name.endswith(".c") and name.startswith("edge/shipped/")]
    assert [name for name in files if name.endswith(".h") and name.startswith("edge/shipped/")]


def test_the_bill_of_materials_names_what_is_in_the_package() -> None:
    site = "./opt/edge/lib/python3.11/site-packages/"
    held = {
        name.removeprefix(site).split("/")[0].removesuffix(".dist-info")
        for name in _packed(package("first"))
        if name.startswith(site) and ".dist-info" in name
    }
    bill = json.loads(_content(package("first"), f"./{BILL}"))
    told = {
        f"{each['name'].replace('-', '_')}-{each['version']}"
        for each in (*bill["components"], bill["metadata"]["component"])
    }
    assert held == told


@pytest.mark.skipif(not FULL, reason="make systemd-test fetches the schema's package")
def test_the_bill_of_materials_is_valid_cyclonedx(tmp_path: Path) -> None:
    assert not _invalid(_content(package("first"), f"./{BILL}"))
    assert _invalid(b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{}]}')


def _invalid(bill: bytes) -> str:
    """What CycloneDX's own validator objects to."""
    code = (
        "import sys; from cyclonedx.schema import SchemaVersion as V;"
        " from cyclonedx.validation.json import JsonStrictValidator as S;"
        " print(S(V.V1_6).validate_str(sys.stdin.read()) or '')"
    )
    command = [sys.executable, "-m", "uv", "run", "--no-project", "--isolated", "--with"]
    command += ["cyclonedx-python-lib[json-validation]==11.12.0", "python", "-c", code]
    done = subprocess.run(command, input=bill, capture_output=True, check=True)
    return done.stdout.decode().strip()


def _content(deb: Path, name: str) -> bytes:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as out:
        assert out.stdout is not None
        with tarfile.open(fileobj=out.stdout, mode="r|") as archive:
            for member in archive:
                if member.name == name and (file := archive.extractfile(member)):
                    return file.read()
    raise AssertionError(f"{name} is not in {deb.name}")


def _digest(deb: Path) -> str:
    """Compared instead of a hundred megabytes, whose difference nobody could read."""
    with deb.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packed(deb: Path) -> dict[str, tarfile.TarInfo]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as out:
        assert out.stdout is not None
        with tarfile.open(fileobj=out.stdout, mode="r|") as archive:
            return {member.name: member for member in archive}
