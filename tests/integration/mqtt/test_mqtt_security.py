"""Passwords, certificates and access lists, against a real Mosquitto."""

import asyncio
import base64
import hashlib
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from brokers import Peer, connected, require_mosquitto, running, section, until
from scripted_broker import ScriptedBroker
from structlog.testing import capture_logs

from edge.config import BrokerSection, TlsSection
from edge.errors import ConfigError
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.session import Session

SECRET = "s3cret-Wort"


@pytest.fixture(autouse=True)
def _mosquitto() -> None:
    require_mosquitto()


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """Mosquitto's password file with the user `line1`; 7 is PBKDF2 with SHA-512."""
    salt = b"twelve bytes"
    digest = hashlib.pbkdf2_hmac("sha512", SECRET.encode(), salt, 101)
    salt64, digest64 = (base64.b64encode(part).decode() for part in (salt, digest))
    path = tmp_path / "passwords"
    path.write_text(f"line1:$7$101${salt64}${digest64}\n")
    return path


def test_the_right_password_opens_and_the_wrong_one_is_told_without_being_said(
    tmp_path: Path, passwords: Path
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"{SECRET}\n")
    wrong.write_text("not-the-W0rd\n")

    async def scenario() -> None:
        settings = [f"password_file {passwords}"]
        async with LocalBroker(kind="mosquitto", anonymous=False, settings=settings) as broker:
            for protocol in ("5", "3.1.1"):
                user = {"username": "line1", "protocol": protocol}
                async with connected(broker, "a", "t", password_file=right, **user) as peer:
                    assert await peer.publish("t", b"1")
                said = await _refusal(Peer(section(broker, password_file=wrong, **user), "b", {}))
                assert f"127.0.0.1:{broker.port}" in said
                assert "line1" in said
                assert "uthori" in said or "password" in said  # the broker's own reason
                assert "not-the-W0rd" not in said

    asyncio.run(scenario())


async def _refusal(peer: Peer) -> str:
    """All that a peer which is shut out says about it."""
    with capture_logs() as events:
        async with running(peer, wait=False):
            await until(lambda: peer.session.last_error != "")
    assert peer.session.counters["connects"] == 0
    return str(events) + peer.session.last_error


