"""What a device may send, and what of it is taken."""

import json

import pytest
from fleets import MAX_BYTES, Chain
from hypothesis import given
from hypothesis import strategies as st

from edge.fleet import arrivals
from edge.fleet.arrivals import RefusedError
from edge.ledger.record import leaf_hash


def _altered(**changes: object) -> bytes:
    return json.dumps({**json.loads(Chain().grow(1).bodies[0]), **changes}).encode()


def test_a_record_is_kept_as_the_bytes_that_came() -> None:
    body = Chain().grow(1).bodies[0]
    arrival = arrivals.record("box1", body, MAX_BYTES)
    assert (arrival.body, arrival.seq, arrival.prev) == (body, 1, bytes(32))
    assert arrival.leaf == leaf_hash(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a record"),
        (b"\xff\xfe", "not a record"),
        (b"[]", "not a record"),
        (b"{" * 100_000, "not a record"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "not a record"),
        (b"[" * (MAX_BYTES - 1), "not a record"),
        (b"x" * (MAX_BYTES + 1), "the limit is"),
        (_altered(device="box2"), "names device 'box2'"),
        (_altered(device="../box1"), "names device"),
        (_altered(seq=0), "not a record"),
        (_altered(seq=1 << 60), "not a record"),
        (_altered(seq=1.5), "not a record"),
        (_altered(seq="1"), "not a record"),
        (_altered(prev="0" * 63), "not a record"),
        (_altered(prev="G" * 64), "not a record"),
        (_altered(ledger="x"), "not a record"),
        (_altered(ledger="0" * 16 + "\n"), "not a record"),
        (_altered(v=0), "not a record"),
        (
            _altered(deep=1).replace(b"1}", b'\n{"type":"verdict","device":"box2"}\n}'),
            "are one line",
        ),
        (_altered(deep=None).replace(b"null", b"[" * 60_000 + b"]" * 60_000), "not a record"),
    ],
)
def test_what_is_no_record_of_this_device_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        arrivals.record("box1", body, MAX_BYTES)


@given(st.binary(max_size=400))
def test_no_bytes_at_all_do_more_than_be_refused(body: bytes) -> None:
    for read in (lambda b: arrivals.record("box1", b, MAX_BYTES), arrivals.status):
        try:
            read(body)
        except RefusedError:
            continue


def test_later_kinds_and_versions_of_records_are_taken_all_the_same() -> None:
    arrival = arrivals.record("box1", _altered(v=7, type="override", more=[1]), MAX_BYTES)
    assert arrival.seq == 1


@pytest.mark.parametrize(
    ("topic", "device"),
    [
        ("edge/box1/records", "box1"),
        ("edge/a-b_C9/status", "a-b_C9"),
        ("edge//records", ""),
        ("edge/-x/records", ""),
        ("edge/bo x/records", ""),
        ("edge/" + "x" * 65 + "/records", ""),
        ("edge/a/b/records", ""),
        ("edge/ümlaut/records", ""),
    ],
)
def test_a_topic_names_a_device_or_nobody(topic: str, device: str) -> None:
    assert arrivals.device_of(topic) == device


def test_a_status_says_online_or_offline_and_nothing_else_counts() -> None:
    assert arrivals.status(b'{"state":"online","counters":{"a":[{}]}}').state == "online"
    for wrong in (b"{}", b'{"state":"asleep"}', b"[" * 200_000, b'{"state":"online"' * 30_000):
        with pytest.raises(RefusedError):
            arrivals.status(wrong)
