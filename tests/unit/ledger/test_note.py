"""Signed notes and checkpoints: the standard's own examples, and every way to spoil them."""

import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.errors import ConfigError, ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger.checkpoint import Checkpoint
from edge.ledger.note import COSIGNER, Signer

# The example of Go's package golang.org/x/mod/sumdb/note: another implementation's signature.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
""".encode()  # noqa: E501 - the line is signed as it is

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = checkpoints.origin("box1", "00112233445566aa")
DEVICE = Signer(ORIGIN, KEY)
CLOUD = Signer("cloud.example/plant7", Ed25519PrivateKey.from_private_bytes(b"c" * 32), COSIGNER)
TREE = Checkpoint(ORIGIN, 20_852_163, b"\x5a" * 32)
SIGNED = checkpoints.signed(TREE, [DEVICE])


def test_a_note_of_another_implementation_verifies() -> None:
    verifier = notes.parse_vkey(GO_VKEY)
    assert verifier.vkey == GO_VKEY
    note = notes.parse(GO_NOTE)
    assert note.encode() == GO_NOTE
    assert notes.signers(note, [verifier]) == {verifier: 0}


@pytest.mark.parametrize("at", range(0, len(GO_NOTE), 7))
def test_no_byte_of_a_signed_note_can_be_altered(at: int) -> None:
    altered = bytearray(GO_NOTE)
    altered[at] ^= 1
    verifier = notes.parse_vkey(GO_VKEY)
    try:
        assert not notes.signers(notes.parse(bytes(altered)), [verifier])
    except ProofError:
        return


def test_a_checkpoint_is_three_lines_and_a_signature() -> None:
    origin, size, root, empty, line, end = SIGNED.decode().split("\n")
    assert (origin, size, empty, end) == ("edge/box1/00112233445566aa", "20852163", "", "")
    assert root == "Wlpa" * 10 + "Wlo="
    assert line.startswith(f"— {ORIGIN} ")
    opened = checkpoints.opened(SIGNED, [DEVICE.verifier])
    assert opened.checkpoint == TREE
    assert opened.logs == (DEVICE.verifier,)
    assert opened.cosigners == {}


def test_openssl_verifies_a_checkpoint(tmp_path: Path) -> None:
    """Nothing of ours: the key as PEM, the text and the bare signature as files."""
    note = notes.parse(SIGNED)
    (tmp_path / "text").write_text(note.text)
    (tmp_path / "signature").write_bytes(note.signatures[0].value)
    (tmp_path / "key.pem").write_bytes(notes.pem_of(KEY))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-inkey", str(tmp_path / "key.pem")]
    command += ["-in", str(tmp_path / "text"), "-sigfile", str(tmp_path / "signature")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    (tmp_path / "text").write_text(note.text.replace("20852163", "20852164"))
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 1


SPOILED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "size": (lambda note: note.replace(b"20852163", b"20852164"), "signature of .* is false"),
    "root": (lambda note: note.replace(b"Wlpa", b"Wlpb", 1), "signature of .* is false"),
    "origin": (lambda note: note.replace(b"box1", b"box2"), "no known key of the log"),
    "zero": (lambda note: note.replace(b"\n20852163", b"\n020852163"), "is no size"),
    "negative": (lambda note: note.replace(b"\n20852163", b"\n-1"), "is no size"),
    "huge": (lambda note: note.replace(b"\n20852163", b"\n" + b"9" * 30), "beyond"),
    "padding": (lambda note: note.replace(b"Wlo=", b"Wlp="), "is no root"),
    "short": (lambda note: note.replace(b"Wlpa", b"", 1), "is no root"),
    "line": (lambda note: note.replace(b"\n20852163", b""), "expected origin, size and root"),
    "dash": (lambda note: note.replace("— ".encode(), b"- "), "not a signature line"),
    "end": (lambda note: note[:-1], "not a signed note"),
    "half": (lambda note: note[:40], "not a signed note"),
    "returns": (lambda note: note.replace(b"\n", b"\r\n"), "control characters"),
    "utf8": (lambda note: b"\xff" + note, "not a signed note"),
    "long": (lambda note: note + b"x" * 70_000, "limit is 65536"),
    "lines": (lambda note: note + note.splitlines(keepends=True)[-1] * 64, "65 signatures"),
    "empty": (lambda note: note[:0], "not a signed note"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_an_altered_checkpoint_is_refused(how: str) -> None:
    alter, problem = SPOILED[how]
    with pytest.raises(ProofError, match=problem):
        checkpoints.opened(alter(SIGNED), [DEVICE.verifier])


def test_a_checkpoint_of_another_log_is_refused_though_a_known_key_signed_it() -> None:
    text = Checkpoint("edge/box2/00112233445566aa", 1, bytes(32)).text()
    note = notes.Note(text, (DEVICE.sign(text),)).encode()
    with pytest.raises(ProofError, match=r"a checkpoint of 'edge/box2/.*signed by the key of"):
        checkpoints.opened(note, [DEVICE.verifier])


def test_a_cosignature_says_who_saw_the_tree_and_when() -> None:
    line = checkpoints.cosignature(SIGNED, CLOUD, 1_679_315_147)
    note = checkpoints.with_line(SIGNED, line)
    assert note.startswith(SIGNED)
    opened = checkpoints.opened(note, [DEVICE.verifier, CLOUD.verifier])
    assert opened.cosigners == {CLOUD.verifier: 1_679_315_147}
    # To who does not know the cosigner, the line says nothing, and spoils nothing.
    assert checkpoints.opened(note, [DEVICE.verifier]).cosigners == {}
    # What is signed is the time too.
    altered = notes.parse_signature(line)
    later = notes.Signature(
        altered.name, altered.key_id, (9_999).to_bytes(8, "big") + altered.value[8:]
    )
    forged = checkpoints.with_line(SIGNED, later.line())
    with pytest.raises(ProofError, match=r"signature of cloud\.example/plant7 is false"):
        checkpoints.opened(forged, [DEVICE.verifier, CLOUD.verifier])


def test_a_newer_cosignature_of_the_same_key_takes_the_place_of_the_older() -> None:
    first = checkpoints.with_line(SIGNED, checkpoints.cosignature(SIGNED, CLOUD, 1))
    second = checkpoints.with_line(first, checkpoints.cosignature(SIGNED, CLOUD, 2))
    known = [DEVICE.verifier, CLOUD.verifier]
    assert checkpoints.opened(second, known).cosigners == {CLOUD.verifier: 2}
    assert len(notes.parse(second).signatures) == 2


def test_a_log_key_does_not_cosign_and_a_cosigner_alone_is_no_log() -> None:
    with pytest.raises(ValueError, match="needs a key of a cosigner's kind"):
        checkpoints.cosignature(SIGNED, DEVICE, 1)
    note = notes.parse(SIGNED)
    alone = notes.Note(note.text, (CLOUD.sign(note.text, 1),)).encode()
    with pytest.raises(ProofError, match="no known key of the log signed this checkpoint"):
        checkpoints.opened(alone, [DEVICE.verifier, CLOUD.verifier])


def test_two_keys_sign_while_one_follows_the_other() -> None:
    new = Signer(ORIGIN, notes.new_key())
    note = checkpoints.signed(TREE, [new, DEVICE])
    for known in (new.verifier, DEVICE.verifier):
        assert checkpoints.opened(note, [known]).logs == (known,)


@pytest.mark.parametrize("signer", [DEVICE, CLOUD])
def test_a_verifier_key_reads_back_and_a_typing_error_is_found(signer: Signer) -> None:
    vkey = signer.verifier.vkey
    assert notes.parse_vkey(vkey) == signer.verifier
    for spoiled in (vkey[:-1], vkey.replace("+", " "), vkey.swapcase(), f"x{vkey}", "", "+" * 9):
        with pytest.raises(ProofError):
            notes.parse_vkey(spoiled)


def test_a_key_file_is_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    notes.write_key(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert notes.read_key(path).private_bytes_raw() == KEY.private_bytes_raw()
    with pytest.raises(ConfigError, match="a key file lies here already"):
        notes.write_key(path, notes.new_key())
    assert notes.read_key(path).private_bytes_raw() == KEY.private_bytes_raw()
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_is_made_after_a_kill_in_the_midst_of_it_though_the_pid_is_the_same(
    tmp_path: Path,
) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from edge.ledger import note\n"
        "os.getpid = lambda: 1  # as in a container\n"
        "if 'die' in sys.argv: os.fsync = lambda _: os.kill(os._pid, signal.SIGKILL)\n"
        "note.write_key(Path(sys.argv[1]), note.new_key())"
    )
    script = f"import os; os._pid = os.getpid()\n{script}"
    path = tmp_path / "ledger.key"
    command = [sys.executable, "-c", script, str(path)]
    killed = subprocess.run([*command, "die"], check=False, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    notes.read_key(path)


def test_a_key_made_by_openssl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    key = notes.read_key(path)
    assert checkpoints.opened(
        checkpoints.signed(TREE, [Signer(ORIGIN, key)]), [Signer(ORIGIN, key).verifier]
    )


def test_what_is_no_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(ConfigError, match=r"No such file.*edge ledger key new"):
        notes.read_key(path)
    damaged = (
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VvBCIEIAaPx1POJXJ5pMiG383axwtZ3MG7GLBDbYMFufONwOAP\n"
        b"-----END PRIVATE KEY-----\n"
    )  # one byte of it makes it another kind's key, of a wrong length
    for content in (b"hello", damaged):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="expected an Ed25519 private key"):
            notes.read_key(path)
    command = ["openssl", "genpkey", "-algorithm", "x25519", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with pytest.raises(ConfigError, match="found X25519PrivateKey"):
        notes.read_key(path)
