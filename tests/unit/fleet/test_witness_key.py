"""Checkpoints of devices: compared with their records, and cosigned only where all is right."""

from pathlib import Path

import pytest
from fleets import Chain

from edge.errors import ConfigError, ProofError
from edge.fleet import store as stores
from edge.fleet.alarms import Kind
from edge.fleet.config import CollectSection
from edge.fleet.database import Database
from edge.fleet.register import Taken
from edge.fleet.store import Store
from edge.fleet.witness import Compared, Witness
from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger.checkpoint import Checkpoint
from edge.ledger.merkle import Range, leaf_hash
from edge.ledger.note import COSIGNER, LOG, Signer

KEY = notes.new_key()
WITNESS = Signer("edge-fleet", notes.new_key(), COSIGNER)


def _note(chain: Chain, size: int, *, device: str = "box1", root: bytes = b"") -> bytes:
    tree = Range()
    for body in chain.bodies[:size]:
        tree.push(leaf_hash(body))
    origin = checkpoints.origin(device, chain.ledger)
    signers = [Signer(origin, KEY, LOG)]
    return checkpoints.signed(Checkpoint(origin, size, root or tree.root()), signers)


def _witness(tmp_path: Path, chain: Chain) -> Witness:
    signer = Signer(checkpoints.origin(chain.device, chain.ledger), KEY, LOG)
    keys = tmp_path / "keys"
    keys.write_text(f"# the line's boxes\n\n{signer.verifier.vkey}\n")
    section = CollectSection.model_validate({"device_keys": str(keys)})
    return Witness(Witness.of(section)._keys, WITNESS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Database(f"sqlite://{tmp_path / 'fleet.db'}"))
    made.prepare()
    return made


def test_a_true_checkpoint_is_cosigned_so_that_anybody_can_check_it(
    store: Store, tmp_path: Path
) -> None:
    chain = Chain().grow(2_500)
    witness = _witness(tmp_path, chain)
    store.take(chain.arrivals())
    for size in (1, 1_000, 1_001, 2_500, 2_500):
        claim = witness.read("box1", _note(chain, size))
        found, taken = store.compare(claim)
        assert (found, taken.raised) == (Compared.SAME, [])
        line = witness.cosignature(claim, 1_800_000_000)
        cosigned = checkpoints.with_line(claim.note, line)
        known = [Signer(checkpoints.origin("box1", chain.ledger), KEY).verifier, WITNESS.verifier]
        opened = checkpoints.opened(cosigned, known)
        assert opened.cosigners == {WITNESS.verifier: 1_800_000_000}


def test_a_checkpoint_waits_for_its_records_and_an_older_one_says_nothing(
    store: Store, tmp_path: Path
) -> None:
    chain = Chain().grow(30)
    witness = _witness(tmp_path, chain)
    claim = witness.read("box1", _note(chain, 20))
    assert store.compare(claim)[0] is Compared.EARLY
    store.take(chain.arrivals(*range(1, 20)))
    assert store.compare(claim)[0] is Compared.EARLY
    store.take(chain.arrivals(20, 21))
    assert store.compare(claim)[0] is Compared.SAME
    assert store.compare(witness.read("box1", _note(chain, 10)))[0] is Compared.BEYOND


def test_a_long_way_to_a_checkpoint_is_gone_in_steps(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_COMPARED", 100)  # else it takes 20,000 records to see it
    chain = Chain().grow(250)
    store.take(chain.arrivals())
    claim = _witness(tmp_path, chain).read("box1", _note(chain, 250))
    steps = [store.compare(claim)[0] for _ in range(3)]
    assert steps == [Compared.MORE, Compared.MORE, Compared.SAME]


@pytest.mark.parametrize("deleted", [7, 30], ids=["some", "all"])
def test_records_that_the_owner_deleted_before_they_were_compared_are_compared_no_more(
    store: Store, tmp_path: Path, deleted: int
) -> None:
    chain = Chain().grow(30)
    store.take(chain.arrivals())
    with store._database.transaction():
        store._database.run("DELETE FROM record WHERE seq <= ?", (deleted,))
    claim = _witness(tmp_path, chain).read("box1", _note(chain, 30))
    assert store.compare(claim) == (Compared.BEYOND, Taken())


def test_a_signed_checkpoint_of_other_records_is_an_alarm(store: Store, tmp_path: Path) -> None:
    chain = Chain().grow(10)
    store.take(chain.arrivals())
    claim = _witness(tmp_path, chain).read("box1", _note(chain.fork(5, 6), 10))
    found, taken = store.compare(claim)
    assert found is Compared.OTHER
    assert [alarm.kind for alarm in taken.raised] == [Kind.CHECKPOINT]


def test_what_is_not_signed_by_the_devices_key_is_refused(tmp_path: Path) -> None:
    chain = Chain().grow(3)
    witness = _witness(tmp_path, chain)
    true = _note(chain, 3)
    forged = checkpoints.signed(
        checkpoints.read(notes.parse(true)),
        [Signer(checkpoints.origin("box1", chain.ledger), notes.new_key(), LOG)],
    )
    for note in (forged, b"", b"\xff", b"x" * 100_000, _note(chain, 3, device="box2")):
        with pytest.raises(ProofError):
            witness.read("box1", note)


def test_without_a_known_key_it_is_compared_and_not_cosigned(store: Store) -> None:
    chain = Chain().grow(5)
    store.take(chain.arrivals())
    witness = Witness({}, WITNESS)
    claim = witness.read("box1", _note(chain, 5))
    assert store.compare(claim)[0] is Compared.SAME
    assert witness.cosignature(claim, 1) == ""


@pytest.mark.parametrize(
    "line",
    ["nonsense", WITNESS.verifier.vkey, Signer("x", KEY).verifier.vkey],
    ids=["nonsense", "a cosigner's", "another name's"],
)
def test_a_file_of_keys_says_which_line_is_none(tmp_path: Path, line: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"#\n{line}\n")
    with pytest.raises(ConfigError, match="keys:2"):
        Witness.of(CollectSection.model_validate({"device_keys": str(keys)}))
