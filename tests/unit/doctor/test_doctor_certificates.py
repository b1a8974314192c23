"""Certificates of real files, and of a real TLS broker."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from brokers import require_mosquitto, running_broker

from edge.config import BrokerSection, DeviceConfig, TlsSection, TracesSection, UpdateSection
from edge.doctor.certificates import certificates
from edge.doctor.check import Check, Outcome

DAY_S = 86_400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 400 days for localhost, which is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    place = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "400", *names]
    files = ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return place


def looked(broker: BrokerSection, later_days: int = 0, **more: Any) -> dict[str, Check]:
    now_s = time.time() + later_days * DAY_S
    config = DeviceConfig(broker=broker, **more)
    return {check.name: check for check in certificates(config, lambda: now_s)}


def test_without_tls_there_is_nothing_to_expire() -> None:
    assert looked(BrokerSection())["certificates"].outcome is Outcome.OK


def test_each_certificate_is_judged_by_the_days_it_has_left(folder: Path) -> None:
    require_mosquitto()
    cert, key = folder / "cert.pem", folder / "key.pem"
    tls = TlsSection(ca_file=cert, certificate_file=cert, key_file=key)
    lines = [f"cafile {cert}", f"certfile {cert}", f"keyfile {key}"]
    with running_broker(kind="mosquitto", settings=lines, tls=tls) as broker:
        section = BrokerSection(host="localhost", port=broker.port, tls=tls)
        now = looked(section)
        soon = looked(section, later_days=380)
        past = looked(section, later_days=500)
    assert set(now) == {"certificate.ca", "certificate.client", "certificate.broker"}
    for name in now:
        assert now[name].outcome is Outcome.OK, now[name].said
        assert soon[name].outcome is Outcome.FINDING
        assert "renew it" in soon[name].remedy
        assert ("/run/credentials" in soon[name].remedy) == (name != "certificate.broker")
        assert "expired on" in past[name].said


def test_the_certificates_of_updates_and_traces_are_looked_at_too(folder: Path) -> None:
    cert, key = folder / "cert.pem", folder / "key.pem"
    tls = TlsSection(ca_file=cert, certificate_file=cert, key_file=key)
    sections = {"updates": UpdateSection(tls=tls), "traces": TracesSection(tls=tls)}
    found = looked(BrokerSection(), later_days=380, **sections)
    assert set(found) == {
        f"certificate.{place}.{whose}" for place in sections for whose in ("ca", "client")
    }
    assert {check.outcome for check in found.values()} == {Outcome.FINDING}
    early = looked(BrokerSection(), later_days=-2, **sections)
    assert all("valid from" in check.said for check in early.values())
    assert all("set the clock" in check.remedy for check in early.values())


def test_a_file_that_is_no_certificate_is_a_finding_and_an_absent_broker_is_unseen(
    tmp_path: Path,
) -> None:
    noise = tmp_path / "noise.pem"
    noise.write_bytes(b"\x00" * 100)
    tls = TlsSection(ca_file=noise)
    found = looked(BrokerSection(port=1, tls=tls))
    assert found["certificate.ca"].outcome is Outcome.FINDING
    assert str(noise) in found["certificate.ca"].said
    assert found["certificate.broker"].outcome is Outcome.UNKNOWN


def test_a_broker_whose_authority_is_another_is_a_finding(folder: Path, tmp_path: Path) -> None:
    require_mosquitto()
    other = tmp_path / "other.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(other)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    cert = folder / "cert.pem"
    lines = [f"cafile {cert}", f"certfile {cert}", f"keyfile {folder / 'key.pem'}"]
    with running_broker(kind="mosquitto", settings=lines, tls=TlsSection(ca_file=cert)) as broker:
        section = BrokerSection(host="localhost", port=broker.port, tls=TlsSection(ca_file=other))
        check = looked(section)["certificate.broker"]
    assert check.outcome is Outcome.FINDING
    assert "ca_file" in check.remedy
