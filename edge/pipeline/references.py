"""Reference images on the frame path: encoded ones as they came, decoded ones in guest memory.

The supervisor says which references exist; this room decodes one when a frame first names it, and
keeps the most recently used in the guest's reference slots. Used by the decode thread alone.
"""

from collections import OrderedDict

from edge.contracts.frame import ContentType
from edge.contracts.plan import ImagePlan
from edge.errors import DecodeError, FrameError
from edge.pipeline.decode import decode
from edge.pipeline.finders import Slot

Encoded = tuple[ContentType, bytes | bytearray]
"""A reference as it came: content type and payload."""


class EncodedReferences:
    """References as they came, by key; bounded by the supervisor, which tells what to forget."""

    def __init__(self) -> None:
        self._known: dict[str, Encoded] = {}

    def keep(self, key: str, content: ContentType, payload: bytes | bytearray) -> None:
        """Take over a reference; `payload` is not copied and must not change."""
        self._known[key] = (content, payload)

    def forget(self, key: str) -> None:
        """Drop a reference; unknown ones are no error."""
        self._known.pop(key, None)

    def find(self, key: str) -> Encoded | None:
        """Return a reference; None: there is none with this key."""
        return self._known.get(key)


class MissingReferenceError(FrameError):
    """A frame names a reference that is not here."""

    reason = "no-reference"


class DecodedReferences:
    """The reference slots of one guest, least recently used first."""

    def __init__(self, slots: tuple[Slot, ...], image: ImagePlan) -> None:
        self._free = list(slots)
        self._image = image
        self._used: OrderedDict[str, Slot] = OrderedDict()

    def fetch(self, key: str, encoded: Encoded | None, busy: frozenset[str]) -> Slot:
        """Return the slot that holds a reference, decoding it when it is not there.

        Args:
            key: Names the reference.
            encoded: The reference; needed where no slot holds it.
            busy: Keys that frames under way still read; their slots stay untouched.

        Raises:
            MissingReferenceError: There is no such reference.
            DecodeError: It is not an image that the pipeline takes.
        """
        slot = self._used.get(key)
        if slot is not None:
            self._used.move_to_end(key)
            return slot
        if encoded is None:
            raise MissingReferenceError(f"no reference with key {key[:16]}")
        content, payload = encoded
        slot = self._take(busy)
        try:
            width, height = decode(payload, content, self._image, slot.pixels)
        except DecodeError as damaged:
            self._free.append(slot)
            raise DecodeError(f"reference {key[:16]}: {damaged}") from damaged
        slot.set_size(width, height)
        self._used[key] = slot
        return slot

    def _take(self, busy: frozenset[str]) -> Slot:
        if self._free:
            return self._free.pop()
        idle = next(key for key in self._used if key not in busy)
        return self._used.pop(idle)
