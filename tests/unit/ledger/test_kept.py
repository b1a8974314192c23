"""Kept frames: what is chosen, what goes first, and that nobody waits for them."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import Line, entry, frame

from edge.contracts.messages import PolicyState
from edge.contracts.verdict import Kind
from edge.ledger import kept
from edge.ledger.entry import Entry
from edge.ledger.kept import Keeper, Keeping
from edge.ledger.ledger import Ledger

ALL = Keeping(pass_share=1.0, min_free_bytes=0)
REFERENCE = b"a golden board"
Open = Callable[[Keeping], Keeper]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "frames"


@pytest.fixture
def opened(folder: Path) -> Iterator[Open]:
    keepers: list[Keeper] = []

    def open_one(keeping: Keeping = ALL) -> Keeper:
        keepers.append(Keeper(folder, keeping))
        return keepers[-1]

    yield open_one
    for keeper in keepers:
        keeper.close()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _offer(keeper: Keeper, number: int, content: bytes = b"", *, of: Entry | None = None) -> str:
    content = content or frame(number)
    keeper.offer(of or entry(number), content, _digest(content))
    return _digest(content).hex()


def _settled(keeper: Keeper, kept_or_dropped: int) -> None:
    deadline = time.monotonic() + 60
    while keeper.counts.kept + keeper.counts.dropped < kept_or_dropped:
        assert time.monotonic() < deadline, keeper.counts
        time.sleep(0.001)  # between two looks, until the deadline


@given(st.binary(min_size=32, max_size=32), st.floats(0, 1))
def test_rejects_and_reviews_are_always_kept_and_all_or_no_passes_where_so_wished(
    digest: bytes, share: float
) -> None:
    keeping = Keeping(pass_share=share)
    assert keeping.wants(Kind.REJECT, digest)
    assert keeping.wants(Kind.REVIEW, digest)
    assert keeping.wants(Kind.PASS, digest) == keeping.wants(Kind.PASS, digest)
    assert not Keeping(pass_share=0).wants(Kind.PASS, digest)
    assert Keeping(pass_share=1).wants(Kind.PASS, digest)


def test_the_share_of_passes_is_the_one_asked_for_and_grows_by_inclusion() -> None:
    digests = [_digest(str(number).encode()) for number in range(20_000)]
    few = {d for d in digests if Keeping(pass_share=0.05).wants(Kind.PASS, d)}
    more = {d for d in digests if Keeping(pass_share=0.2).wants(Kind.PASS, d)}
    assert 0.04 < len(few) / len(digests) < 0.06
    assert 0.18 < len(more) / len(digests) < 0.22
    assert few < more


def test_a_frame_is_kept_with_all_that_belongs_to_it(opened: Open, folder: Path) -> None:
    parameters, blob = b'[{"score":0.5},{},{}]', b"three rejects in a row"
    base = entry(1)
    whole = msgspec.structs.replace(
        base,
        reference=REFERENCE,
        reference_digest=_digest(REFERENCE).hex(),
        pinned=msgspec.structs.replace(
            base.pinned, parameters=_digest(parameters).hex(), document=parameters
        ),
        policy=PolicyState(3, blob),
    )
    keeper = opened(ALL)
    _offer(keeper, 1, of=whole)
    _settled(keeper, 1)
    for content in (frame(1), REFERENCE, parameters, blob):
        assert kept.read(folder, _digest(content).hex()) == content
    assert keeper.counts.files == 4
    assert keeper.counts.bytes == 4 * 4_096


def test_the_same_bytes_are_written_once(opened: Open) -> None:
    keeper = opened(ALL)
    for _ in range(5):
        _offer(keeper, 1)
    _settled(keeper, 5)
    assert (keeper.counts.kept, keeper.counts.files) == (5, 1)


def test_a_frame_that_is_its_own_reference_is_one_file_and_counted_once(opened: Open) -> None:
    keeper = opened(ALL)
    itself = msgspec.structs.replace(
        entry(1), reference=frame(1), reference_digest=_digest(frame(1)).hex()
    )
    _offer(keeper, 1, of=itself)
    _settled(keeper, 1)
    assert (keeper.counts.files, keeper.counts.bytes) == (1, 4_096)


def test_the_oldest_go_first_and_a_reference_after_the_last_frame_that_names_it(
    opened: Open, folder: Path
) -> None:
    keeper = opened(msgspec.structs.replace(ALL, max_bytes=8 * 4_096))
    digests = []
    for number in range(1, 21):
        named = msgspec.structs.replace(
            entry(number), reference=REFERENCE, reference_digest=_digest(REFERENCE).hex()
        )
        digests.append(_offer(keeper, number, of=named))
        _settled(keeper, number)
    there = [kept.read(folder, digest) is not None for digest in digests]
    assert there == [False] * 13 + [True] * 7
    assert kept.read(folder, _digest(REFERENCE).hex()) == REFERENCE
    assert keeper.counts.bytes == 8 * 4_096
    assert keeper.counts.evicted == 13


def test_a_restart_finds_what_lies_there_in_its_order(opened: Open, folder: Path) -> None:
    keeper = opened(ALL)
    digests = [_offer(keeper, number) for number in range(1, 5)]
    _settled(keeper, 4)
    keeper.close()
    for age, digest in enumerate(reversed(digests)):  # the first is now the newest
        os.utime(kept.place(folder, digest), (1_000_000_000 - age, 1_000_000_000 - age))
    again = opened(Keeping(pass_share=1.0, min_free_bytes=0, max_bytes=4 * 4_096, max_age_s=1e10))
    _offer(again, 9)
    _settled(again, 1)
    assert kept.read(folder, digests[0]) is None
    assert [kept.read(folder, digest) is not None for digest in digests[1:]] == [True] * 3


def test_what_is_too_old_goes(opened: Open, folder: Path) -> None:
    keeper = opened(ALL)
    digest = _offer(keeper, 1)
    _settled(keeper, 1)
    keeper.close()
    os.utime(kept.place(folder, digest), (1.0, 1.0))
    again = opened(ALL)
    _offer(again, 2)
    _settled(again, 1)
    assert kept.read(folder, digest) is None


def test_without_room_frames_are_dropped_counted_and_told(folder: Path) -> None:
    told: list[str] = []
    keeper = Keeper(folder, Keeping(pass_share=1.0, min_free_bytes=1 << 60), told.append)
    _offer(keeper, 1)
    _settled(keeper, 1)
    assert (keeper.counts.kept, keeper.counts.dropped) == (0, 1)
    assert "records and verdicts go on" in keeper.trouble
    keeper.close()
    assert told == [keeper.trouble]


def test_a_folder_that_cannot_be_used_costs_frames_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(b"in the way")
    line = Line()
    keeper = Keeper(tmp_path / "frames", ALL)
    ledger = Ledger(tmp_path / "ledger", "box1", line.deliver, keeper=keeper)
    ledger.append(entry(1), frame(1), line.places.append)
    line.until(lambda: line.places == [1])
    _settled(keeper, 1)
    assert keeper.trouble
    assert ledger.close() == 0


def test_what_waits_is_bounded(opened: Open) -> None:
    keeper = opened(ALL)
    big = bytes(kept.MAX_WAITING_BYTES // 4)
    offered = 64
    for number in range(offered):
        content = big + number.to_bytes(4, "big")
        keeper.offer(entry(number), content, _digest(number.to_bytes(4, "big")))
    _settled(keeper, offered)
    assert keeper.counts.dropped > 0
    assert keeper.counts.kept > 0


@pytest.mark.parametrize("cut", [0, 3, 10])
def test_a_torn_file_is_not_there_for_a_reader(opened: Open, folder: Path, cut: int) -> None:
    keeper = opened(ALL)
    digest = _offer(keeper, 1)
    _settled(keeper, 1)
    place = kept.place(folder, digest)
    place.write_bytes(place.read_bytes()[:cut])
    assert kept.read(folder, digest) is None


@pytest.mark.parametrize("name", ["", "../../../etc/passwd", "ab" * 31, "/" * 64])
def test_only_digests_are_looked_for(folder: Path, name: str) -> None:
    assert kept.read(folder, name) is None
