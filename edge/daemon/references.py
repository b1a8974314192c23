"""Reference images as the supervisor keeps them: encoded, by id, bounded by bytes.

They arrive retained, so a restarted supervisor gets them again from the broker; a restarted worker
gets them from here.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from edge.contracts.frame import ContentType


class Held(msgspec.Struct, frozen=True):
    """A reference image, encoded as it came."""

    digest: str
    content: ContentType
    payload: bytes


class ReferenceShelf:
    """References by id; the least recently named goes first when the bytes run out.

    Args:
        capacity_bytes: Encoded bytes kept in all.
        on_kept: Called with each new image.
        on_dropped: Called with the digest of an image that no id names any more.
    """

    def __init__(
        self,
        capacity_bytes: int,
        on_kept: Callable[[Held], None],
        on_dropped: Callable[[str], None],
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._on_kept = on_kept
        self._on_dropped = on_dropped
        self._by_id: OrderedDict[str, Held] = OrderedDict()
        self.bytes = 0

    def __iter__(self) -> Iterator[Held]:
        """Every image once, even where several ids name it."""
        return iter({held.digest: held for held in self._by_id.values()}.values())

    def find(self, reference_id: str) -> Held | None:
        """Return the reference and mark it as used, or None."""
        held = self._by_id.get(reference_id)
        if held is not None:
            self._by_id.move_to_end(reference_id)
        return held

    def put(self, reference_id: str, content: ContentType, payload: bytes) -> None:
        """Take in a reference; one with the same id is replaced."""
        held = Held(hashlib.sha256(payload).hexdigest(), content, payload)
        known = self._by_id.get(reference_id)
        if known is not None and known.digest == held.digest and known.content == content:
            return
        self.remove(reference_id)
        while self._by_id and self.bytes + len(payload) > self._capacity_bytes:
            self.remove(next(iter(self._by_id)))
        self._by_id[reference_id] = held
        self.bytes += len(payload)
        self._on_kept(held)

    def remove(self, reference_id: str) -> None:
        """Drop a reference; unknown ids are no error."""
        held = self._by_id.pop(reference_id, None)
        if held is None:
            return
        self.bytes -= len(held.payload)
        if all(other.digest != held.digest for other in self._by_id.values()):
            self._on_dropped(held.digest)
