"""Reference images as the supervisor keeps them: encoded, by id, bounded by bytes.

They arrive retained, so a restarted supervisor gets them again from the broker. A worker gets one
from here with the first frame that names it.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from edge.contracts.frame import ContentType
from edge.errors import DecodeError

OVERHEAD_BYTES: Final = 1_024
"""What an entry costs beside its payload, generously: a flood of tiny references is bounded too."""


class Held(msgspec.Struct, frozen=True):
    """A reference image, encoded as it came.

    Attributes:
        digest: sha256 of the payload, in hex.
        key: Names it to a worker: the same bytes read as another format are another image.
    """

    digest: str
    key: str
    content: ContentType
    payload: bytes

    @classmethod
    def of(cls, content: ContentType, payload: bytes) -> "Held":
        """Take in a payload."""
        digest = hashlib.sha256(payload).hexdigest()
        read_as = f"{content.pixel_format or content.encoding}-{content.width}x{content.height}"
        return cls(digest, f"{digest}-{read_as}", content, payload)


class ReferenceShelf:
    """References by id; the least recently named goes first when the bytes run out.

    Args:
        capacity_bytes: Encoded bytes kept in all, with `OVERHEAD_BYTES` for each.
        on_dropped: Called with the key of an image that no id names any more, and with whether it
            had to give way to another.
    """

    def __init__(self, capacity_bytes: int, on_dropped: Callable[[str, bool], None]) -> None:
        self._capacity_bytes = capacity_bytes
        self._on_dropped = on_dropped
        self._by_id: OrderedDict[str, Held] = OrderedDict()
        self._names: Counter[str] = Counter()
        self.bytes = 0

    def __len__(self) -> int:
        """Return how many ids name an image."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Held]:
        """Every image once, even where several ids name it."""
        return iter({held.key: held for held in self._by_id.values()}.values())

    def find(self, reference_id: str) -> Held | None:
        """Return the reference and mark it as used, or None."""
        held = self._by_id.get(reference_id)
        if held is not None:
            self._by_id.move_to_end(reference_id)
        return held

    def put(self, reference_id: str, content: ContentType, payload: bytes) -> None:
        """Take in a reference; one with the same id is replaced.

        Raises:
            DecodeError: It is larger than all that may be kept.
        """
        held = Held.of(content, payload)
        if _cost(held) > self._capacity_bytes:
            raise DecodeError(
                f"{len(payload)} bytes; limits.reference_bytes is {self._capacity_bytes} in all"
            )
        known = self._by_id.get(reference_id)
        if known is not None and known.key == held.key:
            return
        self._by_id[reference_id] = held
        self._by_id.move_to_end(reference_id)
        self._names[held.key] += 1
        self.bytes += _cost(held)
        if known is not None:
            self._drop(known, evicted=False)
        while self.bytes > self._capacity_bytes:
            _, oldest = self._by_id.popitem(last=False)
            self._drop(oldest, evicted=True)

    def remove(self, reference_id: str) -> None:
        """Drop a reference; unknown ids are no error."""
        held = self._by_id.pop(reference_id, None)
        if held is not None:
            self._drop(held, evicted=False)

    def _drop(self, held: Held, *, evicted: bool) -> None:
        self.bytes -= _cost(held)
        self._names[held.key] -= 1
        if self._names[held.key] == 0:
            del self._names[held.key]
            self._on_dropped(held.key, evicted)


def _cost(held: Held) -> int:
    return len(held.payload) + OVERHEAD_BYTES
