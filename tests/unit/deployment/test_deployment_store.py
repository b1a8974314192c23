"""The store: files by their digest, fetched once, resumed, bounded, mended, and collected."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from repositories import Site, cut_after, page, serving, whole

from edge.deployment.store import Store
from edge.deployment.transport import Transport
from edge.errors import StorageError, TransportError, UntrustedError

CONTENT = random.Random(6).randbytes(400_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"another file"
OTHER_DIGEST = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with two files."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "file").write_bytes(CONTENT)
    (tmp_path / "web" / "other").write_bytes(OTHER)
    with serving(tmp_path / "web") as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store of a mebibyte."""
    return Store(tmp_path / "store", 1 << 20)


def _fetch(store: Store, site: Site, name: str = "file") -> int:
    digest, size = (DIGEST, len(CONTENT)) if name == "file" else (OTHER_DIGEST, len(OTHER))
    return store.fetch(Transport(site.address), name, digest, size)


def _part(store: Store) -> Path:
    return store.deployments.parent / "parts" / DIGEST


def _blob(store: Store, digest: str = DIGEST) -> Path:
    return store.deployments.parent / "blobs" / digest


def test_a_file_is_fetched_once(store: Store, site: Site) -> None:
    assert _fetch(store, site) == len(CONTENT)
    assert store.read(DIGEST, len(CONTENT)) == CONTENT
    assert _fetch(store, site) == 0
    assert len(site.asked) == 1
    assert not _part(store).exists()
    with pytest.raises(StorageError, match="larger than 10 bytes"):
        store.read(DIGEST, 10)


def test_downloads_cut_at_random_are_resumed_without_waste(store: Store, site: Site) -> None:
    chance = random.Random(1)
    cuts = 0
    while not store.holds(DIGEST):
        site.rules["file"] = cut_after(chance.randint(1, 40_000))
        try:
            _fetch(store, site)
        except TransportError:
            cuts += 1
    assert cuts > 10
    assert len(site.asked) == cuts + 1
    assert store.read(DIGEST, len(CONTENT)) == CONTENT
    assert site.sent_bytes <= len(CONTENT) * 1.01, "waste"


def test_the_measure_of_waste_finds_a_server_that_always_begins_anew(
    store: Store, site: Site
) -> None:
    site.rules["file"] = cut_after(200_000)
    with pytest.raises(TransportError, match="ended early"):
        _fetch(store, site)
    site.rules["file"] = whole
    _fetch(store, site)
    assert site.sent_bytes > len(CONTENT) * 1.4
    assert store.holds(DIGEST)


@pytest.mark.parametrize("rot", [b"rotten", CONTENT[:1000] + b"!" + CONTENT[1001:5000]])
def test_a_part_that_changed_on_the_disk_costs_one_more_download(
    store: Store, site: Site, rot: bytes
) -> None:
    _part(store).write_bytes(rot)
    assert _fetch(store, site) == 2 * len(CONTENT) - len(rot)
    assert store.read(DIGEST, len(CONTENT)) == CONTENT


def test_a_part_that_is_longer_than_the_file_is_begun_anew(store: Store, site: Site) -> None:
    _part(store).write_bytes(CONTENT + b"more")
    assert _fetch(store, site) == len(CONTENT)


def test_a_part_that_is_whole_is_not_asked_for(store: Store, site: Site) -> None:
    _part(store).write_bytes(CONTENT)
    assert _fetch(store, site) == 0
    assert store.holds(DIGEST)
    assert not site.asked


def test_a_wrong_file_is_fetched_once_and_not_kept(store: Store, site: Site) -> None:
    site.rules["file"] = page(CONTENT[:-1] + b"?")
    with pytest.raises(UntrustedError, match="not the signed file"):
        _fetch(store, site)
    assert len(site.asked) == 1
    assert store.bytes() == 0
    site.rules["file"] = page(CONTENT + b"x" * 1_000_000)
    with pytest.raises(UntrustedError, match="sends more than its 400000 bytes"):
        _fetch(store, site)
    assert store.bytes() == 0


def test_the_quota_is_held_before_a_byte_moves(tmp_path: Path, site: Site) -> None:
    store = Store(tmp_path / "small", len(CONTENT) + 5)
    _part(store).write_bytes(CONTENT[:300_000])
    _fetch(store, site)  # what lies there of it counts once
    with pytest.raises(StorageError, match=r"the quota is 400005 .raise updates\.store_bytes"):
        _fetch(store, site, "other")
    assert [asked for asked, _ in site.asked] == ["/file"]
    with pytest.raises(StorageError, match="but the disk has"):
        Store(tmp_path / "large", 1 << 62).fetch(Transport(site.address), "x", "a" * 64, 1 << 60)


