"""An update killed at each system call that changes a disk, one by one: `make update-kills`.

    PYTHONPATH=tests python tests/faults/updates/every_step.py --out .out/update-kills.jsonl

For each such call, by its number from the first one on until it is not reached any more: a device
on revision 1 fetches revision 2 and is killed there; and a device that has fetched it takes it into
use, or goes back from it, and is killed there. After each kill the device must be on the old
revision or on the new one, whole, and the next try must complete; a download that was cut goes on
behind its last byte, so that the next look moves the rest, some kilobytes of metadata, and nothing
besides. One JSON line a kill; the last one sums them up. The control, in which the journal is
written in place, must find a device that is on neither.
"""

import argparse
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from activation import STORE_BYTES
from repositories import Device, Publisher, serving

from edge.deployment.fetch_messages import Fetched, Refused
from edge.deployment.folder import load_folder
from edge.deployment.installed import Installed
from edge.deployment.rollout import Deployed, Event, State
from edge.errors import EdgeError

CALLS: Final = (
    "rename", "link", "unlink", "mkdir", "rmdir", "symlink", "fsync", "write", "ftruncate", "chmod",
)  # fmt: skip
"""Each by its beginning: `rename` is `rename`, `renameat` and `renameat2`."""
ACTIVATION: Final = Path(__file__).parents[2] / "activation.py"


def struck_at(call: str, nth: int) -> list[str]:
    """The words before a command that kill it as it enters its nth call of a kind."""
    names = f"/^f?{call}(at2?)?$"
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={names}"]
    return [*trace, "-e", f"inject={names}:signal=KILL:when={nth}"]


class Bench:
    """A publisher of two revisions, and devices to kill.

    Args:
        folder: Of everything.
        model: Content of the second revision's model.
    """

    def __init__(self, folder: Path, model: bytes) -> None:
        self.publisher = Publisher(folder / "publisher")
        self.publisher.release(1)
        self.publisher.copy("old")
        self.publisher.release(2, model=model)
        self._model = model
        self._large = hashlib.sha256(model).hexdigest()
        self._folder = folder
        self._count = itertools.count()
        device = Device(folder / "template", self.publisher)
        first = device.takes(self.publisher.web.parents[1] / "old", 1)
        installed = Installed(device.folder, STORE_BYTES, lambda: 1)
        self.one = Deployed(first.name, first.revision, first.manifest)
        installed.advance(Event.OFFERED, offered=self.one)
        for event in (Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD):
            installed.advance(event)

    def device(self) -> Device:
        """Another device on revision 1."""
        made = Device(self._folder / f"box-{next(self._count)}", self.publisher)
        shutil.copytree(self._folder / "template", made.folder, symlinks=True)
        made.runs(self.one.revision, self.one.digest)
        return made

    def fetch(self, call: str, nth: int) -> dict[str, Any] | None:
        """Kill a fetch; None: it was through before."""
        device = self.device()
        with serving(self.publisher.web) as site:
            outcome = device.look_by_process(site.address, *struck_at(call, nth))
            if isinstance(outcome, Fetched):
                shutil.rmtree(device.folder)
                return None
            assert isinstance(outcome, Refused)
            assert outcome.error == "killed", outcome
            found = standing(device.folder, (self.one.digest,))
            held = sum(held_of(device.folder, self._large))
            again = device.takes(site.address, 2)
            wasted = again.received_bytes - (len(self._model) - held)
        shutil.rmtree(device.folder)
        return {
            "what": "fetch", "call": call, "nth": nth, "found": found, "beside_rest_bytes": wasted,
        }  # fmt: skip

    def activation(self, call: str, nth: int, way: str, variant: str) -> dict[str, Any] | None:
        """Kill a device that takes revision 2 into use, or goes back; None: it was through."""
        device = self.device()
        fetched = device.takes(self.publisher.web, 2)
        two = Deployed(fetched.name, fetched.revision, fetched.manifest)
        command = [sys.executable, str(ACTIVATION), str(device.folder)]
        command += [msgspec.json.encode(two).decode(), way, variant]
        done = subprocess.run(
            [*struck_at(call, nth), *command], capture_output=True, check=False, timeout=60
        )
        if done.stdout == b"done\n":
            shutil.rmtree(device.folder)
            return None
        assert done.returncode in (-9, 137), done.stderr.decode()[-2_000:]
        found = standing(device.folder, (self.one.digest, two.digest))
        if not found.startswith("neither"):
            again = Installed(device.folder, STORE_BYTES, lambda: 1)
            if again.journal.state is not State.IDLE:
                again.advance(Event.WITHDRAWN)
            device.runs(0, "")
            assert device.takes(self.publisher.web, 2).manifest == two.digest
        shutil.rmtree(device.folder)
        return {"what": f"{variant} {way}", "call": call, "nth": nth, "found": found}


def held_of(folder: Path, sha256: str) -> Iterator[int]:
    """Bytes of a file that lie in a store, begun or whole."""
    for place in ("parts", "blobs"):
        path = folder / place / sha256
        yield path.stat().st_size if path.exists() else 0


def standing(folder: Path, allowed: Iterable[str]) -> str:
    """Start as the daemon does; say on which revision, or `neither` and why."""
    try:
        loaded = Installed(folder, STORE_BYTES, lambda: 1).start()
        if loaded is None or loaded.digest not in allowed:
            return f"neither: {loaded.digest if loaded else 'nothing'} runs"
        for each in (folder / "deployments").iterdir():
            if not each.name.startswith("."):
                assert load_folder(each).digest == each.name
    except (EdgeError, AssertionError) as broken:
        return f"neither: {broken}"
    return f"revision {loaded.manifest.deployment.revision}"


def every(strike: Any, *more: str, step: int = 1) -> Iterator[dict[str, Any]]:
    """Strike at each call of each kind, by its number, until it is not reached any more."""
    for call in CALLS:
        for nth in itertools.count(1, step):
            result = strike(call, nth, *more)
            if result is None:
                break
            yield result


def main(arguments: list[str]) -> int:
    """Strike everywhere; end with 1 where a device was on neither, or the control found nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(".out/update-kills.jsonl"))
    parser.add_argument("--step", type=int, default=1, help="only each so many-th call")
    parsed = parser.parse_args(arguments)
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    counts = {"kills": 0, "neither": 0, "control_kills": 0, "control_neither": 0}
    most = 0
    with tempfile.TemporaryDirectory(prefix="edge-kills-") as folder, parsed.out.open("w") as out:
        bench = Bench(Path(folder), bytes(range(256)) * 2_400)
        for result in itertools.chain(
            every(bench.fetch, step=parsed.step),
            every(bench.activation, "held", "sound", step=parsed.step),
            every(bench.activation, "failed", "sound", step=parsed.step),
            every(bench.activation, "held", "torn", step=parsed.step),
        ):
            out.write(json.dumps(result) + "\n")
            out.flush()
            kind = "control_" if result["what"].startswith("torn") else ""
            counts[f"{kind}kills"] += 1
            counts[f"{kind}neither"] += result["found"].startswith("neither")
            most = max(most, result.get("beside_rest_bytes", 0))
        summary = {**counts, "most_bytes_beside_the_rest": most}
        out.write(json.dumps(summary) + "\n")
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if not counts["neither"] and counts["control_neither"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
