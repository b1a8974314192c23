"""Signed notes: text, and under it the signatures of named Ed25519 keys. Pure but for key files.

Rules (C2SP signed-note, c2sp.org/signed-note, and tlog-cosignature):

1. A note is text that ends in a newline, an empty line, and signature lines: em dash, space, the
   key's name, space, base64 of the key's id (4 bytes) and the signature.
2. The id is the beginning of SHA-256(name || newline || kind || public key), so one key may sign as
   two kinds: a log's signature is over the text; a cosignature carries a time, and is over a
   header, the time and the text.
3. A verifier key (`vkey`) is `name+id+base64(kind || public key)`. Names have no spaces and no `+`.
4. Lines of unknown keys say nothing and are passed over. A line that claims a known key and does
   not verify spoils the note.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge import durable
from edge.errors import ConfigError, MediumError, ProofError

MAX_NOTE_BYTES: Final = 64 << 10
MAX_SIGNATURES: Final = 64
LOG: Final = 1
"""Kind of a log's key."""
COSIGNER: Final = 4
"""Kind of a witness's key."""
MAX_NAME: Final = 255

_DASH: Final = "— "
_ID_BYTES: Final = 4
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_TIME_BYTES: Final = 8
_MAX_KEY_FILE_BYTES: Final = 4_096
_NAME: Final = re.compile(r"[^\s+\x00-\x20\x7f-\x9f]+")


class Signature(msgspec.Struct, frozen=True):
    """A signature line: who claims to have signed, with which key, and what it says."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line, with its newline."""
        return f"{_DASH}{self.name} {encoded(self.key_id + self.value)}\n"


class Note(msgspec.Struct, frozen=True):
    """A note as it was read; nothing of it is verified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """Return the note's bytes."""
        return (self.text + "\n" + "".join(one.line() for one in self.signatures)).encode()


