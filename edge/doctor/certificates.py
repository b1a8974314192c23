"""Certificates: how long those of the config, and the broker's own, are still valid."""

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.config import BrokerSection, TlsSection
from edge.doctor.check import Check, finding, ok, unknown
from edge.errors import ConfigError
from edge.mqtt.security import tls_context

SOON_DAYS: Final = 30
_DAY_S: Final = 86_400


def certificates(broker: BrokerSection, now_s: Callable[[], float] = time.time) -> list[Check]:
    """Look at each certificate; one word where TLS is not configured."""
    if broker.tls is None:
        return [ok("certificates", "TLS is not configured: nothing to expire")]
    checks = [_file("certificate.ca", broker.tls.ca_file, now_s())]
    if broker.tls.certificate_file is not None:
        checks.append(_file("certificate.client", broker.tls.certificate_file, now_s()))
    checks.append(_served(broker, broker.tls, now_s()))
    return checks


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
    return _judge(name, str(path), decoded, now_s)


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
    return _judge(name, where, decoded or {}, now_s)


def _judge(name: str, where: str, decoded: dict[str, Any], now_s: float) -> Check:
    until = decoded.get("notAfter", "")
    try:
        left_days = (ssl.cert_time_to_seconds(until) - now_s) / _DAY_S
    except ValueError:
        return unknown(name, f"{where}: says no end of its validity")
    said = f"{where}: valid until {until}, {left_days:.0f} days"
    if left_days < 0:
        said = f"{where}: expired on {until}"
    if left_days < SOON_DAYS:
        return finding(
            name, said, "renew it; files are read at each connection, so no restart is needed"
        )
    return ok(name, said)
