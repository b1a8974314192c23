"""One frame's way through real guests and the real model: traps, spares, probes, references."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from daemons import DEPLOYMENT, part_jpeg, reference_jpeg
from deployments import with_policy
from evil_guests import counting_policy
from guest_wat import guest
from path_bench import EVIL, JPEG, Bench, plan_of

from edge.contracts.frame import PixelFormat
from edge.contracts.messages import Judged, PolicyState
from edge.contracts.plan import ImagePlan
from edge.contracts.verdict import Kind
from edge.errors import DecodeError, FrameError, GuestError
from edge.pipeline.finders import Slot
from edge.pipeline.path import DeadlinePassedError
from edge.pipeline.references import DecodedReferences, EncodedReferences, MissingReferenceError
from edge.pipeline.stages import FRAME_SLOTS
from edge.wasm.engine import GuestEngine
from edge.wasm.guest import Guest
from edge.wasm.roles import ImageSlot

pytest_plugins = ("guest_fixtures",)


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as engine:
        yield engine


@pytest.fixture(scope="module")
def counting_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployments") / "counting"
    return with_policy(DEPLOYMENT, folder, counting_policy())


@pytest.fixture
def bench(shared_engine: GuestEngine) -> Bench:
    """The reference deployment as it is."""
    made = Bench(plan_of(DEPLOYMENT), shared_engine)
    made.teach(3)
    return made


@pytest.fixture
def counting(shared_engine: GuestEngine, counting_folder: Path) -> Bench:
    """A policy that passes all, gives its count of frames as score, and traps under `EVIL`."""
    made = Bench(plan_of(counting_folder), shared_engine)
    made.teach(3)
    return made


def test_the_reference_deployment_tells_good_from_bad(bench: Bench) -> None:
    good, bad = bench.judge(0), bench.judge(1, "short")
    assert (good.verdict, good.reason, good.defects) == (Kind.PASS, "ok", ())
    assert bad.verdict is Kind.REJECT
    assert bad.defects[0].label == "short"
    assert list(good.stage_ms) == ["decode", "preprocess", "infer", "postprocess", "decide"]
    assert bench.path.provider == "cpu"


def test_the_same_frame_gets_the_same_judgement_bit_for_bit(bench: Bench) -> None:
    def told(judged: Judged) -> object:
        return (judged.verdict, judged.score, judged.defects)

    first = told(bench.judge(1, "short"))
    bench.judge(0)
    assert told(bench.judge(1, "short")) == first


def test_the_policys_state_survives_a_trap(counting: Bench) -> None:
    assert [counting.count() for _ in range(2)] == [1, 2]
    counting.trap()
    # The count of the trapped call died with its instance; what was saved before it goes on.
    assert [counting.count() for _ in range(2)] == [3, 4]


def test_trap_after_trap_is_survived_with_and_without_a_spare_at_hand(counting: Bench) -> None:
    assert counting.count() == 1
    for _ in range(3):
        counting.trap()
    for _ in range(3):
        counting.trap()
        counting.path.mend()
    assert counting.count() == 2


def test_a_frame_that_was_decoded_before_its_forerunner_trapped_is_judged_right(
    counting: Bench, bench: Bench
) -> None:
    expected = bench.judge(1, "short")
    evil = counting.decode(part_jpeg(3, 0), lamp=EVIL)
    follower = counting.decode(part_jpeg(3, 1, ("short",)))
    with pytest.raises(GuestError):
        counting.path.judge(evil)
    judged = counting.path.judge(follower)
    assert judged.defects == expected.defects
    assert judged.defects != ()


def test_slots_are_given_back_whatever_becomes_of_a_frame(counting: Bench) -> None:
    for _ in range(3 * FRAME_SLOTS):
        with pytest.raises(DecodeError):
            counting.decode(part_jpeg(3, 0)[:5_000])
        with pytest.raises(MissingReferenceError):
            counting.decode(part_jpeg(3, 0), seed=99)
        with pytest.raises(DeadlinePassedError):
            counting.decode(part_jpeg(3, 0), deadline_ns=1)
        counting.trap()
    both = [counting.decode(part_jpeg(3, part)) for part in range(FRAME_SLOTS)]
    assert [counting.path.judge(frame).reason for frame in both] == ["ok"] * FRAME_SLOTS


@pytest.mark.parametrize(
    ("error", "reason"),
    [(DeadlinePassedError, "overrun"), (MissingReferenceError, "no-reference")],
)
def test_each_failure_has_the_contracts_reason(error: type[FrameError], reason: str) -> None:
    assert error.reason == reason


def test_a_frame_whose_time_ran_out_while_it_waited_is_not_judged(counting: Bench) -> None:
    frame = counting.decode(part_jpeg(3, 0))
    frame.request = msgspec.structs.replace(frame.request, deadline_ns=1)
    with pytest.raises(DeadlinePassedError, match="before its turn"):
        counting.path.judge(frame)
    assert counting.count() == 1


def test_a_probe_goes_the_whole_way_and_leaves_the_policy_as_it_was(counting: Bench) -> None:
    assert counting.count() == 1
    probed = counting.path.judge(counting.decode(part_jpeg(3, 0), probe=True))
    assert probed.policy is None
    assert probed.score == 0.02  # it did run on the policy's state
    assert counting.count() == 2
    judged = counting.judge()
    assert judged.policy == PolicyState(3, struct.pack("<i", 3))


def test_a_successor_goes_on_where_the_policy_stopped(
    shared_engine: GuestEngine, counting_folder: Path
) -> None:
    heir = Bench(plan_of(counting_folder), shared_engine, PolicyState(7, struct.pack("<i", 7)))
    heir.teach(3)
    assert heir.path.take_state_refusal() == ""
    judged = heir.judge()
    assert (judged.score, judged.policy) == (0.08, PolicyState(8, struct.pack("<i", 8)))


def test_a_judgement_says_from_which_state_it_was_made(counting: Bench) -> None:
    first, second = counting.judge(), counting.judge()
    assert first.before == PolicyState()
    assert second.before == first.policy
    counting.trap()
    assert counting.judge().before == second.policy


def test_a_path_takes_up_any_earlier_or_later_state(counting: Bench) -> None:
    judged = [counting.judge() for _ in range(4)]
    for each in (judged[2], judged[0], judged[3], judged[3], judged[1]):
        counting.path.take_up(each.before)
        again = counting.judge()
        assert (again.score, again.policy) == (each.score, each.policy)


def test_findings_have_a_digest_that_tells_more_than_their_rounded_numbers(bench: Bench) -> None:
    good, bad, same = bench.judge(), bench.judge(1, "short"), bench.judge(1, "short")
    assert bad.findings == same.findings != good.findings


def test_a_state_that_the_policy_cannot_read_is_dropped_and_said(
    shared_engine: GuestEngine, counting_folder: Path
) -> None:
    heir = Bench(plan_of(counting_folder), shared_engine, PolicyState(7, b"of another guest"))
    heir.teach(3)
    assert "edge_state_restore" in heir.path.take_state_refusal()
    assert heir.judge().policy == PolicyState(1, struct.pack("<i", 1))


def test_more_references_than_slots_are_each_decoded_right(bench: Bench) -> None:
    seeds = [20, 21, 22, 23, 24, 25]
    bench.teach(*seeds)
    for seed in [*seeds, *reversed(seeds)]:
        assert bench.judge(0, seed=seed).reason == "ok", seed
    # Control: under another board's reference the part is full of defects.
    wrong = bench.path.judge(bench.decode(part_jpeg(20, 0), seed=21))
    assert wrong.verdict is Kind.REJECT


def test_a_forgotten_reference_is_missing_once_it_has_left_its_slot(bench: Bench) -> None:
    bench.teach(*range(30, 36))
    bench.judge(seed=30)
    bench.path.encoded.forget("30")
    for seed in range(31, 36):
        bench.judge(seed=seed)
    with pytest.raises(MissingReferenceError):
        bench.judge(seed=30)


class Slots:
    """The reference slots of a guest, two of them, and the encoded images of three boards."""

    def __init__(self, instance: Guest) -> None:
        image = ImagePlan(PixelFormat.GRAY8, 640, 640)
        self.slots = tuple(ImageSlot(instance, image) for _ in range(2))
        self.decoded = DecodedReferences(self.slots, image)
        self.encoded = EncodedReferences()
        for seed in (1, 2, 3):
            self.encoded.keep(str(seed), JPEG, reference_jpeg(seed))

    def fetch(self, key: str, *busy: str) -> Slot:
        return self.decoded.fetch(key, self.encoded.find(key), frozenset(busy))


@pytest.fixture
def slots(instance: Callable[..., Guest]) -> Slots:
    return Slots(instance(guest()))


def test_the_least_recently_used_slot_gives_way(slots: Slots) -> None:
    one, two = slots.fetch("1"), slots.fetch("2")
    assert slots.fetch("1") is one
    assert slots.fetch("3") is two
    assert slots.fetch("1") is one


def test_a_slot_that_a_frame_still_reads_never_gives_way(slots: Slots) -> None:
    one, two = slots.fetch("1"), slots.fetch("2")
    before = one.pixels.copy()
    assert slots.fetch("3", "1") is two
    assert (one.pixels == before).all()


def test_a_damaged_reference_costs_no_slot(slots: Slots) -> None:
    slots.encoded.keep("bad", JPEG, reference_jpeg(1)[:9_000])
    for _ in range(5):
        with pytest.raises(DecodeError, match="reference bad"):
            slots.fetch("bad")
    assert slots.fetch("1") is not slots.fetch("2")
