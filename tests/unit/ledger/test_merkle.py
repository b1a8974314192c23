"""The tree against RFC 6962's own definitions, and proofs against every way to spoil them."""

import hashlib

import pytest

from edge.errors import ProofError, StorageError
from edge.ledger import merkle, tiles

# The test tree of the certificate-transparency project: entries, and the root after each of them.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1, over leaf hashes, as it stands there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    left, right = by_definition(leaves[:middle]), by_definition(leaves[middle:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaves_of(count: int) -> list[bytes]:
    return [merkle.leaf_hash(b"%d" % number) for number in range(count)]


def grown(
    leaves: list[bytes], step: int
) -> tuple[tiles.Edge, dict[tuple[int, int], bytes], dict[tuple[int, int], bytes]]:
    """A tree grown in steps, and what a store of its changes then holds: hashes and full tiles."""
    edge = tiles.Edge()
    hashes: dict[tuple[int, int], bytes] = {}
    full: dict[tuple[int, int], bytes] = {}
    for at in range(0, len(leaves), step):
        edge, growth = edge.grown(leaves[at : at + step])
        for level, n, tile in growth.filled:
            for number in range(n * 256, (n + 1) * 256):
                hashes.pop((level, number), None)
            full[level, n] = tile
        hashes |= {(level, number): one for level, number, one in growth.hashes}
    return edge, hashes, full


def reader(
    hashes: dict[tuple[int, int], bytes], full: dict[tuple[int, int], bytes]
) -> tiles.TileReader:
    def read(level: int, n: int) -> bytes:
        if (level, n) in full:
            return full[level, n]
        partial = sorted(at for at in hashes if at[0] == level and at[1] // 256 == n)
        return b"".join(hashes[at] for at in partial)

    return tiles.TileReader(read)


def test_roots_are_those_of_the_reference_tree() -> None:
    leaves = [merkle.leaf_hash(entry) for entry in ENTRIES]
    growing = merkle.Range()
    assert growing.root() == merkle.EMPTY_ROOT == merkle.root_of([])
    for size, root in enumerate(ROOTS, start=1):
        growing.push(leaves[size - 1])
        assert growing.root().hex() == root
        assert merkle.root_of(leaves[:size]).hex() == root


@pytest.mark.parametrize("step", [1, 64, 300])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 700, 2_049])
def test_a_tree_grown_in_steps_has_the_root_of_the_definition(count: int, step: int) -> None:
    leaves = leaves_of(count)
    edge, hashes, full = grown(leaves, step)
    assert edge.size == count
    assert edge.root() == by_definition(leaves)
    assert merkle.root(count, reader(hashes, full)) == by_definition(leaves)
    rows = [
        [hashes[at] for at in sorted(hashes) if at[0] == level]
        for level in range(max(at[0] for at in [*hashes, (0, 0)]) + 1)
    ]
    assert tiles.Edge(count, rows).root() == edge.root()


def test_three_levels_of_tiles_hold_together() -> None:
    count = 256 * 256 + 256 + 3
    leaves = leaves_of(count)
    edge, hashes, full = grown(leaves, 1_000)
    assert (1, 0) in full
    assert sorted(hashes) == [(0, count - 3), (0, count - 2), (0, count - 1), (1, 256), (2, 0)]
    assert edge.root() == merkle.root_of(leaves)
    for index in (0, 255, 256, 65_535, 65_536, count - 1):
        subtrees = reader(hashes, full)
        path = merkle.inclusion_proof(index, count, subtrees)
        assert merkle.root_by_inclusion(leaves[index], index, count, path) == edge.root()
        assert subtrees.reads <= 2 * 3


def test_an_edge_with_a_hash_too_few_is_refused() -> None:
    edge, hashes, _ = grown(leaves_of(300), 64)
    rows = [[hashes[at] for at in sorted(hashes) if at[0] == level] for level in (0, 1)]
    with pytest.raises(StorageError, match="43 hashes in its last tile of level 0, and 44 belong"):
        tiles.Edge(edge.size, [rows[0][:-1], rows[1]])


