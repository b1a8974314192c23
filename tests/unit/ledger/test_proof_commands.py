"""prove, verify-proof, checkpoint, key and tiles, as their users run them; and without ours."""

import argparse
import base64
import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from ledgers import entry

from edge.cli import ledger as command
from edge.errors import ConfigError
from edge.ledger import audit, note
from edge.ledger import checkpoint as checkpoints
from edge.ledger.note import COSIGNER, Signer
from edge.ledger.signing import Keys
from edge.ledger.store import Prepared, Retention, Store

RECORDS = 600
SIGNED = 598
PAGE = Path(__file__).parents[3] / "docs" / "proofs.md"
CLOUD = Signer("cloud.example/plant7", note.new_key(), COSIGNER)
KEY = note.new_key()


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*words: str | Path) -> Ran:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        try:
            status = command.run(parser.parse_args([str(word) for word in words]))
        except SystemExit as usage:
            status = int(str(usage.code))
        shown = capsys.readouterr()
        return Ran(status, shown.out, shown.err)

    return run_one


def add(store: Store, first: int, last: int) -> None:
    for at in range(first, last + 1, 64):
        some = range(at, min(at + 64, last + 1))
        store.append([Prepared(entry(n), b"%032d" % n) for n in some])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 records, signed at 300 (cosigned) and 598; two records a part."""
    folder = tmp_path_factory.mktemp("state")
    store = Store(folder / "ledger", "box1", Retention(), Keys((KEY,), (CLOUD.verifier,)))
    add(store, 1, 300)
    made = store.sign(1)
    assert made is not None
    assert store.cosign(300, checkpoints.cosignature(made.note, CLOUD, 1_700_000_000)) == ""
    add(store, 301, SIGNED)
    store.sign(2)
    add(store, SIGNED + 1, RECORDS)
    store.receive(RECORDS, store.head.head)
    store.close()
    return folder


@pytest.fixture
def vkey(state: Path, run: Run) -> str:
    [line] = run("key", "show", state).out.splitlines()
    return line


@pytest.fixture(scope="module")
def pruned(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    shutil.copytree(state / "ledger", folder / "ledger")
    store = Store(folder / "ledger", "box1", Retention(max_records=200))
    while store.prune(1):
        pass
    store.close()
    return folder


def body_of(state: Path, seq: int) -> bytes:
    database = sqlite3.connect(state / "ledger" / "ledger.db")
    (body,) = database.execute("SELECT body FROM record WHERE seq=?", (seq,)).fetchone()
    database.close()
    return bytes(body)


def test_a_parts_proof_from_one_machine_verifies_on_another_from_file_and_key_alone(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    made = run("prove", state, "--part", "part-30", "--out", tmp_path / "p.tlog-proof")
    assert made.status == 0
    assert "2 records proved" in made.out
    assert f"verify-proof {tmp_path / 'p.tlog-proof'} --key '{vkey}'" in made.out
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "p.tlog-proof").rename(elsewhere / "p.tlog-proof")
    checked = run("verify-proof", elsewhere / "p.tlog-proof", "--key", vkey)
    assert checked.status == 0
    assert "holds: record 60 of 300 of edge/box1/" in checked.out
    assert "holds: record 61 of 300 of edge/box1/" in checked.out
    assert "part part-30" in checked.out
    document = json.loads(
        run("verify-proof", elsewhere / "p.tlog-proof", "--key", vkey, "--json").out
    )
    assert document["finding"] is None
    assert [one["seq"] for one in document["proofs"]] == [60, 61]
    assert document["proofs"][0]["record"]["part_id"] == "part-30"


def test_a_proof_takes_a_cosigned_checkpoint_where_there_is_one(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    for seq, size in (("7", 300), ("301", SIGNED)):
        out = tmp_path / f"{seq}.tlog-proof"
        assert run("prove", state, "--seq", seq, "--out", out).status == 0
        keys = ("--key", vkey, "--key", CLOUD.verifier.vkey)
        shown = run("verify-proof", out, *keys).out
        assert f"of {size} of edge/box1/" in shown
        assert ("cosigned by cloud.example/plant7" in shown) == (size == 300)
    assert (
        "at 2023-11-14T22:13:20+00:00" in run("verify-proof", tmp_path / "7.tlog-proof", *keys).out
    )


def test_keys_may_come_as_a_file_of_old_and_new_ones(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    run("prove", state, "--seq", "7", "--out", tmp_path / "p")
    other = Signer("edge/box1/0000000000000000", note.new_key()).verifier.vkey
    (tmp_path / "keys").write_text(f"# box1\n{other}\n\n{vkey}\n")
    assert run("verify-proof", tmp_path / "p", "--key", tmp_path / "keys").status == 0
    assert run("verify-proof", tmp_path / "p", "--key", other).status == 1


@pytest.mark.parametrize("empty", ["", "keys"])
def test_a_key_that_is_none_is_not_taken_for_no_wish(
    run: Run, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("# none yet\n")
    ran = run("verify", state, "--key", empty)
    assert (ran.status, "holds no key" in ran.err) == (2, True)


def test_a_spoiled_proof_a_wrong_key_and_no_key_are_told_apart(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    run("prove", state, "--seq", "7", "--out", out)
    out.write_bytes(out.read_bytes().replace(b"index 6", b"index 7"))
    spoiled = run("verify-proof", out, "--key", vkey)
    assert spoiled.status == 1
    assert "does not hold: the record is not leaf 7 of the signed tree" in spoiled.out
    as_json = run("verify-proof", out, "--key", vkey, "--json")
    assert json.loads(as_json.out)["proofs"] == []
    assert "is not leaf 7" in json.loads(as_json.out)["finding"]
    assert run("verify-proof", out, "--key", vkey[:-2] + "A=").status == 2
    assert "all are cosigners'" in run("verify-proof", out, "--key", CLOUD.verifier.vkey).err
    assert run("verify-proof", out, "--key", tmp_path / "absent").status == 2
    assert run("verify-proof", tmp_path / "absent", "--key", vkey).status == 2
    assert run("verify-proof", out).status == 2


def test_what_cannot_be_proved_is_said(run: Run, state: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--seq", "599"), "record 599 is not under a checkpoint yet: the last one is of 598"),
        (("--seq", "601"), "there is no record 601: the last one is 600"),
        (("--part", "none"), "none: no record here; if it was pruned, ask by --seq"),
    ):
        ran = run("prove", state, *words, "--out", tmp_path / "p")
        assert ran.status == 1
        assert said in ran.err
        assert not (tmp_path / "p").exists()
    ran = run("prove", state, "--part", "part-3", "--record", tmp_path / "r")
    assert (ran.status, "--record needs --seq" in ran.err) == (2, True)
    assert run("prove", tmp_path, "--seq", "1").status == 2


def test_an_altered_record_is_not_proved(run: Run, state: Path, tmp_path: Path) -> None:
    shutil.copytree(state / "ledger", tmp_path / "ledger")
    database = sqlite3.connect(tmp_path / "ledger" / "ledger.db", isolation_level=None)
    database.execute(
        "UPDATE record SET body=CAST(replace(body, 'reject', 'pass__') AS BLOB) WHERE seq=7"
    )
    database.close()
    ran = run("prove", tmp_path, "--seq", "7", "--out", tmp_path / "p")
    assert ran.status == 1
    assert "the leaf of record 7 is another's: the bytes were altered" in ran.err


def test_a_pruned_record_is_proved_to_whoever_has_its_bytes(
    run: Run, state: Path, pruned: Path, vkey: str, tmp_path: Path
) -> None:
    out, record = tmp_path / "p.tlog-proof", tmp_path / "record.json"
    made = run("prove", pruned, "--seq", "7", "--out", out)
    assert made.status == 0
    assert "record 7 was pruned: its leaf is proved, its bytes are not in the file" in made.out
    assert "holds no record" in run("verify-proof", out, "--key", vkey).out
    record.write_bytes(body_of(state, 7))
    assert run("verify-proof", out, "--key", vkey, "--record", record).status == 0
    assert run("prove", pruned, "--seq", "7", "--record", record, "--out", out).status == 0
    assert run("verify-proof", out, "--key", vkey).status == 0
    record.write_bytes(body_of(state, 8))
    ran = run("prove", pruned, "--seq", "7", "--record", record, "--out", out)
    assert (ran.status, "those of another record" in ran.err) == (1, True)


def test_the_script_of_the_page_checks_a_proof_with_nothing_of_ours(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    [script] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "edge" not in re.findall(r"^(?:import|from) (\w+)", script, re.MULTILINE)
    (tmp_path / "check_proof.py").write_text(script)
    out = tmp_path / "p.tlog-proof"
    run("prove", state, "--part", "part-30", "--out", out)

    def check(path: Path, key: str = vkey) -> subprocess.CompletedProcess[str]:
        # -I: isolated from this checkout and its packages.
        words = [sys.executable, "-I", "check_proof.py", str(path), key]
        return subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )

    done = check(out)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [60, 61]
    content = out.read_bytes()
    spoiled = tmp_path / "spoiled"
    for old, new, said in (
        (b"index 59", b"index 58", "the record is not in the signed tree"),
        (b"extra ey", b"extra eZ", "the record is not in the signed tree"),
        (b"\n300\n", b"\n301\n", "no true signature of this key"),
        (b"c2sp.org", b"c2sp,org", "not a proof"),
    ):
        assert old in content
        spoiled.write_bytes(content.replace(old, new, 1))
        done = check(spoiled)
        assert done.returncode == 1
        assert done.stderr.strip() == said
    stranger = Signer(vkey.split("+", maxsplit=1)[0], note.new_key()).verifier.vkey
    assert check(out, stranger).stderr.strip() == "no true signature of this key"
    assert check(out, CLOUD.verifier.vkey).stderr.strip() == "not the key of a ledger"


def test_verify_holds_a_ledger_to_a_checkpoint_and_a_key(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    printed = run("checkpoint", state)
    assert printed.out.splitlines()[1] == str(SIGNED)
    (tmp_path / "kept").write_text(printed.out)
    whole = run("verify", state, "--checkpoint", tmp_path / "kept", "--key", vkey)
    assert whole.status == 0
    assert "3 checkpoints, signed up to 598; the last 2 records are not signed yet" in whole.out
    assert "own word" not in whole.out
    assert "own word" in run("verify", state).out
    document = json.loads(run("verify", state, "--json").out)
    assert (document["signed"], document["checkpoints"], document["keys"]) == (SIGNED, 2, [vkey])
    stranger = Signer("edge/box1/0", note.new_key()).verifier.vkey
    assert "no known key of the log signed" in run("verify", state, "--key", stranger).out
    assert run("verify", state, "--checkpoint", tmp_path / "absent").status == 2
    assert run("checkpoint", state, "--size", "300").out.splitlines()[1] == "300"
    assert run("checkpoint", state, "--size", "301").status == 1
    listed = run("checkpoint", state, "--all").out.splitlines()
    assert [line.split()[0] for line in listed] == ["300", str(SIGNED)]
    assert "cloud.example/plant7" in listed[0]


def test_a_key_is_made_once_and_its_vkey_shown(run: Run, state: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    made = run("key", "new", path)
    assert made.status == 0
    shown = run("key", "show", state, "--file", path)
    verifier = note.parse_vkey(shown.out)
    assert verifier.public.hex() in made.out
    assert verifier.name.startswith("edge/box1/")
    with pytest.raises(ConfigError, match="a key file lies here already"):
        run("key", "new", path)
    assert run("key", "show", state, "--file", tmp_path / "absent").status == 1


# A reader of tiles that knows nothing of ours: RFC 6962 as it is written, over files alone.


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def tree_hash(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1", tree_hash(leaves[:middle]), tree_hash(leaves[middle:]))


class Follower:
    """Reads a folder of tiles, as a witness would over HTTP."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "checkpoint").read_text().split("\n")
        self.size, self.root = int(lines[1]), base64.b64decode(lines[2])
        self.folder = folder

    def tile(self, kind: str, n: int, hashes: int) -> bytes:
        partial = f".p/{hashes}" if hashes < 256 else ""
        return (self.folder / "tile" / kind / f"{n:03}{partial}").read_bytes()

    def row(self, level: int) -> list[bytes]:
        count = self.size >> 8 * level
        content = b"".join(
            self.tile(str(level), n, min(256, count - 256 * n)) for n in range(-(-count // 256))
        )
        return [content[at : at + 32] for at in range(0, len(content), 32)]

    def entries(self) -> list[bytes]:
        found = []
        for n in range(-(-self.size // 256)):
            bundle = self.tile("entries", n, min(256, self.size - 256 * n))
            while bundle:
                length = int.from_bytes(bundle[:2], "big")
                found.append(bundle[2 : 2 + length])
                bundle = bundle[2 + length :]
        return found


def test_a_reader_of_the_standard_follows_the_tiles(
    run: Run, state: Path, vkey: str, tmp_path: Path
) -> None:
    out = tmp_path / "tiles"
    shutil.copytree(state / "ledger", tmp_path / "ledger")
    assert run("tiles", tmp_path, "--out", out).status == 0
    first = Follower(out)
    leaves = first.row(0)
    assert first.size == SIGNED
    assert tree_hash(leaves) == first.root
    assert first.row(1) == [tree_hash(leaves[:256]), tree_hash(leaves[256:512])]
    assert [sha256(b"\0", one) for one in first.entries()] == leaves
    signed = out / "checkpoint"
    assert checkpoints.opened(signed.read_bytes(), [note.parse_vkey(vkey)])

    # It goes on: the old tree begins the new one, and what was full was not written again.
    full = out / "tile" / "0" / "001"
    before = full.stat().st_mtime_ns
    store = Store(tmp_path / "ledger", "box1", Retention(), Keys((KEY,)))
    add(store, RECORDS + 1, 1_100)
    store.sign(3)
    store.close()
    document = json.loads(run("tiles", tmp_path, "--out", out, "--json").out)
    assert (document["since"], document["size"]) == (SIGNED, 1_100)
    second = Follower(out)
    assert second.size == 1_100
    assert tree_hash(second.row(0)) == second.root
    assert tree_hash(second.row(0)[: first.size]) == first.root, "consistent with what it saw"
    assert [sha256(b"\0", one) for one in second.entries()] == second.row(0)
    assert full.stat().st_mtime_ns == before
    assert not (out / "tile" / "0" / "002.p").exists()
    assert not (out / "tile" / "entries" / "002.p").exists()
    assert run("tiles", tmp_path, "--out", out).status == 0


def test_tiles_of_another_history_or_ledger_are_not_continued(
    run: Run, state: Path, pruned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tiles"
    run("tiles", state, "--out", out)
    origin, size, _, *rest = (out / "checkpoint").read_text().split("\n")
    other = base64.b64encode(bytes(32)).decode()
    for lines, said in (
        ((origin, size, other), "one of the two was rewritten"),
        ((origin, "9999", other), "this is an older copy"),
        ((origin + "x", size, other), "and this ledger is"),
    ):
        (out / "checkpoint").write_text("\n".join([*lines, *rest]))
        ran = run("tiles", state, "--out", out)
        assert ran.status == 1
        assert said in ran.err
    ran = run("tiles", pruned, "--out", tmp_path / "of-pruned")
    assert "records up to 400 were pruned here" in ran.out
    assert (
        tree_hash(Follower(tmp_path / "of-pruned").row(0)) == Follower(tmp_path / "of-pruned").root
    )
    entries = tmp_path / "of-pruned" / "tile" / "entries"
    assert sorted(path.name for path in entries.iterdir()) == ["002.p"]


def test_a_ledger_without_a_checkpoint_says_so(run: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "ledger", "box1", Retention())
    add(store, 1, 3)
    store.close()
    assert run("checkpoint", tmp_path).status == 1
    assert "nothing to publish" in run("tiles", tmp_path, "--out", tmp_path / "t").err
    assert "the last one is of 0 records" in run("prove", tmp_path, "--seq", "1").err
    assert run("key", "show", tmp_path).status == 1
    checked = run("verify", tmp_path)
    assert checked.status == 0
    assert "signed up to 0; the last 3 records are not signed yet" in checked.out


def test_a_ledger_whose_checkpoints_were_removed_is_held_to_the_key_that_is_known(
    run: Run, state: Path, vkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(state / "ledger", tmp_path / "ledger")
    database = sqlite3.connect(tmp_path / "ledger" / "ledger.db", isolation_level=None)
    assert run("verify", tmp_path, "--key", vkey).status == 0  # control
    database.execute("DELETE FROM checkpoint WHERE size > 300")
    # So much may be unsigned at any time; beyond that, somebody rewrote what was signed.
    assert run("verify", tmp_path, "--key", vkey).status == 0
    with monkeypatch.context() as stricter:
        stricter.setattr(audit, "MAX_UNSIGNED", RECORDS - 301)
        found = run("verify", tmp_path, "--key", vkey)
        assert found.status == 1
        assert "unsigned: records 301 to 600 are under no checkpoint" in found.out
    database.execute("DELETE FROM checkpoint")
    database.execute("DELETE FROM signer")
    database.close()
    found = run("verify", tmp_path, "--key", vkey)
    assert found.status == 1
    assert "unsigned: records 1 to 600 are under no checkpoint" in found.out
    # Control: by its own word nothing is wrong, which is why keys are to be known from elsewhere.
    assert run("verify", tmp_path).status == 0
