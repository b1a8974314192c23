"""What the supervisor keeps is bounded: references, verdicts given, actions, log lines."""

import hashlib

import pytest

from edge.contracts.frame import ContentType, Encoding, PixelFormat
from edge.contracts.messages import ActionWish
from edge.contracts.plan import ActionGrant
from edge.daemon.actions import Grant
from edge.daemon.intake import fingerprint
from edge.daemon.references import OVERHEAD_BYTES, ReferenceShelf
from edge.daemon.remembered import Given, Remembered
from edge.daemon.throttle import BURST, INTERVAL_NS, MAX_CAUSES, Throttle
from edge.errors import DecodeError

S = 1_000_000_000
JPEG = ContentType()
PAYLOAD = 4_000
ROOM_FOR_3 = 3 * (PAYLOAD + OVERHEAD_BYTES)


class Shelf(ReferenceShelf):
    """A shelf that writes down what it drops."""

    def __init__(self, capacity_bytes: int = ROOM_FOR_3) -> None:
        self.dropped: list[tuple[str, bool]] = []
        super().__init__(capacity_bytes, lambda key, evicted: self.dropped.append((key, evicted)))

    def fill(self, *names: str) -> None:
        for name in names:
            self.put(name, JPEG, image(name))

    def key(self, name: str) -> str:
        held = self._by_id[name]  # not `find`, which uses it
        return held.key

    @property
    def names(self) -> str:
        return "".join(name for name in "abcdef" if name in self._by_id)


def image(name: str) -> bytes:
    return name.encode() * PAYLOAD


def test_the_least_recently_named_reference_gives_way() -> None:
    shelf = Shelf()
    shelf.fill("a", "b", "c")
    least = shelf.key("b")
    assert shelf.find("a") is not None
    shelf.fill("d")
    assert shelf.names == "acd"
    assert shelf.dropped == [(least, True)]
    assert shelf.bytes == ROOM_FOR_3


def test_a_reference_that_is_larger_than_the_shelf_is_refused_and_pushes_nothing_out() -> None:
    shelf = Shelf()
    shelf.fill("a", "b", "c")
    with pytest.raises(DecodeError, match=r"limits\.reference_bytes"):
        shelf.put("d", JPEG, bytes(ROOM_FOR_3))
    assert shelf.names == "abc"


def test_a_flood_of_tiny_references_is_bounded_too() -> None:
    shelf = Shelf()
    for number in range(1_000):
        shelf.put(str(number), JPEG, b"x")
    assert len(shelf) <= ROOM_FOR_3 // OVERHEAD_BYTES


def test_a_replaced_reference_is_dropped_and_the_new_one_found() -> None:
    shelf = Shelf()
    shelf.fill("a")
    before = shelf.key("a")
    shelf.put("a", JPEG, image("b"))
    held = shelf.find("a")
    assert held is not None
    assert held.payload == image("b")
    assert shelf.dropped == [(before, False)]
    assert shelf.bytes == PAYLOAD + OVERHEAD_BYTES


def test_the_same_reference_again_changes_nothing() -> None:
    shelf = Shelf()
    shelf.fill("a", "a")
    assert shelf.dropped == []
    assert shelf.bytes == PAYLOAD + OVERHEAD_BYTES


def test_an_image_that_two_ids_name_is_dropped_with_the_last_of_them() -> None:
    shelf = Shelf()
    shelf.put("a", JPEG, image("x"))
    shelf.put("b", JPEG, image("x"))
    assert len(list(shelf)) == 1
    shared = shelf.key("b")
    shelf.remove("a")
    assert shelf.dropped == []
    shelf.remove("b")
    assert shelf.dropped == [(shared, False)]
    assert shelf.bytes == 0
    shelf.remove("b")  # an id that is not there is no error


def test_the_same_bytes_read_as_another_format_are_another_image() -> None:
    wide = ContentType(Encoding.RAW, PixelFormat.GRAY8, 80, 50)
    high = ContentType(Encoding.RAW, PixelFormat.GRAY8, 50, 80)
    shelf = Shelf()
    for name, content in zip("abc", (wide, high, JPEG), strict=True):
        shelf.put(name, content, image("a"))
    assert len(list(shelf)) == 3
    assert len({held.digest for held in shelf}) == 1


def test_images_of_one_fingerprint_that_differ_are_two() -> None:
    one, other = bytearray(100_000), bytearray(100_000)
    other[-1_500] = 1  # between two of the pieces that a fingerprint is of
    assert fingerprint(bytes(one)) == fingerprint(bytes(other))
    shelf = Shelf(1_000_000)
    for name, payload in (("a", one), ("b", other), ("c", one)):
        shelf.put(name, JPEG, bytes(payload))
    assert [held.payload for name in "abc" if (held := shelf.find(name))] == [one, other, one]
    for name in "acb":
        shelf.remove(name)
    assert (len(shelf), shelf.bytes) == (0, 0)
    assert len(shelf.dropped) == len(set(shelf.dropped))


def test_no_image_is_digested_where_it_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold up all verdicts: 6 ms for 8 MiB."""
    shelf = Shelf()
    with monkeypatch.context() as patched:
        patched.delattr("hashlib.sha256")
        shelf.fill("a", "b", "a")
        held = shelf.find("a")
    assert held is not None
    assert held.digest == hashlib.sha256(image("a")).hexdigest()


def test_remembered_verdicts_are_bounded_by_number() -> None:
    remembered = Remembered(3)
    for number in range(5):
        remembered.keep(str(number), Given(b"v", 0))
    assert [remembered.find(str(n)) is not None for n in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert (len(remembered), remembered.bytes) == (3, 3)


def test_remembered_verdicts_are_bounded_by_bytes() -> None:
    remembered = Remembered(1_000, max_bytes=100)
    for number in range(10):
        remembered.keep(str(number), Given(bytes(30), 0))
    assert (len(remembered), remembered.bytes) == (3, 90)


def test_an_action_is_granted_so_often_in_any_minute() -> None:
    grant = Grant(ActionGrant("action.reject", max_per_minute=2, max_ttl_ms=100))
    wish = ActionWish(0, 1.0, 50)
    assert [grant.admit(wish, t * S) for t in (0, 30, 59)] == [50, 50, None]
    assert [grant.admit(wish, t * S) for t in (60, 61, 90)] == [50, None, 50]


def test_an_action_never_holds_longer_than_granted() -> None:
    grant = Grant(ActionGrant("action.reject", max_per_minute=9, max_ttl_ms=100))
    assert [grant.admit(ActionWish(0, 1.0, ttl), 0) for ttl in (0, 100, 101, 2**32 - 1)] == [
        *(0, 100, 100, 100)
    ]


def test_a_cause_that_repeats_is_logged_seldom_and_nothing_is_forgotten() -> None:
    now = 0
    throttle = Throttle(lambda: now)
    assert [throttle.admit("a") for _ in range(BURST + 2)] == [0] * BURST + [None, None]
    assert throttle.admit("b") == 0
    now += INTERVAL_NS
    assert throttle.admit("a") == 2
    assert throttle.admit("a") is None
    now += 100 * INTERVAL_NS
    assert [throttle.admit("a") for _ in range(BURST + 1)] == [1] + [0] * (BURST - 1) + [None]


def test_made_up_causes_cannot_fill_the_memory_or_the_log() -> None:
    throttle = Throttle(lambda: 0)
    admitted = sum(throttle.admit(str(number)) is not None for number in range(10_000))
    assert admitted <= MAX_CAUSES + BURST