@pytest.mark.parametrize("size", [*range(1, 20), 300])
def test_every_leaf_is_proved_and_no_other(size: int) -> None:
    leaves = leaves_of(size)
    edge, hashes, full = grown(leaves, 64)
    for index in range(size):
        path = merkle.inclusion_proof(index, size, reader(hashes, full))
        root = merkle.root_by_inclusion(leaves[index], index, size, path)
        assert root == edge.root()
        assert merkle.root_by_inclusion(b"\1" * 32, index, size, path) != root
        for other in {index + 1, index - 1, 0} - {index}:
            try:
                assert merkle.root_by_inclusion(leaves[index], other, size, path) != root
            except ProofError:
                continue
        for spoiled in (path[:-1], [*path, path[-1]] if path else [leaves[0]]):
            if spoiled != path:
                with pytest.raises(ProofError, match=r"too (long|short)"):
                    merkle.root_by_inclusion(leaves[index], index, size, spoiled)


@pytest.mark.parametrize("new", [1, 2, 3, 7, 8, 9, 16, 19, 257])
def test_consistency_is_proved_for_every_earlier_size_and_for_no_other_tree(new: int) -> None:
    leaves = leaves_of(new)
    edge, hashes, full = grown(leaves, 64)
    forged = merkle.root_of([b"\1" * 32, *leaves[1:]])
    for old in range(new + 1):
        path = merkle.consistency_proof(old, new, reader(hashes, full))
        root = merkle.root_of(leaves[:old])
        merkle.check_consistency(old, root, new, edge.root(), path)
        with pytest.raises(ProofError):
            merkle.check_consistency(old, b"\1" * 32, new, edge.root(), path)
        if 0 < old < new:
            with pytest.raises(ProofError):
                merkle.check_consistency(old, root, new, forged, path)
            for at in range(len(path)):
                spoiled = [*path]
                spoiled[at] = b"\2" * 32
                with pytest.raises(ProofError):
                    merkle.check_consistency(old, root, new, edge.root(), spoiled)
            for spoiled in (path[:-1], [*path, path[-1]]):
                with pytest.raises(ProofError):
                    merkle.check_consistency(old, root, new, edge.root(), spoiled)


def test_impossible_proofs_are_not_made() -> None:
    with pytest.raises(ValueError, match="leaf 5 is not in a tree of 5"):
        merkle.inclusion_proof(5, 5, lambda _height, _index: b"")
    with pytest.raises(ValueError, match="does not begin"):
        merkle.consistency_proof(6, 5, lambda _height, _index: b"")
    with pytest.raises(ProofError, match="leaf 5 is not in a tree of 5"):
        merkle.root_by_inclusion(bytes(32), 5, 5, [])
    with pytest.raises(ProofError, match="does not begin"):
        merkle.check_consistency(6, bytes(32), 5, bytes(32), [])


@pytest.mark.parametrize(
    ("n", "hashes", "expected"),
    [
        (0, 256, "tile/0/000"),
        (5, 7, "tile/0/005.p/7"),
        (1_234_067, 256, "tile/0/x001/x234/067"),
        (1_000, 1, "tile/0/x001/000.p/1"),
    ],
)
def test_files_of_tiles_are_named_as_the_standard_says(n: int, hashes: int, expected: str) -> None:
    assert tiles.path(0, n, hashes) == expected


def test_the_standards_example_has_its_tiles() -> None:
    of_tree = tiles.of_tree(70_000)
    assert len([tile for tile in of_tree if tile[0] == 0 and tile[2] == 256]) == 273
    assert [tile for tile in of_tree if tile[2] < 256] == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert [tile for tile in of_tree if tile[0] == 1 and tile[2] == 256] == [(1, 0, 256)]
    assert tiles.of_tree(256) == [(0, 0, 256), (1, 0, 1)]
    assert tiles.of_tree(300, 257) == [(0, 1, 44)]
    assert tiles.of_tree(300, 300) == []


def test_a_bundle_says_the_length_of_each_entry_and_takes_none_too_long() -> None:
    assert tiles.bundle([b"ab", b""]) == b"\x00\x02ab\x00\x00"
    assert len(tiles.bundle([bytes(65_535)])) == 65_537
    with pytest.raises(StorageError, match="65536 bytes: a bundle holds up to 65535"):
        tiles.bundle([bytes(65_536)])
