"""From message to frame: times that are believed, ids that are kept, faults that travel along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incoming import MESSAGE, incoming

from edge.config import ClockSection
from edge.contracts.frame import Encoding, PixelFormat
from edge.daemon.intake import MAX_OWN_IDS, Frame, Intake
from edge.mqtt.messages import Receipt

MS = 1_000_000
BUDGET_MS = 200
NOW_NS, NOW_AT_NS = MESSAGE.arrived_ns, MESSAGE.arrived_at_ns
LIMIT = 1_000


def read(named: dict[str, str] | None = None, **changes: object) -> Frame:
    intake = Intake(ClockSection(), LIMIT, BUDGET_MS, "boot")
    return intake.read(incoming(**changes), named or {}, lambda: None)


def captured(text: str, *, retain: bool = False) -> Frame:
    return read(properties={"captured-at": text}, retain=retain)


def test_a_believed_capture_time_starts_the_budget() -> None:
    frame = captured(str(NOW_AT_NS - 30 * MS))
    assert frame.captured_at_ns == NOW_AT_NS - 30 * MS
    assert frame.captured_ns == NOW_NS - 30 * MS
    assert frame.deadline_ns == NOW_NS + (BUDGET_MS - 30) * MS
    assert frame.fault is None
    assert frame.oddities == ()


def test_without_a_capture_time_the_arrival_starts_the_budget() -> None:
    frame = read()
    assert frame.captured_at_ns == NOW_AT_NS
    assert frame.deadline_ns == NOW_NS + BUDGET_MS * MS
    assert frame.oddities == ()


def test_a_clock_slightly_ahead_does_not_lengthen_the_deadline() -> None:
    frame = captured(str(NOW_AT_NS + 40 * MS))
    assert frame.deadline_ns == NOW_NS + BUDGET_MS * MS
    assert frame.captured_at_ns == NOW_AT_NS


@pytest.mark.parametrize(
    ("text", "oddity"),
    [
        ("0", "captured-at implausible"),  # a clock that was never set
        (str(NOW_AT_NS + 51 * MS), "captured-at implausible"),
        (str(NOW_AT_NS - 86_401_000 * MS), "captured-at implausible"),
        (str(-NOW_AT_NS), "captured-at implausible"),
        ("", "captured-at malformed"),
        ("1.79e18", "captured-at malformed"),
        (" 1790000000000000000", "captured-at malformed"),
        ("٣" * 19, "captured-at malformed"),
        ("9" * 20, "captured-at malformed"),
        ("9" * 60_000, "captured-at malformed"),
    ],
)
def test_a_capture_time_that_cannot_be_gives_way_to_the_arrival(text: str, oddity: str) -> None:
    frame = captured(text)
    assert frame.oddities == (oddity,)
    assert frame.deadline_ns == NOW_NS + BUDGET_MS * MS
    assert frame.fault is None


@pytest.mark.parametrize(("age_ms", "stale"), [(199, False), (200, True), (80_000_000, True)])
def test_a_frame_older_than_its_budget_is_stale(age_ms: int, stale: bool) -> None:
    frame = captured(str(NOW_AT_NS - age_ms * MS))
    assert (frame.fault is not None) == stale
    if frame.fault is not None:
        assert frame.fault.reason == "stale"


def test_a_retained_frame_counts_only_with_a_believable_capture_time() -> None:
    for text in (None, "0", "x"):
        properties = {} if text is None else {"captured-at": text}
        frame = read(retain=True, properties=properties)
        assert frame.fault is not None
        assert frame.fault.reason == "stale"
    assert captured(str(NOW_AT_NS - MS), retain=True).fault is None


@pytest.mark.parametrize("given_id", ["f-1", "a b", "~" * 128, "7"])
def test_a_frame_id_of_printable_ascii_is_kept(given_id: str) -> None:
    assert read(properties={"frame-id": given_id}).frame_id == given_id


@pytest.mark.parametrize(
    "hostile", ["~" * 129, " lead", "tab\t", "n\n", "ü", "\x1b[31m", "x" * 60_000]
)
def test_a_hostile_frame_id_gives_way_to_one_of_our_own(hostile: str) -> None:
    frame = read(properties={"frame-id": hostile})
    assert frame.frame_id == "boot-0"
    assert frame.oddities == ("frame-id",)


def test_own_frame_ids_are_never_used_twice() -> None:
    intake = Intake(ClockSection(), LIMIT, BUDGET_MS, "boot")
    ids = {intake.read(MESSAGE, {}, lambda: None).frame_id for _ in range(100)}
    assert len(ids) == 100


def test_properties_win_over_placeholders_of_the_topic() -> None:
    topic = {"frame_id": "t1", "part_id": "t2", "reference_id": "t3"}
    frame = read(topic)
    assert (frame.frame_id, frame.part_id, frame.reference_id) == ("t1", "t2", "t3")
    frame = read(topic, properties={"frame-id": "p1", "part-id": "p2", "reference-id": "p3"})
    assert (frame.frame_id, frame.part_id, frame.reference_id) == ("p1", "p2", "p3")


@pytest.mark.parametrize("hostile", ["x" * 129, "\x00", "a\nb", "\u202e"])
def test_a_hostile_part_or_reference_id_is_dropped(hostile: str) -> None:
    frame = read(properties={"part-id": hostile, "reference-id": hostile})
    assert (frame.part_id, frame.reference_id) == ("", "")


def test_a_content_type_that_is_none_makes_the_frame_faulty_and_not_lost() -> None:
    for rubbish in (
        "text/html",
        "image/x-raw",
        "image/x-raw;format=GRAY8;width=0;height=1",
        "\x1b",
    ):
        frame = read(content_type=rubbish)
        assert frame.fault is not None
        assert frame.fault.reason == "decode-error"


def test_a_raw_content_type_is_read_whole() -> None:
    content = read(content_type="image/x-raw; format=BayerRG8; width=64; height=48").content
    assert (content.encoding, content.pixel_format) == (Encoding.RAW, PixelFormat.BAYER_RG8)
    assert (content.width, content.height) == (64, 48)


def test_a_payload_over_the_limit_is_not_looked_at() -> None:
    frame = read(payload=b"x" * (LIMIT + 1))
    assert frame.fault is not None
    assert "max_payload_bytes" in frame.fault.detail
    assert read(payload=b"x" * LIMIT).fault is None


def test_the_fingerprint_tells_frames_apart_and_knows_one_again() -> None:
    big = bytes(200_000)
    prints = {
        read(payload=payload).fingerprint
        for payload in (b"", b"a", b"b", big, big[:-1], b"x" + big[1:], big[:-1] + b"x")
    }
    assert len(prints) == 7
    assert read(payload=b"a").fingerprint == read(payload=bytes(bytearray(b"a"))).fingerprint


def test_raw_frames_of_two_parts_on_a_black_ground_are_told_apart() -> None:
    """Under one id the second part must not get the first one's verdict."""
    side, part = 640, range(300, 340)  # a part of 40 rows and columns in the middle

    def picture(grey: int) -> bytes:
        rows = [bytearray(side) for _ in range(side)]
        for row in part:
            rows[row][part.start : part.stop] = bytes([grey]) * len(part)
        return b"".join(rows)

    one, other = (read(payload=picture(grey)).fingerprint for grey in (200, 201))
    assert one != other


