"""Compiled guests on disk: compiled once, loaded only when whole and ours."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from guest_wat import Guest, GuestFiles, assemble, guest

from edge.errors import IncompatibleError, StorageError, UntrustedError
from edge.wasm.code_cache import CodeCache, CompileLimits
from edge.wasm.engine import GuestEngine

pytest_plugins = ["guest_fixtures"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "var" / "guests"


@pytest.fixture
def written(files: GuestFiles) -> Guest:
    return files.write(guest())


def load(folder: Path, written: Guest, limits: CompileLimits | None = None) -> None:
    with GuestEngine(folder, limits=limits) as engine:
        module = engine.load(written.path, written.sha256, 8)
        assert module.instantiate(2000).call("edge_abi") == 0x10000


def only_entry(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def is_whole(entry: Path) -> bool:
    return hashlib.sha256(entry.read_bytes()).hexdigest() == entry.name.split(".")[-2]


def test_second_load_takes_the_entry_as_it_is(folder: Path, written: Guest) -> None:
    load(folder, written)
    made = only_entry(folder).stat()
    load(folder, written)
    assert only_entry(folder).stat().st_ino == made.st_ino


def test_entry_is_named_by_module_version_target_and_its_own_digest(
    folder: Path, written: Guest
) -> None:
    load(folder, written)
    entry = only_entry(folder)
    assert entry.name.startswith(f"{written.sha256}-50.0.1-")
    assert is_whole(entry)


def test_folder_is_made_for_its_owner_alone(folder: Path, written: Guest) -> None:
    load(folder, written)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_entry(folder).stat().st_mode & 0o777 == 0o600


def _cut(entry: Path) -> None:
    os.truncate(entry, entry.stat().st_size // 2)


def _flip(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)


def _open_to_others(entry: Path) -> None:
    entry.chmod(0o666)


def _link(entry: Path) -> None:
    elsewhere = entry.parents[1] / "elsewhere.cwasm"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)


def _false_code_under_a_true_name(entry: Path) -> None:
    content = b"not native code"
    name = entry.name.split(".")
    name[-2] = hashlib.sha256(content).hexdigest()
    entry.unlink()
    entry.with_name(".".join(name)).write_bytes(content)


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _open_to_others, _link, _false_code_under_a_true_name]
)
def test_damaged_entry_is_replaced(
    folder: Path, written: Guest, damage: Callable[[Path], None]
) -> None:
    load(folder, written)
    before = only_entry(folder)
    native = before.read_bytes()
    damage(before)
    load(folder, written)
    after = only_entry(folder)
    assert after.is_file()
    assert not after.is_symlink()
    assert after.stat().st_mode & 0o777 == 0o600
    assert after.read_bytes() == native
    assert is_whole(after)


def test_folder_that_others_may_write_is_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(UntrustedError, match=r"0777.*chmod go-w") as refusal:
        CodeCache(folder)
    assert str(folder) in str(refusal.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    with pytest.raises(UntrustedError, match="owner is uid 12345, expected 0"):
        CodeCache(folder)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/guests: cannot make the guest cache"):
        CodeCache(tmp_path / "file" / "guests")


def test_guest_that_cannot_be_read_is_named(folder: Path, written: Guest) -> None:
    with pytest.raises(StorageError, match=r"gone\.wasm: cannot read the guest"):
        load(folder, replace(written, path=written.path.with_name("gone.wasm")))


STEP = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (local.get 0)))"


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (CompileLimits(wall_s=0.01), "took longer than 0.01 s"),
        (CompileLimits(memory_mib=160), "took more than 160 MiB"),
        (CompileLimits(output_mib=0), "native code is larger than 0 MiB"),
    ],
)
def test_compilation_ends_at_its_limit_and_leaves_nothing(
    folder: Path, files: GuestFiles, limits: CompileLimits, sentence: str
) -> None:
    large = f"(func (param i32) (result i32) {STEP * 150_000} (local.get 0))"
    with pytest.raises(IncompatibleError, match=sentence):
        load(folder, files.write(guest(extra=large)), limits)
    assert list(folder.iterdir()) == []


def test_entries_that_were_not_used_for_longest_make_room(folder: Path, files: GuestFiles) -> None:
    cache = CodeCache(folder, max_bytes=60_000)  # an entry has 23 KB
    for number in range(4):
        written = files.write(guest(extra=f"(func (result i32) (i32.const {number}))"))
        with cache.native_code(written.path.read_bytes(), written.sha256, "guest"):
            newest = written.sha256
        # The clock of a file system is coarse: make the order certain.
        for path in folder.glob(f"{written.sha256}*"):
            os.utime(path, (1000 + number, 1000 + number))
    left = [path.name[:64] for path in folder.iterdir()]
    assert newest in left
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 60_000
    assert len(left) == 2


def test_compile_process_needs_no_file_and_no_environment(files: GuestFiles) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "edge.wasm.compile", "20", "1024", "16"],
        input=assemble(guest()),
        capture_output=True,
        env={},
        cwd="/",
        check=True,
        timeout=60,
    )
    assert done.stdout[:4] == b"\x7fELF"
