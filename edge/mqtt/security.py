"""Who we are to the broker, and how we know it: password file and TLS context.

Files are read anew for each connection, so that a rotated secret needs no restart. What is read
here never appears in an error.
"""

import ssl
from pathlib import Path

from edge.config import BrokerSection, TlsSection
from edge.errors import ConfigError

MAX_PASSWORD_BYTES = 65_535  # MQTT 5, 1.5.6


def password(broker: BrokerSection) -> bytes | None:
    """Return the first line of the password file, without its line end; None without a file.

    Raises:
        ConfigError: The file cannot be read, or holds no usable password.
    """
    path = broker.password_file
    if path is None:
        return None
    try:
        first, *_ = path.read_bytes().splitlines() or [b""]
    except OSError as failed:
        raise ConfigError(
            f"broker.password_file {path}", f"cannot be read: {failed.strerror}"
        ) from failed
    if not 0 < len(first) <= MAX_PASSWORD_BYTES:
        raise ConfigError(
            f"broker.password_file {path}", "its first line is empty, or too long for MQTT"
        )
    return first


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when its handshake fails: paho forgets it then, and it would stay open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(section: TlsSection, where: str = "broker.tls") -> ssl.SSLContext:
    """Return a context that trusts the configured authorities only, and checks the host's name.

    `where` names the section in errors.

    Raises:
        ConfigError: A file cannot be read, or is no PEM certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=str(section.ca_file))
    except (OSError, ssl.SSLError) as failed:
        raise _unusable(f"{where}.ca_file", section.ca_file, failed) from failed
    context.sslsocket_class = _TlsSocket
    if section.certificate_file is None:
        return context
    for key in ("certificate_file", "key_file"):  # else nobody says which of the two is missing
        if path := getattr(section, key):
            try:
                path.open("rb").close()
            except OSError as failed:
                raise _unusable(f"{where}.{key}", path, failed) from failed
    try:
        context.load_cert_chain(
            str(section.certificate_file),
            str(section.key_file) if section.key_file else None,
            password=lambda: b"",  # else an encrypted key would ask at a terminal, and wait
        )
    except (OSError, ssl.SSLError) as failed:
        raise _unusable(f"{where}.certificate_file", section.certificate_file, failed) from failed
    return context


def _unusable(key: str, path: Path, failed: OSError) -> ConfigError:
    return ConfigError(
        f"{key} {path}",
        f"cannot be used: {failed.strerror or failed}",
        "expected: PEM, and a key that is readable by this user, unencrypted",
    )