class Verifier(msgspec.Struct, frozen=True):
    """A public key with its name, which says who signs with it.

    Attributes:
        kind: `LOG` or `COSIGNER`.
        public: 32 bytes.
    """

    name: str
    kind: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The key's id (rule 2)."""
        seed = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(seed).digest()[:_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as one writes it down (rule 3)."""
        return f"{self.name}+{self.key_id.hex()}+{encoded(bytes([self.kind]) + self.public)}"

    def named(self, name: str) -> "Verifier":
        """Return the same key under another name."""
        return Verifier(name, self.kind, self.public)

    def time_signed(self, text: str, signature: Signature) -> int | None:
        """Check a signature of this key.

        Returns:
            UTC seconds at which a cosigner signed, 0 for a log; None: it is another key's line.

        Raises:
            ProofError: It claims this key and is false.
        """
        if (signature.name, signature.key_id) != (self.name, self.key_id):
            return None
        value, time_s, signed = signature.value, 0, text
        if self.kind == COSIGNER:
            time_s = int.from_bytes(value[:_TIME_BYTES], "big")
            signed, value = _cosigned(text, time_s), value[_TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(value, signed.encode())
        except (InvalidSignature, ValueError) as false:
            raise ProofError(
                f"the signature of {self.name} is false: text or line was altered"
            ) from (false)
        return time_s


class Signer:
    """A private key with its name.

    Args:
        name: Who signs: of a log, the origin of its checkpoints.
        key: As from `read_key`.
        kind: `LOG` or `COSIGNER`.

    Attributes:
        verifier: What others check with.
    """

    def __init__(self, name: str, key: Ed25519PrivateKey, kind: int = LOG) -> None:
        _check_name(name)
        self._key = key
        self.verifier = Verifier(name, kind, key.public_key().public_bytes_raw())

    def sign(self, text: str, time_s: int = 0) -> Signature:
        """Sign a text; `time_s`, UTC, goes into a cosignature."""
        if self.verifier.kind == COSIGNER:
            value = time_s.to_bytes(_TIME_BYTES, "big")
            value += self._key.sign(_cosigned(text, time_s).encode())
        else:
            value = self._key.sign(text.encode())
        return Signature(self.verifier.name, self.verifier.key_id, value)


def parse(note: bytes) -> Note:
    """Read a note; nothing is verified.

    Raises:
        ProofError: It is none.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise ProofError(f"a note of {len(note)} bytes; the limit is {MAX_NOTE_BYTES}")
    try:
        content = note.decode()
    except UnicodeDecodeError as wrong:
        raise ProofError(f"not a signed note: {wrong}") from wrong
    if any(ord(character) < ord(" ") and character != "\n" for character in content):
        raise ProofError("not a signed note: it has control characters")
    text, parted, below = content.rpartition("\n\n")
    if not (parted and below.endswith("\n")):
        raise ProofError("not a signed note: no text with signature lines under an empty line")
    lines = below[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise ProofError(f"a note with {len(lines)} signatures; the limit is {MAX_SIGNATURES}")
    return Note(text + "\n", tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> Signature:
    """Read a signature line, with or without its newline.

    Raises:
        ProofError: It is none.
    """
    name, _, encoded = line.removesuffix("\n").removeprefix(_DASH).partition(" ")
    value = decoded(encoded)
    if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(value) <= _ID_BYTES:
        raise ProofError(f"not a signature line: {line[:100]!r}")
    return Signature(name, value[:_ID_BYTES], value[_ID_BYTES:])


def parse_vkey(vkey: str) -> Verifier:
    """Read a verifier key (rule 3).

    Raises:
        ProofError: It is none, of another kind than Ed25519, or its id is not its own.
    """
    name, _, rest = vkey.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    key = decoded(encoded)
    if not _NAME.fullmatch(name) or not re.fullmatch("[0-9a-f]{8}", key_id) or not key:
        raise ProofError(
            f"{vkey[:120]!r} is not a verifier key: expected NAME+ID+KEY, as `edge ledger key "
            "show` prints it"
        )
    if key[0] not in (LOG, COSIGNER) or len(key) != 1 + _KEY_BYTES:
        raise ProofError(f"{vkey[:120]!r} is not an Ed25519 key")
    verifier = Verifier(name, key[0], key[1:])
    if verifier.key_id.hex() != key_id:
        raise ProofError(
            f"the key of {name} has the id {verifier.key_id.hex()}, and not {key_id}: a character "
            "of it was altered"
        )
    return verifier


def signers(note: Note, known: Iterable[Verifier]) -> dict[Verifier, int]:
    """Return who of the known signed (rule 4), each with the time of a cosigner, 0 for a log.

    Raises:
        ProofError: A signature that claims one of them is false.
    """
    found = {}
    for verifier in known:
        for signature in note.signatures:
            time_s = verifier.time_signed(note.text, signature)
            if time_s is not None:
                found[verifier] = time_s
    return found


def new_key() -> Ed25519PrivateKey:
    """Return a new private key."""
    return Ed25519PrivateKey.generate()


def pem_of(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as its file has it: PKCS #8, PEM, not encrypted, as OpenSSL reads it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a new key file, readable by its owner alone, durably; an old one is never replaced.

    Raises:
        ConfigError: There is one already, or it cannot be written.
        MediumError: The medium is full, or fails; nothing of the key is left there.
    """
    try:
        durable.create(path, pem_of(key))
    except FileExistsError as taken:
        raise ConfigError(
            path, "a key file lies here already", "choose another name; a key is never replaced"
        ) from taken
    except OSError as failed:
        problem = durable.storage_error(f"{path}: the key cannot be written", failed)
        if isinstance(problem, MediumError):
            raise problem from failed
        raise ConfigError(path, f"the key cannot be written: {failed.strerror}") from failed


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key file (`pem_of`).

    Raises:
        ConfigError: There is none, or it holds no such key.
    """
    remedy = "make one with `edge ledger key new FILE`"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_FILE_BYTES)
        key = serialization.load_pem_private_key(content, None)
    except OSError as failed:
        raise ConfigError(path, f"the key cannot be read: {failed.strerror}", remedy) from failed
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as wrong:
        raise ConfigError(
            path, "expected an Ed25519 private key, PKCS #8 in PEM, not encrypted", remedy
        ) from wrong
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(path, f"expected an Ed25519 key, found {type(key).__name__}", remedy)
    return key


def decoded(text: str) -> bytes:
    """Return what base64 stands for, empty where it is not the one way to write it."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return value if encoded(value) == text else b""


def encoded(value: bytes) -> str:
    """Return base64 of a value."""
    return base64.b64encode(value).decode("ascii")


def _cosigned(text: str, time_s: int) -> str:
    return f"cosignature/v1\ntime {time_s}\n{text}"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name.encode()) > MAX_NAME:
        raise ValueError(f"{name!r} is no name of a key: no spaces, no '+'")
