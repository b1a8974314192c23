"""Tiles: a growing Merkle tree as rows of 256 hashes, and their static files. Pure.

Rules (C2SP tlog-tiles, c2sp.org/tlog-tiles):

1. The tile `(level, n)` holds the roots of the 256 complete subtrees of 256**level leaves each from
   number 256 * n on; level 0 holds leaf hashes. A tile that is full never changes.
2. A hash enters the level above when its tile is full, not before: so all that changes as the tree
   grows is the last tile of each level, the `Edge`.
3. In files a tile that is not full has its width in its name, and a bundle of entries lies beside
   each tile of level 0: each entry after its length, 16 bits, big-endian.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.errors import DamagedError, StorageError
from edge.ledger.merkle import EMPTY_ROOT, HASH_BYTES, root_of

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
MAX_ENTRY_BYTES: Final = (1 << 16) - 1

Coordinates = tuple[int, int]
"""Level, and number in it."""


class Growth(msgspec.Struct, frozen=True):
    """What an append changes in what is stored.

    Attributes:
        hashes: Put into tiles that are not full: level, number among all of that level, hash.
        filled: Tiles that became full, with their 256 hashes; those of `hashes` that an earlier
            append put there are in them.
    """

    hashes: list[tuple[int, int, bytes]]
    filled: list[tuple[int, int, bytes]]


class Edge:
    """The last tile of each level, never full: what a tree of `size` leaves grows from. Immutable.

    Args:
        size: Leaves.
        rows: Hashes of these tiles, from level 0 up.

    Raises:
        DamagedError: They are not as many as this size has.
    """

    def __init__(self, size: int = 0, rows: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self._rows = [list(row) for row in rows]
        while self._rows and not self._rows[-1]:
            self._rows.pop()
        levels = max(len(self._rows), -(-size.bit_length() // HEIGHT))
        self._rows += [[] for _ in range(levels - len(self._rows))]
        for level, row in enumerate(self._rows):
            if len(row) != width(size, level):
                raise DamagedError(
                    f"the tree of {size} leaves has {len(row)} hashes in its last tile of level "
                    f"{level}, and {width(size, level)} belong there"
                )

    def grown(self, leaves: Sequence[bytes]) -> "tuple[Edge, Growth]":
        """Return the edge after more leaves, and what changed."""
        filled: list[tuple[int, int, bytes]] = []
        added: list[tuple[int, int, bytes]] = []
        rows: list[list[bytes]] = []
        first, new = self.size, list(leaves)
        level = 0
        while new or level < len(self._rows):
            row = self._rows[level] if level < len(self._rows) else []
            begin = first - len(row)  # number of the tile's first hash
            row = row + new
            above = []
            while len(row) >= WIDTH:
                tile, row = row[:WIDTH], row[WIDTH:]
                filled.append((level, begin // WIDTH, b"".join(tile)))
                above.append(root_of(tile))
                begin += WIDTH
            fresh = max(begin, first)
            added += [(level, n, row[n - begin]) for n in range(fresh, begin + len(row))]
            rows.append(row)
            first, new, level = first // WIDTH, above, level + 1
        return Edge(self.size + len(leaves), rows), Growth(added, filled)

    @property
    def rows(self) -> list[list[bytes]]:
        """Hashes of the last tile of each level, from level 0 up; not to be changed."""
        return self._rows

    def ends_with(self, leaves: Sequence[bytes]) -> bool:
        """Whether these are the last leaves, as far as the last tile of level 0 says."""
        last = self._rows[0] if self._rows else []
        shared = min(len(last), len(leaves))
        return not shared or last[-shared:] == list(leaves[-shared:])

    def root(self) -> bytes:
        """Return the root of the tree."""
        below: list[bytes] = []
        for row in self._rows:
            hashes = row + below
            below = [root_of(hashes)] if hashes else []
        return below[0] if below else EMPTY_ROOT


class TileReader:
    """The subtrees of a tree (`merkle.Subtrees`), out of its tiles; each tile is read once.

    Args:
        read: Returns the hashes of a tile, full or not.

    Attributes:
        reads: Tiles read.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.reads = 0
        self._read = read
        self._tiles: dict[Coordinates, bytes] = {}

    def __call__(self, height: int, index: int) -> bytes:
        """Return the root of a complete subtree.

        Raises:
            StorageError: The tile is missing or short.
        """
        level, above = divmod(height, HEIGHT)
        first = index << above
        at = (level, first // WIDTH)
        tile = self._tiles.get(at)
        if tile is None:
            self.reads += 1
            tile = self._tiles[at] = self._read(*at)
        begin = first % WIDTH
        hashes = split(tile)[begin : begin + (1 << above)]
        if len(hashes) != 1 << above:
            raise StorageError(f"tile {at[1]} of level {level} of the tree is missing or too short")
        return root_of(hashes)


def width(size: int, level: int) -> int:
    """Return how many hashes the last tile of a level has in a tree of `size` leaves, 0 to 255."""
    return (size >> HEIGHT * level) % WIDTH


def split(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    return [tile[n : n + HASH_BYTES] for n in range(0, len(tile), HASH_BYTES)]


def path(kind: int | str, n: int, hashes: int = WIDTH) -> str:
    """Return the name of a tile's file.

    Args:
        kind: The level, or `entries`.
        n: Number of the tile.
        hashes: In it, 1 to 256.
    """
    digits = f"{n:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([f"x{part}" for part in parts[:-1]] + [parts[-1]])
    return f"tile/{kind}/{name}" + (f".p/{hashes}" if hashes < WIDTH else "")


def of_tree(size: int, since: int = 0) -> list[tuple[int, int, int]]:
    """Return the tiles of a tree that one of `since` leaves did not have: level, n, hashes in it.

    Partial tiles are those of this size only.
    """
    found = []
    level = 0
    while size >> HEIGHT * level:
        hashes = size >> HEIGHT * level
        first = (since >> HEIGHT * level) // WIDTH
        found += [(level, n, WIDTH) for n in range(first, hashes // WIDTH)]
        if hashes % WIDTH and (since >> HEIGHT * level) != hashes:
            found.append((level, hashes // WIDTH, hashes % WIDTH))
        level += 1
    return found


def bundle(entries: Sequence[bytes]) -> bytes:
    """Return a bundle of entries.

    Raises:
        StorageError: An entry is longer than a bundle can say.
    """
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise StorageError(
                f"an entry of {len(entry)} bytes: a bundle holds up to {MAX_ENTRY_BYTES}"
            )
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
