"""Where the device's key comes from, and what a config may say of keys."""

import stat
from pathlib import Path

import pytest

from edge.config import LedgerSection
from edge.daemon.checkpoints import KEY_FILE, cosigners_of, keys_of
from edge.errors import ConfigError
from edge.ledger import note
from edge.ledger.note import COSIGNER, Signer

CLOUD = Signer("cloud.example", note.new_key(), COSIGNER).verifier.vkey


def test_the_devices_key_is_made_once_in_its_state_directory(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first, again = (keys_of(LedgerSection(), state) for _ in range(2))
    path = state / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [key.private_bytes_raw() for key in first.private] == [
        key.private_bytes_raw() for key in again.private
    ]
    assert again.cosigners == ()


def test_a_key_that_is_named_is_taken_and_none_is_made_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "named.pem"
    section = LedgerSection(key=path)
    with pytest.raises(
        ConfigError, match=r"named\.pem: the key cannot be read.*edge ledger key new"
    ):
        keys_of(section, tmp_path / "state")
    assert not path.exists()
    note.write_key(path, note.new_key())
    [key] = keys_of(section, tmp_path / "state").private
    assert key.private_bytes_raw() == note.read_key(path).private_bytes_raw()
    assert not (tmp_path / "state").exists()


def test_a_retiring_key_signs_after_the_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    for path in (old, new):
        note.write_key(path, note.new_key())
    keys = keys_of(LedgerSection(key=new, retiring_key=old), tmp_path)
    assert [key.private_bytes_raw() for key in keys.private] == [
        note.read_key(path).private_bytes_raw() for path in (new, old)
    ]


def test_only_cosigners_keys_may_cosign() -> None:
    assert [key.vkey for key in cosigners_of((CLOUD,))] == [CLOUD]
    log = Signer("edge/box1/0", note.new_key()).verifier.vkey
    with pytest.raises(ConfigError, match=r"ledger\.cosigners\[1\]: .* is the key of a log"):
        cosigners_of((CLOUD, log))
    with pytest.raises(ConfigError, match=r"ledger\.cosigners\[0\]: .* is not a verifier key"):
        cosigners_of(("hello",))


def test_a_state_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="Not a directory"):
        keys_of(LedgerSection(), tmp_path / "file" / "state")