def test_a_blob_whose_bytes_changed_is_told_removed_and_fetched_anew(
    store: Store, site: Site
) -> None:
    _fetch(store, site)
    _blob(store).write_bytes(b"!" + CONTENT[1:])
    with pytest.raises(UntrustedError, match="changed on the disk"):
        store.read(DIGEST, len(CONTENT))
    assert not store.holds(DIGEST)
    assert _fetch(store, site) == len(CONTENT)


def test_a_deployment_is_made_of_links_and_mended_where_a_file_changed(
    store: Store, site: Site
) -> None:
    _fetch(store, site)
    _fetch(store, site, "other")
    folder = store.assemble("a" * 64, {"deep/er/file": DIGEST, "other": OTHER_DIGEST})
    assert (folder / "deep/er/file").read_bytes() == CONTENT
    assert (folder / "other").stat().st_nlink == 2
    assert store.assemble("a" * 64, {}) == folder, "it stands already"
    assert store.mend("a" * 64, [DIGEST, OTHER_DIGEST]) == 0
    assert folder.is_dir()
    (folder / "other").write_bytes(b"rotten")
    assert store.mend("a" * 64, [DIGEST, OTHER_DIGEST]) == 1
    assert not folder.exists()
    assert (store.holds(DIGEST), store.holds(OTHER_DIGEST)) == (True, False)


def test_a_deployment_whose_file_is_not_here_is_not_made(store: Store, site: Site) -> None:
    _fetch(store, site)
    with pytest.raises(StorageError):
        store.assemble("a" * 64, {"x": DIGEST, "y": OTHER_DIGEST})
    assert not (store.deployments / ("a" * 64)).exists()
    _fetch(store, site, "other")
    folder = store.assemble("a" * 64, {"x": DIGEST, "y": OTHER_DIGEST})
    assert (folder / "y").read_bytes() == OTHER


def test_collecting_takes_what_nothing_needs_and_nothing_else(store: Store, site: Site) -> None:
    """Of two deployments that share a file one stays; so do a fetch's blobs and its part."""
    fetched = {}
    for name in "abcd":
        content = name.encode() * 1_000
        digest = hashlib.sha256(content).hexdigest()
        (site.folder / name).write_bytes(content)
        store.fetch(Transport(site.address), name, digest, len(content))
        fetched[name] = digest
    store.assemble("1" * 64, {"shared": fetched["a"], "own": fetched["b"]})
    store.assemble("2" * 64, {"shared": fetched["a"], "own": fetched["c"]})
    _part(store).write_bytes(CONTENT[:5_000])
    (store.deployments / f".{'3' * 64}").mkdir()
    (_part(store).parent / ("e" * 64)).write_bytes(b"forgotten")

    assert store.collect(["1" * 64], [fetched["d"], DIGEST]) == 1_000 + len(b"forgotten")
    assert [entry.name for entry in store.deployments.iterdir()] == ["1" * 64]
    assert (store.deployments / ("1" * 64) / "shared").read_bytes() == b"a" * 1_000
    held = {name for name, digest in fetched.items() if store.holds(digest)}
    assert held == {"a", "b", "d"}
    assert _part(store).read_bytes() == CONTENT[:5_000]

    assert store.collect(["1" * 64]) == 1_000 + 5_000
    assert store.collect([]) == 2_000
    assert store.bytes() == 0


def test_a_deployment_that_goes_is_gone_at_once(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the midst of removing it, a device has no half of it under its name."""
    _fetch(store, site)
    for take in (lambda: store.forget("a" * 64), lambda: store.collect([])):
        folder = store.assemble("a" * 64, {"x": DIGEST})
        with monkeypatch.context() as killed:
            killed.setattr("shutil.rmtree", lambda *_, **__: None)
            take()
        assert not folder.exists()
        assert [entry.name for entry in store.deployments.iterdir()] == ["." + "a" * 64]
        assert store.assemble("a" * 64, {"x": DIGEST}) == folder
    store.collect([])
    assert list(store.deployments.iterdir()) == []


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Store(tmp_path / "file", 1)