def test_a_corrected_password_file_is_read_without_a_restart(
    tmp_path: Path, passwords: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("outdated")

    async def scenario() -> None:
        settings = [f"password_file {passwords}"]
        async with LocalBroker(kind="mosquitto", anonymous=False, settings=settings) as broker:
            peer = Peer(section(broker, username="line1", password_file=secret), "a", {})
            async with running(peer, wait=False):
                await until(lambda: peer.session.counters["connect_failures"] > 0)
                secret.write_text(SECRET)
                await until(lambda: peer.session.connected)

    asyncio.run(scenario())


def test_a_file_that_cannot_be_used_is_said_at_once(tmp_path: Path) -> None:
    broker = section_of({"username": "u", "password_file": tmp_path / "absent"})
    with pytest.raises(ConfigError, match=r"password_file.*absent.*No such file"):
        Session(broker, "a")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        Session(section_of({"username": "u", "password_file": tmp_path / "empty"}), "a")
    no_pem = tmp_path / "ca.pem"
    no_pem.write_text("this is no certificate")
    with pytest.raises(ConfigError, match=r"ca_file.*ca\.pem"):
        Session(section_of({"tls": {"ca_file": no_pem}}), "a")


def test_the_file_that_is_missing_is_the_one_that_is_named(tmp_path: Path, authority: Path) -> None:
    whole = {
        "ca_file": authority / "ca.pem",
        "certificate_file": authority / "client.pem",
        "key_file": authority / "client.key",
    }
    for key in whole:
        broker = section_of({"tls": {**whole, key: tmp_path / "absent"}})
        with pytest.raises(ConfigError, match=rf"broker\.tls\.{key}.*absent.*No such file"):
            Session(broker, "a")


def section_of(fields: dict[str, Any]) -> BrokerSection:
    return BrokerSection.model_validate(fields)


def test_an_access_list_denies_a_publication_and_says_so_in_mqtt_5(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite line/#\n")

    async def scenario() -> None:
        settings = [f"acl_file {rules}"]
        async with (
            LocalBroker(kind="mosquitto", settings=settings) as broker,
            connected(broker, "a", "line/#") as peer,
        ):
            assert await peer.publish("line/granted", b"1")
            assert (await peer.next()).payload == b"1"
            with capture_logs() as events:
                assert not await peer.publish("plant/denied", b"2")
            refusal = next(e for e in events if e["event"] == "mqtt-publish-refused")
            assert (refusal["topic"], refusal["reason"]) == ("plant/denied", "Not authorized")
            assert peer.session.counters["publish_refused"] == 1
            assert not peer.disconnects
            async with connected(broker, "b", protocol="3.1.1") as old:
                # 3.1.1 has no word for it: the broker says yes and drops it.
                assert await old.publish("plant/denied", b"3")

    asyncio.run(scenario())


def test_a_subscription_that_is_refused_is_reported_and_the_others_stand() -> None:
    async def scenario() -> None:
        async with ScriptedBroker(suback=bytes([1, 0x87])) as broker:
            peer = Peer(broker.section(protocol="5"), "a", {"granted": 1, "denied": 1})
            async with running(peer):
                assert peer.session.connected
                assert peer.session.refused_filters == {"denied": "Not authorized"}

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority with a broker's and a client's certificate, and a strange one."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "stranger"):
        _openssl(
            folder,
            f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
            f" -keyout {name}.key -out {name}.pem -subj /CN={name}"
            " -addext keyUsage=critical,keyCertSign",
        )
    names = {"broker": "subjectAltName=DNS:localhost", "client": "subjectAltName=DNS:client"}
    for name, extension in names.items():
        (folder / f"{name}.ext").write_text(f"{extension}\nauthorityKeyIdentifier=keyid\n")
        _openssl(
            folder,
            f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
            f" -keyout {name}.key -out {name}.csr -subj /CN={name}",
        )
        _openssl(
            folder,
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
            f" -days 2 -out {name}.pem -extfile {name}.ext",
        )
    return folder


def _openssl(folder: Path, line: str) -> None:
    subprocess.run(
        ["openssl", *line.split()], cwd=folder, check=True, capture_output=True, timeout=60
    )


def _tls_broker(folder: Path) -> LocalBroker:
    settings = [
        f"cafile {folder}/ca.pem",
        f"certfile {folder}/broker.pem",
        f"keyfile {folder}/broker.key",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    return LocalBroker(kind="mosquitto", settings=settings, tls=_client_tls(folder))


def _client_tls(folder: Path) -> TlsSection:
    return TlsSection(
        ca_file=folder / "ca.pem",
        certificate_file=folder / "client.pem",
        key_file=folder / "client.key",
    )


def test_tls_with_a_client_certificate_carries_large_and_small_messages(authority: Path) -> None:
    async def scenario() -> None:
        async with _tls_broker(authority) as broker:
            tls = _client_tls(authority)
            async with connected(broker, "a", "t", tls=tls) as peer:
                # Many small packets share one TLS record, a large one takes many of them.
                sizes = [10] * 200 + [300_000] + [10] * 200 + [3_000_000, 1]
                for size in sizes:
                    assert peer.session.publish("t", b"x" * size)
                assert [len((await peer.next()).payload) for _ in sizes] == sizes
                await broker.kill()
                await until(lambda: not peer.session.connected)
                await broker.start()
                await until(lambda: peer.session.connected)
                assert await peer.publish("t", b"again")

    asyncio.run(scenario())


def test_packets_that_share_a_tls_record_are_all_read_and_can_all_be_acknowledged(
    authority: Path,
) -> None:
    # What the TLS library has decrypted wakes no selector: nothing more comes to wake it here.
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "broker.pem", authority / "broker.key")
    publishes = [b"\x32\x07\x00\x01t\x00" + bytes([mid]) + b"\x00!" for mid in (1, 2, 3)]

    async def scenario() -> None:
        script = ScriptedBroker(
            behind=publishes[0], after_suback=publishes[1] + publishes[2], tls=context
        )
        async with script as broker:
            tls = TlsSection(ca_file=authority / "ca.pem")
            config = broker.section(protocol="5", host="localhost", tls=tls, connect_timeout_s=30)
            peer = Peer(config, "a", {"t": 1})
            async with running(peer, wait=False):
                for _ in publishes:
                    await peer.next(deadline_s=12)  # before a keepalive would wake it
                acknowledgements = {b"\x40\x02\x00" + bytes([mid]) for mid in (1, 2, 3)}
                await until(lambda: acknowledgements <= set(broker.packets))
            assert peer.session.counters["stale_acknowledgements"] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ca_file": "stranger.pem"}, "certificate verify failed"),
        ({"certificate_file": None, "key_file": None}, ""),
    ],
    ids=["a broker whose authority is not ours", "a client without a certificate"],
)
def test_tls_is_refused(authority: Path, changes: dict[str, str | None], reason: str) -> None:
    async def scenario() -> None:
        async with _tls_broker(authority) as broker:
            files = {key: name and authority / name for key, name in changes.items()}
            tls = _client_tls(authority).model_copy(update=files)
            peer = Peer(section(broker, tls=tls), "a", {})
            async with running(peer, wait=False):
                await until(lambda: peer.session.counters["connect_failures"] > 1)
                assert peer.session.counters["connects"] == 0
                assert f"localhost:{broker.port}" in peer.session.last_error
                assert reason in peer.session.last_error

    asyncio.run(scenario())


