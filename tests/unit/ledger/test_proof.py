"""Proofs in one file: made, read again, and spoiled in every line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import merkle, note, proof, tiles
from edge.ledger.checkpoint import Checkpoint
from edge.ledger.note import Signer
from edge.ledger.proof import Proof

RECORDS = [b'{"seq":%d}' % number for number in range(1, 301)]
ORIGIN = checkpoints.origin("box1", "00112233445566aa")
KEY = Signer(ORIGIN, note.new_key())
KNOWN = [KEY.verifier]
LEAVES = [merkle.leaf_hash(record) for record in RECORDS]
NOTE = checkpoints.signed(Checkpoint(ORIGIN, 300, merkle.root_of(LEAVES)), [KEY])


def read(level: int, n: int) -> bytes:
    rows = [LEAVES, [merkle.root_of(LEAVES[:256])]]
    return b"".join(rows[level][n * 256 : (n + 1) * 256])


def proof_of(seq: int, *, record: bool = True) -> Proof:
    path = merkle.inclusion_proof(seq - 1, 300, tiles.TileReader(read))
    return Proof(seq - 1, tuple(path), NOTE, RECORDS[seq - 1] if record else None)


def test_a_proof_reads_back_and_holds() -> None:
    made = proof_of(120)
    [found] = proof.parse(made.encode())
    assert found == made
    proved = proof.verify(found, KNOWN)
    assert (proved.record, proved.index) == (RECORDS[119], 119)
    assert proved.opened.checkpoint.size == 300


def test_several_proofs_lie_in_one_file_each_as_the_standard_says() -> None:
    made = [proof_of(seq) for seq in (1, 120, 300)]
    content = b"".join(one.encode() for one in made)
    assert proof.parse(content) == made
    assert all(proof.verify(one, KNOWN) for one in proof.parse(content))
    first = content.split(b"\n")[:3]
    assert first[0] == b"c2sp.org/tlog-proof@v1"
    assert first[1].startswith(b"extra ")
    assert first[2] == b"index 0"


def test_a_proof_without_its_record_holds_for_whoever_has_it() -> None:
    [found] = proof.parse(proof_of(120, record=False).encode())
    with pytest.raises(ProofError, match="holds no record: lay its canonical bytes beside it"):
        proof.verify(found, KNOWN)
    assert proof.verify(found, KNOWN, RECORDS[119]).record == RECORDS[119]
    with pytest.raises(ProofError, match="is not leaf 119 of the signed tree of 300"):
        proof.verify(found, KNOWN, RECORDS[118])
    with pytest.raises(ProofError, match="of another record than the one laid beside it"):
        proof.verify(proof_of(120), KNOWN, RECORDS[118])


def test_no_byte_of_a_proof_can_be_altered() -> None:
    content = proof_of(120).encode()
    for at in range(len(content)):
        altered = bytearray(content)
        altered[at] ^= 1
        try:
            proofs = proof.parse(bytes(altered))
            [proof.verify(one, KNOWN) for one in proofs]
        except ProofError:
            continue
        pytest.fail(f"byte {at} ({content[at : at + 1]!r}) was altered and nobody saw it")


def test_no_line_of_a_proof_can_go_missing() -> None:
    lines = proof_of(120).encode().splitlines(keepends=True)
    for at in range(len(lines)):
        with pytest.raises(ProofError):
            [
                proof.verify(one, KNOWN)
                for one in proof.parse(b"".join(lines[:at] + lines[at + 1 :]))
            ]


def test_a_proof_signed_by_another_key_proves_nothing() -> None:
    with pytest.raises(ProofError, match="no known key of the log signed"):
        proof.verify(proof_of(1), [Signer(ORIGIN, note.new_key()).verifier])
    with pytest.raises(ProofError, match="no known key of the log signed"):
        proof.verify(proof_of(1), [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"c2sp.org/tlog-proof@v1",
        b"c2sp.org/tlog-proof@v1\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\nindex 00\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex -1\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nextra ???\nindex 1\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex " + b"9" * 40 + b"\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\n\xff\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex 1\n" + b"A" * 43 + b"=\n" * 200 + b"\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\n" * 10_002,
    ],
)
def test_what_is_no_proof_is_refused(content: bytes) -> None:
    with pytest.raises(ProofError, match=r"not a proof|limit is"):
        proof.parse(content)


PIECES = [
    NOTE,
    proof_of(120).encode(),
    b"c2sp.org/tlog-proof@v1\n",
    b"index 1\n",
    b"extra ",
    b"\n\n",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=40)), max_size=6))
def test_whatever_comes_is_a_proof_that_holds_or_is_refused(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    try:
        proved = [proof.verify(one, KNOWN) for one in proof.parse(content)]
    except ProofError:
        return
    assert {one.record for one in proved} == {RECORDS[119]}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([NOTE, NOTE[:40], b"\n"]), st.binary(max_size=40))))
def test_whatever_comes_is_a_note_or_is_refused(pieces: list[bytes]) -> None:
    try:
        found = note.parse(b"".join(pieces))
    except ProofError:
        return
    assert note.parse(found.encode()) == found
