import hashlib
import json
import math

import msgspec
import pytest
from cascades import CASCADE
from daemons import DEPLOYMENT
from ledgers import entry
from path_bench import plan_of

from edge import __version__
from edge.contracts.messages import PolicyState
from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import Kind, to_json
from edge.errors import StorageError
from edge.ledger import record as records
from edge.ledger.entry import (
    Correction,
    Entry,
    PinnedRefine,
    Runtime,
    digest,
    parameters_document,
    pinned,
)
from edge.ledger.record import GENESIS

# The first is RFC 6962's leaf hash of an empty leaf, as Certificate Transparency's own test
# vectors have it; the others were made with coreutils: printf, xxd -r -p, sha256sum.
LEAVES = {
    b"": "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    b"a": "022a6979e6dab7aa5ae4c3e5e45f7e977112a7e63593820dbec1ec738a24f93c",
    b'{"seq":1}': "b119a77a4864308c481efb947ff723d6bd4ea1e7fab902eb8ca98bd759e46aee",
}
HEADS = [
    "2c590bf6888fa760280c2fdb777540ba3059a1655934844ed5c79e7ec22eb449",
    "29c6a080b162ca951740d4d82f8730c1279bdccfe70a1409dea4361a273546a3",
]


@pytest.mark.parametrize(("canonical", "leaf"), LEAVES.items())
def test_a_leaf_is_hashed_as_rfc_6962_says(canonical: bytes, leaf: str) -> None:
    assert records.leaf_hash(canonical).hex() == leaf


def test_heads_follow_the_vectors() -> None:
    head = GENESIS
    for canonical, expected in zip((b"a", b'{"seq":1}'), HEADS, strict=True):
        head = records.next_head(head, canonical)
        assert head.hex() == expected


def _encode(given: Entry, seq: int = 1) -> bytes:
    return records.encode(given, "f" * 64, "ab" * 8, seq, GENESIS)


def _keys(value: object) -> list[list[str]]:
    if isinstance(value, dict):
        return [list(value), *(keys for inner in value.values() for keys in _keys(inner))]
    if isinstance(value, list):
        return [keys for inner in value for keys in _keys(inner)]
    return []


def test_canonical_bytes_are_sorted_json_without_white_space() -> None:
    canonical = _encode(entry(1))
    for keys in _keys(json.loads(canonical)):
        assert keys == sorted(keys)
    text = canonical.decode()
    assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def test_the_order_of_latencies_and_signals_does_not_show() -> None:
    one = entry(1)
    other = msgspec.structs.replace(
        one,
        verdict=msgspec.structs.replace(
            one.verdict, latency_ms=dict(reversed(one.verdict.latency_ms.items()))
        ),
    )
    assert _encode(one) == _encode(other)


def test_the_verdict_of_a_record_is_the_one_that_was_published() -> None:
    given = entry(2)
    again = records.verdict_of(records.decode_verdict(_encode(given)))
    assert again == given.verdict
    assert json.loads(to_json(again)) == json.loads(to_json(given.verdict))


def test_a_signal_that_is_no_number_is_recorded_as_null_and_read_back() -> None:
    given = msgspec.structs.replace(
        entry(1), signals={"signal.oven": SignalValue(math.nan, 5, SignalState.FRESH)}
    )
    canonical = _encode(given)
    assert b'"value":null' in canonical
    assert records.decode_verdict(canonical).signals["signal.oven"].value is None


@pytest.mark.parametrize("bad", [b"", b"{}", b"\xff", b"[" * 5_000, _encode(entry(1))[:-1]])
def test_what_is_not_a_record_is_refused(bad: bytes) -> None:
    with pytest.raises(StorageError):
        records.decode(bad)


def test_a_record_of_a_later_version_is_refused_by_its_version() -> None:
    later = _encode(entry(1)).replace(b'"v":1,"verdict"', b'"v":2,"verdict"')
    with pytest.raises(StorageError, match="version 2"):
        records.decode(later)


def test_the_digest_of_parameters_tells_pipelines_apart_and_not_the_order_of_keys() -> None:
    one, same, other = (
        digest(parameters_document(parameters))
        for parameters in (
            [{"a": 1, "b": 2}, {}],
            [{"b": 2, "a": 1}, {}],
            [{}, {"a": 1, "b": 2}],
        )
    )
    assert one == same != other
    assert one == hashlib.sha256(b'[{"a":1,"b":2},{}]').hexdigest()