def test_a_certificate_for_another_host_is_refused(authority: Path) -> None:
    async def scenario() -> None:
        async with _tls_broker(authority) as broker:
            peer = Peer(section(broker, host="127.0.0.1", tls=_client_tls(authority)), "a", {})
            async with running(peer, wait=False):
                await until(lambda: peer.session.counters["connect_failures"] > 0)
                assert "IP address mismatch" in peer.session.last_error

    asyncio.run(scenario())


def test_a_broker_whose_certificate_has_expired_is_refused_until_it_is_renewed(
    tmp_path: Path, authority: Path
) -> None:
    _openssl(
        authority,
        f"x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days -1"
        f" -out {tmp_path}/expired.pem -extfile broker.ext",
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "expired.pem", authority / "broker.key")

    async def scenario() -> None:
        async with ScriptedBroker(tls=context) as broker:
            tls = TlsSection(ca_file=authority / "ca.pem")
            config = broker.section(protocol="5", host="localhost", tls=tls, connect_timeout_s=5)
            peer = Peer(config, "a", {"t": 1})
            async with running(peer, wait=False):
                await until(lambda: "certificate has expired" in peer.session.last_error)
                assert peer.session.counters["connects"] == 0
                context.load_cert_chain(authority / "broker.pem", authority / "broker.key")
                await until(lambda: peer.session.connected, "it is let in")

    asyncio.run(scenario())


def test_a_renewed_certificate_and_authority_are_taken_up_without_a_restart(
    tmp_path: Path, authority: Path
) -> None:
    files = {"ca_file": "ca.pem", "certificate_file": "client.pem", "key_file": "client.key"}

    def install(ca: str, client: str) -> None:
        """Replace each file as a whole, as whoever renews certificates does."""
        for source, target in ((f"{ca}.pem", "ca.pem"), (f"{client}.pem", "client.pem")):
            (tmp_path / "aside").write_bytes((authority / source).read_bytes())
            (tmp_path / "aside").replace(tmp_path / target)
        (tmp_path / "client.key").write_bytes((authority / f"{client}.key").read_bytes())

    async def scenario() -> None:
        async with _tls_broker(authority) as broker:
            tls = TlsSection.model_validate({key: tmp_path / name for key, name in files.items()})
            install("stranger", "stranger")
            peer = Peer(section(broker, tls=tls), "a", {"t": 1})
            async with running(peer, wait=False):
                await until(lambda: "certificate" in peer.session.last_error, "it is refused")
                install("ca", "client")
                await until(lambda: peer.session.connected, "it is let in")
                assert await peer.publish("t", b"1")

    asyncio.run(scenario())