def test_the_largest_frame_is_fingerprinted_without_holding_the_loop_up() -> None:
    # A bound of bytes, not of time: what lies between the pieces is not read.
    payload = bytearray(8 << 20)
    first = read(payload=bytes(payload)).fingerprint
    payload[4 << 20] = 1
    assert read(payload=bytes(payload)).fingerprint == first


texts = st.text(max_size=200)


@given(
    properties=st.dictionaries(
        st.sampled_from(["frame-id", "part-id", "reference-id", "captured-at"]), texts
    ),
    content_type=st.none() | texts,
    retain=st.booleans(),
)
def test_no_message_whatever_is_without_a_frame(
    properties: dict[str, str], content_type: str | None, retain: bool
) -> None:
    frame = read(properties=properties, content_type=content_type, retain=retain)
    assert 1 <= len(frame.frame_id) <= 128
    assert frame.deadline_ns <= NOW_NS + BUDGET_MS * MS


def test_a_frame_without_an_id_that_the_broker_brings_again_has_the_id_that_it_had() -> None:
    intake = Intake(ClockSection(), LIMIT, BUDGET_MS, "boot")

    def id_of(payload: bytes, mid: int, *, again: bool = False) -> str:
        message = incoming(payload=payload, duplicate=again, receipt=Receipt(mid, 1))
        return intake.read(message, {}, lambda: None).frame_id

    first, second = id_of(b"one", 1), id_of(b"two", 2)
    assert id_of(b"one", 7, again=True) == first
    assert id_of(b"two", 8, again=True) == second
    # The same picture of the next part is another frame: nobody said that it came again.
    assert id_of(b"one", 3) not in (first, second)
    # What came before this start is not known: it is judged, once.
    unknown = id_of(b"three", 9, again=True)
    assert unknown not in (first, second)
    assert id_of(b"three", 9, again=True) == unknown
    for number in range(MAX_OWN_IDS):
        id_of(str(number).encode(), 1)
    assert len(intake._own) == MAX_OWN_IDS
