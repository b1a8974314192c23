"""A ledger as static files, so that any web server shows it and any witness can follow it.

Rules (C2SP tlog-tiles, c2sp.org/tlog-tiles):

1. `tile/LEVEL/N` and `tile/entries/N` as in `edge.ledger.tiles`, up to the last checkpoint. That is
   written last, when the rest is durable: who reads it finds all that it covers.
2. What the checkpoint that lies there covers is not written again. It is continued only if it is
   of this ledger and of this tree: another history goes into another folder.
3. Bundles of records that were pruned are not there, nor tiles of leaf hashes that were dropped;
   what was written before, stays. Nor are bundles with a record longer than they can say: its 256
   records are known by hash alone.
"""

import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from edge import durable
from edge.errors import ProofError, StorageError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import merkle, note, tiles
from edge.ledger.reading import Reading
from edge.ledger.tiles import HEIGHT, WIDTH, TileReader

CHECKPOINT: Final = "checkpoint"
_MODE: Final = 0o644


class Published(msgspec.Struct, frozen=True):
    """What was written.

    Attributes:
        since: Size of the tree that lay there before.
        size: Of the tree that lies there now.
        files: Written.
        pruned: Records up to here are gone, and not in a bundle.
        too_long: The records that keep their bundles away.
    """

    origin: str
    since: int
    size: int
    files: int
    pruned: int
    too_long: tuple[int, ...] = ()


def publish(ledger: Reading, folder: Path) -> Published:
    """Write a ledger's tiles up to its last checkpoint; what lies there already is continued.

    Raises:
        ProofError: There is no checkpoint, or what lies there is of another ledger or history.
        StorageError: A record or hash is missing, or the folder cannot be written.
    """
    last = ledger.checkpoint()
    if last is None:
        raise ProofError("the ledger has no checkpoint yet: there is nothing to publish")
    subtrees = TileReader(ledger.tile)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        since = _since(ledger, folder, last.size, subtrees)
        files, too_long = 0, []
        kept_from = ledger.leaf_tiles()[0]
        new = [tile for tile in tiles.of_tree(last.size, since) if tile[0] or tile[1] >= kept_from]
        for level, n, hashes in new:
            content = ledger.tile(level, n)[: hashes * merkle.HASH_BYTES]
            if len(content) < hashes * merkle.HASH_BYTES:
                raise StorageError(f"tile {n} of level {level} of the tree is missing")
            _write(folder, tiles.path(level, n, hashes), content)
            files += 1
            if level == 0:
                written, refused = _write_bundle(ledger, folder, n, hashes)
                files += written
                too_long += refused
        os.sync()  # one for all: a sync of each would take minutes for a million records
        durable.replace(folder / CHECKPOINT, last.note, _MODE)
        _remove_partial(folder, new, since)
    except OSError as failed:
        raise StorageError(f"{folder}: cannot be written: {failed.strerror}") from failed
    pruned = min(ledger.marks["anchor"].seq, last.size)
    return Published(ledger.log_origin, since, last.size, files + 1, pruned, tuple(too_long))


def _since(ledger: Reading, folder: Path, size: int, subtrees: TileReader) -> int:
    """Return the size of the tree that lies there, which must be the beginning of ours (rule 2)."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    there = checkpoints.read(note.parse(path.read_bytes()))
    if there.origin != ledger.log_origin:
        raise ProofError(
            f"{path}: is of {there.origin!r}, and this ledger is {ledger.log_origin!r}"
        )
    if there.size > size or merkle.root(there.size, subtrees) != there.root:
        raise ProofError(
            f"{path}: its tree of {there.size} records does not begin this one of {size}: one of "
            "the two was rewritten, or this is an older copy (publish to another folder)"
        )
    return there.size


def _write_bundle(ledger: Reading, folder: Path, n: int, hashes: int) -> tuple[bool, list[int]]:
    """Write the records beside a tile; return whether, and which were too long."""
    first = n * WIDTH + 1
    if first <= ledger.marks["anchor"].seq:
        return False, []  # some of it was pruned
    rows = list(ledger.places(first, first + hashes - 1))
    if len(rows) != hashes:
        raise StorageError(f"of records {first} to {first + hashes - 1}, {len(rows)} are there")
    too_long = [row.seq for row in rows if len(row.body) > tiles.MAX_ENTRY_BYTES]
    if too_long:
        return False, too_long
    _write(folder, tiles.path("entries", n, hashes), tiles.bundle([row.body for row in rows]))
    return True, []


def _write(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _remove_partial(folder: Path, new: list[tuple[int, int, int]], since: int) -> None:
    """Remove the partial tiles that are full now."""
    for level, n, hashes in new:
        if hashes == WIDTH and n == (since >> HEIGHT * level) // WIDTH:
            for kind in (level, "entries") if level == 0 else (level,):
                shutil.rmtree(folder / f"{tiles.path(kind, n)}.p", ignore_errors=True)
