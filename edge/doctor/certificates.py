"""Certificates: whether those of the config, and the broker's own, are valid, and for how long."""

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.config import BrokerSection, DeviceConfig, TlsSection
from edge.doctor.check import Check, finding, ok, unknown
from edge.errors import ConfigError
from edge.mqtt.security import tls_context

SOON_DAYS: Final = 30
_DAY_S: Final = 86_400
_RENEW_FILE: Final = (
    "renew it; files are read at each connection, so no restart is needed, but for those below "
    "/run/credentials, which systemd copies when the service starts"
)


def certificates(config: DeviceConfig, now_s: Callable[[], float] = time.time) -> list[Check]:
    """Look at each certificate; one word where TLS is not configured."""
    sections = {
        "certificate": config.broker.tls,
        "certificate.updates": config.updates.tls,
        "certificate.traces": config.traces.tls,
    }
    checks = []
    for name, section in sections.items():
        if section is not None:
            checks.append(_file(f"{name}.ca", section.ca_file, now_s()))
            if section.certificate_file is not None:
                checks.append(_file(f"{name}.client", section.certificate_file, now_s()))
    if config.broker.tls is not None:
        checks.append(_served(config.broker, config.broker.tls, now_s()))
    return checks or [ok("certificates", "TLS is not configured: nothing to expire")]


def _file(name: str, path: Path, now_s: float) -> Check:
    try:
        # The first certificate of a PEM file. Undocumented, and in every CPython since 2.6; the
        # documented get_ca_certs leaves out what is no authority, and so our own certificate.
        decoded: dict[str, Any] = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    except (OSError, ssl.SSLError) as failed:
        return finding(
            name, f"{path}: is no readable PEM certificate ({failed})", "replace the file"
        )
    except AttributeError:
        return unknown(name, "this Python cannot decode a certificate file")
    return _judge(name, str(path), decoded, now_s, _RENEW_FILE)


def _served(broker: BrokerSection, section: TlsSection, now_s: float) -> Check:
    name, where = "certificate.broker", f"{broker.host}:{broker.port}"
    try:
        context = tls_context(section)
        with (
            socket.create_connection((broker.host, broker.port), broker.connect_timeout_s) as raw,
            context.wrap_socket(raw, server_hostname=broker.host) as secured,
        ):
            decoded = secured.getpeercert()
    except ConfigError as wrong:
        return unknown(name, str(wrong))
    except ssl.SSLCertVerificationError as refused:
        return finding(
            name,
            f"{where}: {refused.verify_message}",
            "renew the broker's certificate, or name the right authority in broker.tls.ca_file",
        )
    except OSError as failed:
        return unknown(name, f"{where}: {failed.strerror or failed}")
    return _judge(name, where, decoded or {}, now_s, "renew it at the broker")


def _judge(name: str, where: str, decoded: dict[str, Any], now_s: float, renewing: str) -> Check:
    since, until = decoded.get("notBefore", ""), decoded.get("notAfter", "")
    try:
        valid_days = (now_s - ssl.cert_time_to_seconds(since)) / _DAY_S
        left_days = (ssl.cert_time_to_seconds(until) - now_s) / _DAY_S
    except ValueError:
        return unknown(name, f"{where}: does not say when it is valid")
    if valid_days < 0:
        return finding(
            name, f"{where}: valid from {since} on", "set the clock, if it is not that day yet"
        )
    said = f"{where}: valid until {until}, {left_days:.0f} days"
    if left_days < 0:
        said = f"{where}: expired on {until}"
    if left_days < SOON_DAYS:
        return finding(name, said, renewing)
    return ok(name, said)
