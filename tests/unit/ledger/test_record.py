import hashlib
import json
import math

import msgspec
import pytest
from ledgers import entry

from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import to_json
from edge.errors import StorageError
from edge.ledger import record as records
from edge.ledger.entry import Entry, digest, parameters_document
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
