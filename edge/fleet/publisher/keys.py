"""Signing keys: Ed25519, one PEM file each, found by what they are and not by their name.

A key file may lie anywhere: in the fleet's `keys/` folder, or on a stick that is plugged in to sign
and pulled out again. Private keys are not encrypted here: whoever needs that keeps them in an
encrypted folder, or signs with python-tuf and a hardware token; a repository takes any signature.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge import durable
from edge.errors import DeploymentError

_MAX_PEM_BYTES: Final = 4 << 10
SUFFIX: Final = ".pem"
_MAX_SAID: Final = 200
"""Of what OpenSSL says; of a key damaged in the right place it is a page."""


def create(folder: Path, name: str) -> SSlibKey:
    """Make a key pair; the private key is written to `NAME.pem`, durably, for its owner alone.

    Raises:
        DeploymentError: There is a key of that name already, or the file cannot be written.
    """
    signer = CryptoSigner.generate_ed25519()
    path = folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.create(path, signer.private_bytes)  # before anything names it
    except FileExistsError:
        raise DeploymentError(f"{path}: is there already; a key is never overwritten") from None
    except OSError as failed:
        raise DeploymentError(f"{path}: cannot be written: {failed.strerror}") from failed
    return signer.public_key


class KeyRing:
    """The private keys at hand.

    Args:
        folders: Where PEM files are looked for; one that is not there holds none.

    Raises:
        DeploymentError: A file is no Ed25519 key, or cannot be read.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._signers: dict[str, CryptoSigner] = {}
        self._paths: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                signer = _read(path)
                self._signers[signer.public_key.keyid] = signer
                self._paths[signer.public_key.keyid] = path

    def find(self, keyids: Iterable[str]) -> list[CryptoSigner]:
        """Return those of the keys that are at hand."""
        return [self._signers[keyid] for keyid in keyids if keyid in self._signers]

    def path(self, keyid: str) -> Path | None:
        """Return where a key lies; None where it is not at hand."""
        return self._paths.get(keyid)


def _read(path: Path) -> CryptoSigner:
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_PEM_BYTES)
        key = load_pem_private_key(pem, password=None)
    except OSError as failed:
        raise DeploymentError(f"{path}: cannot be read: {failed.strerror}") from failed
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as wrong:
        said = " ".join(str(wrong).split())[:_MAX_SAID]
        raise DeploymentError(f"{path}: is no unencrypted private key in PEM: {said}") from wrong
    if not isinstance(key, Ed25519PrivateKey):
        raise DeploymentError(f"{path}: is no Ed25519 key")
    return CryptoSigner(key)
