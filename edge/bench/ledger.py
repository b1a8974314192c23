"""The ledger's own figures: commits, chain and tree, signing, verification, one proof of millions.

Everything is the real thing on this disk: the store with `synchronous=FULL`, its tables, its
audit. The tree of the proofs is grown from hashes of numbers, because millions of records would
take hours; what a proof reads are tiles, whatever their leaves are of.
"""

import contextlib
import hashlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.ledger import merkle, note, reading, schema, tree
from edge.ledger import record as records
from edge.ledger.entry import Entry, Pinned
from edge.ledger.proving import audited
from edge.ledger.signing import DUE_RECORDS, Keys
from edge.ledger.store import Prepared, Retention, Store
from edge.ledger.tiles import Edge, TileReader

BATCH: Final = 32
_GROWN_AT_ONCE: Final = 65_536
_PROOFS: Final = 200
_DIGEST: Final = "0123456789abcdef" * 4
_PINNED: Final = Pinned(_DIGEST, _DIGEST, _DIGEST, _DIGEST, _DIGEST)


class LedgerFigures(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        records: Committed, in batches of 32.
        record_bytes: Of one record's canonical bytes.
        records_per_s: Committed, signing every 1,000 included.
        commit_p50_ms: Of one batch.
        commit_p99_ms: Likewise.
        fsync_p50_ms: Of as many bare bytes written to the same disk, with fdatasync, to compare.
        chain_and_tree_us: A record, on average: leaf hash, chain, growth of the tree, its rows.
        sign_us: A checkpoint: root and signature.
        verified_per_s: Records in a second of one core, with chain, tree and checkpoints, from the
            closed file.
        leaves: In the tree of the proofs.
        proof_p50_ms: An inclusion proof of a random leaf, caches empty.
        proof_p99_ms: Likewise.
        proof_cpu_p99_ms: Likewise, of this process alone.
        proof_tiles: Tiles that one reads, at most.
        proof_bytes: Of the hashes of one.
    """

    records: int
    record_bytes: int
    records_per_s: int
    commit_p50_ms: float
    commit_p99_ms: float
    fsync_p50_ms: float
    chain_and_tree_us: float
    sign_us: float
    verified_per_s: int
    leaves: int
    proof_p50_ms: float
    proof_p99_ms: float
    proof_cpu_p99_ms: float
    proof_tiles: int
    proof_bytes: int


def measure(folder: Path, count: int, leaves: int) -> LedgerFigures:
    """Measure.

    Args:
        folder: On the disk that is meant.
        count: Records to commit and verify.
        leaves: In the tree of the proofs; 33 bytes each on disk.
    """
    commits_ms, elapsed_s, sign_us = _commit(folder, count)
    bodies = _bodies(folder)
    proofs_ms, cpu_ms, most, hashes = _prove(folder / "tree", leaves)
    return LedgerFigures(
        records=count,
        record_bytes=round(statistics.mean(map(len, bodies))),
        records_per_s=round(count / elapsed_s),
        commit_p50_ms=_share(commits_ms, 0.5),
        commit_p99_ms=_share(commits_ms, 0.99),
        fsync_p50_ms=_share(_fsyncs_ms(folder / "plain"), 0.5),
        chain_and_tree_us=round(_chain_and_tree_us(folder / "grown", bodies), 2),
        sign_us=round(sign_us, 1),
        verified_per_s=round(count / _verify_s(folder)),
        leaves=leaves,
        proof_p50_ms=_share(proofs_ms, 0.5),
        proof_p99_ms=_share(proofs_ms, 0.99),
        proof_cpu_p99_ms=_share(cpu_ms, 0.99),
        proof_tiles=most,
        proof_bytes=hashes * merkle.HASH_BYTES,
    )


def _commit(folder: Path, count: int) -> tuple[list[float], float, float]:
    store = Store(folder / "ledger", "box1", Retention(max_bytes=1 << 40), Keys((note.new_key(),)))
    commits_ms: list[float] = []
    signs_us: list[float] = []
    began = time.perf_counter()
    for first in range(0, count, BATCH):
        batch = [
            Prepared(_entry(n), n.to_bytes(32, "big"))
            for n in range(first, min(first + BATCH, count))
        ]
        start = time.perf_counter()
        store.append(batch)
        commits_ms.append((time.perf_counter() - start) * 1e3)
        if store.checkpoint_due(time.monotonic()):
            store.sign(time.time_ns())
    elapsed_s = time.perf_counter() - began
    store.sign(time.time_ns())
    store.close()
    edge, _ = Edge().grown([merkle.leaf_hash(b"%d" % n) for n in range(DUE_RECORDS + 1)])
    signer = note.Signer("edge/box1/0", note.new_key())
    for _ in range(_PROOFS):
        start = time.perf_counter()
        signer.sign(edge.root().hex())
        signs_us.append((time.perf_counter() - start) * 1e6)
    return commits_ms, elapsed_s, statistics.median(signs_us)


def _bodies(folder: Path) -> list[bytes]:
    with _opened(folder) as ledger:
        return [row.body for row in ledger.places(1, 4_096)]


def _chain_and_tree_us(folder: Path, bodies: list[bytes]) -> float:
    """The time of what chain and tree add to a commit, full tiles among it: the mean."""
    took_us = []
    edge, head = Edge(), records.GENESIS
    with _database(folder) as database:
        for first in range(0, len(bodies) // BATCH * BATCH, BATCH):
            database.execute("BEGIN")
            start = time.perf_counter()
            leaves = []
            for body in bodies[first : first + BATCH]:
                leaf = merkle.leaf_hash(body)
                head = records.linked(head, leaf)
                leaves.append(leaf)
            edge, growth = edge.grown(leaves)
            tree.write(database, growth)
            took_us.append((time.perf_counter() - start) * 1e6)
            database.execute("COMMIT")
    return statistics.mean(took_us) / BATCH


def _verify_s(folder: Path) -> float:
    took_s = []
    for _ in range(3):
        with _opened(folder) as ledger:
            start = time.process_time()
            report, _ = audited(ledger)
            took_s.append(time.process_time() - start)
            if report.finding is not None:
                raise AssertionError(report.finding.detail)
    return statistics.median(took_s)


def _prove(folder: Path, leaves: int) -> tuple[list[float], list[float], int, int]:
    edge = Edge()
    with _database(folder) as database:
        for first in range(0, leaves, _GROWN_AT_ONCE):
            some = range(first, min(first + _GROWN_AT_ONCE, leaves))
            edge, growth = edge.grown([hashlib.sha256(b"%d" % n).digest() for n in some])
            database.execute("BEGIN")
            tree.write(database, growth)
            database.execute("COMMIT")
    root = edge.root()
    took_ms, cpu_ms, most, hashes = [], [], 0, 0
    for n in range(_PROOFS):
        index = int.from_bytes(hashlib.sha256(b"proof %d" % n).digest()[:8], "big") % leaves
        with reading.opened(folder / schema.DATABASE) as ledger:
            start, cpu = time.perf_counter(), time.process_time()
            subtrees = TileReader(ledger.tile)
            found = merkle.inclusion_proof(index, leaves, subtrees)
            took_ms.append((time.perf_counter() - start) * 1e3)
            cpu_ms.append((time.process_time() - cpu) * 1e3)
        leaf = hashlib.sha256(b"%d" % index).digest()
        if merkle.root_by_inclusion(leaf, index, leaves, found) != root:
            raise AssertionError(f"the proof of leaf {index} does not hold")
        most, hashes = max(most, subtrees.reads), max(hashes, len(found))
    return took_ms, cpu_ms, most, hashes


def _fsyncs_ms(path: Path) -> list[float]:
    took_ms = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_PROOFS):
            start = time.perf_counter()
            file.write(bytes(BATCH * 2_048))
            os.fdatasync(file.fileno())
            took_ms.append((time.perf_counter() - start) * 1e3)
    return took_ms


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[tree.Database]:
    """A new ledger's database, as the store has it, to put bare trees into."""
    lock = schema.Lock(folder)
    database, _ = schema.connect(folder, "bench", lock)
    try:
        yield database
    finally:
        database.close()
        lock.release()


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[reading.Reading]:
    with reading.opened(folder / "ledger" / schema.DATABASE) as ledger:
        yield ledger


def _entry(number: int) -> Entry:
    return Entry(
        verdict=Verdict(
            device="box1",
            pipeline="pcb",
            deployment=DeploymentRef("boards", 7, _DIGEST),
            frame_id=f"frame-{number}",
            part_id=f"part-{number}",
            verdict=Kind.REJECT,
            reason="defect",
            score=number / 7,
            defects=(Defect("short", 0.875, (1.0, 2.5, 30.0, 40.0)),),
            captured_at_ns=1_000_000_000 + number,
            latency_ms={"total": 15.25, "decode": 1.5, "infer": 9.0},
            budget_ms=200.0,
            provider="cpu",
        ),
        decided_at_ns=1_800_000_000_000_000_000 + number,
        pinned=_PINNED,
        reference_digest=_DIGEST,
        signals={"signal.lamp": SignalValue(0.5, 1_000, SignalState.FRESH)},
    )
