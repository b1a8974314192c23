"""Merkle trees of RFC 6962, section 2.1, over SHA-256: roots, proofs, and their checks. Pure.

Rules:

1. leaf = SHA-256(0x00 || entry), node = SHA-256(0x01 || left || right), the empty tree's root is
   SHA-256 of nothing. A tree of n leaves is split at the largest power of two below n.
2. Proofs are made from a `Subtrees`, which tells the root of any complete and aligned subtree; how
   it knows is not known here. A proof asks for about log2(n) of them.
3. Indices count from 0, a range is `[low, high)`.
4. What checks a proof shares nothing with what makes it but the two hashes.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from edge.errors import ProofError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
MAX_PROOF_HASHES: Final = 126
"""A consistency proof between trees of up to 2^63 leaves."""

Subtrees = Callable[[int, int], bytes]
"""`(height, index)`: root of the subtree over the 2**height leaves from `index * 2**height` on, all
of which exist."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return hashlib.sha256(_NODE + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over hashes that are all of one height; the last one may be a smaller tree's.

    Joining neighbours row by row, an odd one moving up, gives the splits of rule 1.
    """
    row = list(hashes)
    if not row:
        return EMPTY_ROOT
    sha256 = hashlib.sha256
    while len(row) > 1:
        joined = [
            sha256(_NODE + left + right).digest()
            for left, right in zip(row[::2], row[1::2], strict=False)
        ]
        if len(row) % 2:
            joined.append(row[-1])
        row = joined
    return row[0]


class Range:
    """The roots of a growing tree's complete subtrees: all that its root needs.

    Args:
        size: Leaves.
        roots: As another range of this size has them: whoever keeps these goes on later.

    Attributes:
        size: Leaves.
    """

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        self.size = size
        self._roots = list(roots)

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, the largest first."""
        return tuple(self._roots)

    def push(self, subtree: bytes, height: int = 0) -> None:
        """Add a leaf, or the root of a complete subtree where the size is a multiple of its."""
        place = self.size >> height
        roots = self._roots
        while place & 1:
            subtree = hashlib.sha256(_NODE + roots.pop() + subtree).digest()
            place >>= 1
        roots.append(subtree)
        self.size += 1 << height

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        if not self._roots:
            return EMPTY_ROOT
        *above, root = self._roots
        for left in reversed(above):
            root = node_hash(left, root)
        return root


def root(size: int, subtrees: Subtrees) -> bytes:
    """Return the root of the tree of the first `size` leaves."""
    return _over(0, size, subtrees) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, subtrees: Subtrees) -> list[bytes]:
    """Return the audit path of a leaf, from its neighbour up (section 2.1.1).

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_over(middle, high, subtrees))
            high = middle
        else:
            path.append(_over(low, middle, subtrees))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, subtrees: Subtrees) -> list[bytes]:
    """Return the proof that the tree of `new` leaves begins with that of `old` (section 2.1.2).

    Raises:
        ValueError: `old` is larger than `new`.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves does not begin one of {new}")
    if old in (0, new):
        return []
    path = []
    low, high = 0, new
    whole = True  # whether [low, old) is all of the old tree: then its root is known already
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_over(middle, high, subtrees))
            high = middle
        else:
            path.append(_over(low, middle, subtrees))
            low, whole = middle, False
    if not whole:
        path.append(_over(low, high, subtrees))
    return path[::-1]


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that an audit path leads to (RFC 9162, section 2.1.3.2).

    Raises:
        ProofError: The path does not have the length that this leaf's has.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    at, last = index, size - 1
    for neighbour in path:
        if last == 0:
            raise ProofError(f"the proof is too long: {len(path)} hashes")
        if at & 1 or at == last:
            leaf = node_hash(neighbour, leaf)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            leaf = node_hash(leaf, neighbour)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError(f"the proof is too short: {len(path)} hashes")
    return leaf


def check_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that a tree begins with another (RFC 9162, section 2.1.4.2).

    Raises:
        ProofError: It does not, or the proof is another one's.
    """
    if old > new:
        raise ProofError(f"a tree of {old} leaves does not begin one of {new}")
    if old in (0, new):
        if path or old_root != (EMPTY_ROOT if not old else new_root):
            raise ProofError(f"two trees of {old} leaves differ")
        return
    hashes = list(path)
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    # Where the old tree is complete it stands in the new one as it is, and no hash repeats it.
    first = hashes.pop(0) if at and hashes else old_root
    was = now = first
    for neighbour in hashes:
        if last == 0:
            raise ProofError(f"the proof is too long: {len(path)} hashes")
        if at & 1 or at == last:
            was, now = node_hash(neighbour, was), node_hash(neighbour, now)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            now = node_hash(now, neighbour)
        at, last = at >> 1, last >> 1
    if last or was != old_root or now != new_root:
        raise ProofError(f"the tree of {new} leaves does not begin with that of {old}")


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _over(low: int, high: int, subtrees: Subtrees) -> bytes:
    """Return the root over the leaves `[low, high)`; `low` is aligned as rule 1 leaves it."""
    size = high - low
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return subtrees(height, low >> height)
    middle = low + _split(size)
    return node_hash(_over(low, middle, subtrees), _over(middle, high, subtrees))