# Frozen: written by hand, the heads computed from these bytes with hashlib alone. If one fails, the
# encoding has changed, and `VERSION` must too: ledgers and proofs in the field say these bytes.
VERDICT = (
    b'{"budget_ms":200.0,"captured_at_ns":1000000001,"content":{"frame":"image/jpeg",'
    b'"reference":"image/x-raw;format=GRAY8;width=4;height=2"},"decided_at_ns":1700000000000000000,'
    b'"defects":[{"box":[1.0,2.5,30.0,40.0],"class":"short","score":0.875}],'
    b'"deployment":{"digest":"' + b"d" * 64 + b'","name":"boards","revision":7,"signed":false},'
    b'"device":"box1","digests":{"decide":"' + b"4" * 64 + b'","findings":"' + b"7" * 64 + b'",'
    b'"frame":"' + b"f" * 64 + b'","model":"' + b"1" * 64 + b'","parameters":"' + b"5" * 64 + b'",'
    b'"postprocess":"'
    + b"3" * 64
    + b'","preprocess":"'
    + b"2" * 64
    + b'","reference":"'
    + b"6" * 64
    + b'","state":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},'
    b'"frame_id":"frame-1","frame_index":41,'
    b'"latency_ms":{"decode":1.5,"infer":9.0,"total":15.25},"ledger":"abababababababab",'
    b'"part_id":"part-0","pipeline":"pcb","prev":"' + b"0" * 64 + b'","provider":"cpu",'
    b'"reason":"defect","runtime":{"options":{"a":"b"},"threads":2,'
    b'"versions":{"onnxruntime":"1.32.0"}},"score":0.14285714285714285,"seq":1,'
    b'"signals":{"signal.lamp":{"age_ns":1000,"state":"fresh","value":0.5}},'
    b'"software":"0.0.0","type":"verdict","v":1,"verdict":"reject"}'
)
OVERRIDE = (
    b'{"by":"line lead","decided_at_ns":1700000001000000000,"device":"box1","frame_id":"frame-1",'
    b'"ledger":"abababababababab","of":1,"of_leaf":"LEAF","part_id":"part-0","pipeline":"pcb",'
    b'"prev":"HEAD","reason":"Reflex auf dem Pad \xc3\xa4","seq":2,"software":"0.0.0",'
    b'"type":"override","v":1,"verdict":"pass","via":"uid 1000","was":"reject"}'
)

FROZEN_HEADS = [
    "387c5ece090ebac3a4ab5fe731d8be3d11fd247c55d537875695abdd497d142d",
    "7498c61da6ad53414aaf48b46961e628f092ef4db6798efc3e889d88f387f3b3",
]


def _frozen_software(canonical: bytes) -> bytes:
    return canonical.replace(f'"software":"{__version__}"'.encode(), b'"software":"0.0.0"')


def test_the_bytes_of_a_verdict_are_frozen() -> None:
    given = msgspec.structs.replace(
        entry(1, decided_at_ns=1_700_000_000_000_000_000),
        content="image/jpeg",
        reference_content="image/x-raw;format=GRAY8;width=4;height=2",
        policy=PolicyState(41, b"abc"),
        findings="7" * 64,
        runtime=Runtime({"onnxruntime": "1.32.0"}, 2, {"a": "b"}),
    )
    canonical = _frozen_software(_encode(given))
    assert canonical == VERDICT
    assert records.next_head(GENESIS, VERDICT).hex() == FROZEN_HEADS[0]


def test_the_bytes_of_an_override_are_frozen() -> None:
    of = records.decode_verdict(VERDICT)
    said = Correction(Kind.PASS, "line lead", "Reflex auf dem Pad \xe4", seq=1, via="uid 1000")
    leaf, head = records.leaf_hash(VERDICT), records.next_head(GENESIS, VERDICT)
    canonical = _frozen_software(
        records.encode_override(said, of, leaf, 1_700_000_001_000_000_000, 2, head)
    )
    expected = OVERRIDE.replace(b"LEAF", leaf.hex().encode()).replace(b"HEAD", head.hex().encode())
    assert canonical == expected
    assert records.next_head(head, canonical).hex() == FROZEN_HEADS[1]


def test_a_record_of_before_replay_is_still_read() -> None:
    """Keys that came later have defaults: such a record was made by the first ledgers."""
    old = json.loads(VERDICT)
    for key in ("content", "frame_index", "runtime"):
        del old[key]
    for key in ("state", "findings"):
        del old["digests"][key]
    record = records.decode_verdict(json.dumps(old).encode())
    assert not record.judged
    assert record.runtime.versions == {}


def test_a_record_of_a_cascade_holds_the_digests_of_its_second_model() -> None:
    of_cascade = pinned(plan_of(CASCADE))
    canonical = _encode(msgspec.structs.replace(entry(1), pinned=of_cascade))
    found = json.loads(canonical)["digests"]["refine"]
    assert list(found) == ["model", "postprocess", "preprocess"]
    assert len(set(found.values())) == 3
    assert all(len(value) == 64 for value in found.values())
    assert records.decode_verdict(canonical).digests.refine == PinnedRefine(**found)


def test_a_record_of_one_model_says_nothing_of_a_second() -> None:
    canonical = _encode(entry(1))
    assert "refine" not in json.loads(canonical)["digests"]
    assert not records.decode_verdict(canonical).digests.refine


def test_the_parameters_of_a_cascade_are_those_of_five_guests_and_how_it_is_set() -> None:
    document = json.loads(pinned(plan_of(CASCADE)).document)
    assert document[:3] != json.loads(pinned(plan_of(DEPLOYMENT)).document)
    assert document[3:] == [
        {},
        {"k": 2, "score": {"default": 0.0, "none": 0.95}},
        {
            "crop": {"margin": 0.25, "min_side_px": 64, "square": True},
            "drop": ["none"],
            "max_crops": 32,
            "min_score": 0.3,
            "score": "product",
            "unnamed": "keep",
        },
    ]
    assert len(json.loads(pinned(plan_of(DEPLOYMENT)).document)) == 3
