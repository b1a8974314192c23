"""Reference images as the supervisor keeps them: encoded, by id, bounded by bytes.

They arrive retained, so a restarted supervisor gets them again from the broker. A worker gets one
from here with the first frame that names it.
"""

import hashlib
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final

import msgspec

from edge.contracts.frame import ContentType
from edge.daemon.intake import fingerprint
from edge.errors import DecodeError

OVERHEAD_BYTES: Final = 1_024
"""What an entry costs beside its payload, generously: a flood of tiny references is bounded too."""
_NUMBERS: Final = itertools.count()


class Held(msgspec.Struct, frozen=True, dict=True):
    """A reference image, encoded as it came.

    Attributes:
        key: Names it to a worker; no other image of this process has it.
    """

    key: str
    content: ContentType
    payload: bytes

    @classmethod
    def of(cls, content: ContentType, payload: bytes) -> "Held":
        """Take in a payload."""
        return cls(str(next(_NUMBERS)), content, payload)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the payload, hex; first asked for by whoever may take 0.8 ms for each MiB."""
        return hashlib.sha256(self.payload).hexdigest()


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
        self._images: dict[tuple[int, ContentType], Held] = {}
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

        Ids that name the same bytes, read as the same format, share an image.

        Raises:
            DecodeError: It is larger than all that may be kept.
        """
        place = fingerprint(payload), content
        like = self._images.get(place)
        # Byte by byte, and only then: of 8 MiB that costs the event loop 1 ms, their SHA-256 6.
        held = like if like is not None and like.payload == payload else Held.of(content, payload)
        if _cost(held) > self._capacity_bytes:
            raise DecodeError(
                f"{len(payload)} bytes; limits.reference_bytes is {self._capacity_bytes} in all"
            )
        known = self._by_id.get(reference_id)
        if known is held:
            return
        self._images[place] = held
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
            place = fingerprint(held.payload), held.content
            if self._images.get(place) is held:
                del self._images[place]
            self._on_dropped(held.key, evicted)


def _cost(held: Held) -> int:
    return len(held.payload) + OVERHEAD_BYTES
