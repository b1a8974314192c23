"""kill -9 while checkpoints are signed: what was shown to anybody is never taken back."""

import base64
import random
import shutil
import subprocess
import sys
from pathlib import Path

from edge.ledger import note, reading
from edge.ledger.checkpoint import origin
from edge.ledger.note import Signer, Verifier
from edge.ledger.proving import audited
from edge.ledger.verify import Finding

CYCLES = 12
PROGRAM = """
import base64, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledgers import entry
from edge.ledger.note import read_key
from edge.ledger.signing import Keys
from edge.ledger.store import Prepared, Retention, Store

store = Store(Path(sys.argv[1]), "box1", Retention(), Keys((read_key(Path(sys.argv[2])),)))
while True:
    # Never the same twice: at a place that a kill took back lies another record afterwards.
    number = time.time_ns()
    store.append([Prepared(entry(number + n), (number + n).to_bytes(32, "big")) for n in range(3)])
    made = store.sign(number)
    print(base64.b64encode(made.note).decode(), flush=True)
"""


def shown_until_killed(folder: Path, key: Path, count: int) -> list[bytes]:
    """Run the program, read so many checkpoints, kill it, and return all that it has shown."""
    words = [sys.executable, "-c", PROGRAM, str(folder), str(key), str(Path(__file__).parents[2])]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(count)]
        child.kill()
        lines += child.stdout.readlines()
    assert lines[0], "it ended by itself"
    return [base64.b64decode(line) for line in lines if line.endswith(b"\n")]


def finding_of(folder: Path, key: Path, shown: list[bytes]) -> Finding | None:
    with reading.opened(folder / "ledger.db") as ledger:
        name = origin(ledger.origin.device, ledger.origin.ledger)
        known: Verifier = Signer(name, note.read_key(key)).verifier
        report, audit = audited(ledger, [known], None, shown)
        assert report.finding is not None or audit.checkpoints >= 2 * len(shown)
        return report.finding


def test_every_checkpoint_that_was_shown_fits_the_ledger_after_any_kill(tmp_path: Path) -> None:
    folder, key = tmp_path / "ledger", tmp_path / "key"
    note.write_key(key, note.new_key())
    chance = random.Random(6_962)
    shown: list[bytes] = []
    for _ in range(CYCLES):
        shown += shown_until_killed(folder, key, chance.randint(1, 40))
        assert finding_of(folder, key, shown) is None


def test_a_ledger_that_forgot_what_it_had_shown_is_found(tmp_path: Path) -> None:
    """The control: what a disk does that acknowledges and does not write."""
    folder, key = tmp_path / "ledger", tmp_path / "key"
    note.write_key(key, note.new_key())
    shown = shown_until_killed(folder, key, 5)
    shutil.copytree(folder, tmp_path / "before")
    shown += shown_until_killed(folder, key, 20)
    shutil.rmtree(folder)
    (tmp_path / "before").rename(folder)
    shown_until_killed(folder, key, 40)
    finding = finding_of(folder, key, shown)
    assert finding is not None
    assert finding.kind == "rewritten"
