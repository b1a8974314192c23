"""The fetch process killed, starved, and cut off: the next look completes, and nothing is half.

What it leaves behind after any end is either resumed, or fetched anew; the deployment that ran
before is there, whole, throughout.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from crashes import require_strace
from disks import LoopDisk, loop_disk, small_disk
from repositories import (
    NOW,
    Answer,
    Device,
    Exchange,
    Publisher,
    cut_after,
    days,
    drip,
    serving,
    signed_at,
    status,
)

from edge.deployment.fetch_messages import Fetched, Nothing, Refused
from edge.deployment.folder import load_folder
from edge.deployment.installed import Installed
from edge.deployment.rollout import Deployed, Event, State

MODEL = random.Random(3).randbytes(600_000)
SYSCALLS = ("rename", "fsync", "link", "mkdir", "unlink", "write")
"""The steps of a download, of assembling, and of python-tuf's own files; each by its beginning."""


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """A fleet that has released revisions 1, in `old`, and 2."""
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.release(1)
    made.copy("old")
    made.release(2, model=MODEL)
    return made


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    """A device that runs revision 1."""
    made = Device(tmp_path / "device", publisher)
    made.takes(publisher.web.parents[1] / "old", 1)
    return made


def _whole(device: Device) -> None:
    """What runs is there, every byte of it; so is whatever else stands in its place."""
    assert device.running is not None
    standing = [each for each in (device.folder / "deployments").iterdir() if each.name[0] != "."]
    assert device.folder / "deployments" / device.running.manifest in standing
    for folder in standing:
        assert load_folder(folder).digest == folder.name
    for blob in (device.folder / "blobs").iterdir():
        digest = subprocess.run(["sha256sum", blob], capture_output=True, check=True).stdout
        assert digest.decode().split()[0] == blob.name


def test_kill_9_at_random_is_gone_on_from(device: Device, publisher: Publisher) -> None:
    chance = random.Random(9)
    killed, within_s = 0, 0.9
    for _ in range(8):
        began = time.monotonic()
        process = subprocess.Popen(
            device.command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(device.request(publisher.web)))
        process.stdin.close()
        end = began + within_s * chance.uniform(0.3, 1.0)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)  # between two looks at its end
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:  # it was through before: strike the next one sooner
            within_s = time.monotonic() - began
        _whole(device)
    assert killed
    device.takes(publisher.web, 2)
    _whole(device)


@pytest.mark.parametrize("call", SYSCALLS)
def test_a_kill_at_any_step_is_gone_on_from(
    device: Device, publisher: Publisher, call: str
) -> None:
    require_strace()
    chance = random.Random(call)
    struck = 0
    for nth in (1, chance.randint(2, 9)):
        trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace=/^{call}(at2?)?$"]
        inject = ["-e", f"inject=/^{call}(at2?)?$:signal=KILL:when={nth}"]
        outcome = device.look_by_process(publisher.web, *trace, *inject)
        struck += isinstance(outcome, Refused) and outcome.error == "killed"
        _whole(device)
        if isinstance(outcome, Fetched):
            break
    assert struck
    if device.running and device.running.revision == 1:
        device.takes(publisher.web, 2)
    _whole(device)


def test_the_kills_at_a_step_do_strike(device: Device, publisher: Publisher) -> None:
    """The control of the test above."""
    require_strace()
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename"]
    outcome = device.look_by_process(
        publisher.web, *trace, "-e", "inject=rename:signal=KILL:when=2"
    )
    assert isinstance(outcome, Refused)
    assert outcome.error == "killed"


@pytest.mark.parametrize("call", ["fsync", "write", "rename", "link"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_is_told_in_one_sentence_and_gone_on_from(
    device: Device, publisher: Publisher, call: str, error: str
) -> None:
    require_strace()
    names = f"/^{call}(at2?)?$"
    # What it says goes out by `write` as well: only those to regular files are struck.
    where = ["-P", str(device.folder / "parts" / hashlib.sha256(MODEL).hexdigest())]
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={names}"]
    trace += where if call == "write" else []
    inject = f"inject={names}:error={error}:when=1+"
    outcome = device.look_by_process(publisher.web, *trace, "-e", inject)
    assert isinstance(outcome, Refused)
    assert outcome.error == "MediumError", outcome
    assert str(device.folder) in outcome.detail
    _whole(device)
    if device.running and device.running.revision == 1:
        device.takes(publisher.web, 2)


@pytest.fixture
def tight_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MiB: 64 of them are the reserve."""
    with small_disk(tmp_path / "disk", 80) as mounted:
        yield mounted


def test_a_full_disk_is_told_and_leaves_the_reserve(tight_disk: Path, publisher: Publisher) -> None:
    device = Device(tight_disk / "device", publisher)
    device.takes(publisher.web.parents[1] / "old", 1)
    ballast = tight_disk / "ballast"
    ballast.write_bytes(bytes(16_500_000))
    refused = device.refused(publisher.web, "StorageError", "stay free, but the disk has")
    assert refused.revision == 2
    _whole(device)
    with ballast.open("ab") as file:  # somebody else takes the reserve too
        while True:
            try:
                file.write(bytes(65_536))
                file.flush()
            except OSError:
                break
    assert isinstance(device.look_by_process(publisher.web), Refused)
    _whole(device)
    ballast.unlink()
    device.takes(publisher.web, 2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    """A disk that can lose its power; 64 MiB of it are the reserve."""
    with loop_disk(tmp_path, 160) as made:
        yield made


def test_power_cuts_across_download_and_activation_end_on_the_old_or_the_new(
    disk: LoopDisk, publisher: Publisher
) -> None:
    """What the journal names is there and whole after each cut, whenever it comes."""
    chance = random.Random(11)
    folder = disk.mount / "deployments"
    device = Device(folder, publisher)
    first = device.takes(publisher.web.parents[1] / "old", 1)
    one = Deployed(first.name, first.revision, first.manifest)
    steps = (Event.BEGAN, Event.PROVED, Event.AGREED, Event.HELD)
    installed = Installed(folder, 64 << 20, lambda: 1)
    installed.advance(Event.OFFERED, offered=one)
    for event in steps:
        installed.advance(event)
    seen = set()
    for cut in range(6):
        two = None
        process = subprocess.Popen(device.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(device.request(publisher.web)))
        process.stdin.close()
        if cut < 2:  # in the download
            end = time.monotonic() + chance.uniform(0.3, 0.9)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.002)  # between two looks at its end
        else:  # in the activation, after so many durable steps
            assert process.stdout is not None
            said = process.stdout.read().splitlines()[-1]
            two = msgspec.json.decode(said, type=Fetched)
            installed.advance(Event.OFFERED, offered=Deployed(two.name, two.revision, two.manifest))
            for event in steps[: cut - 2]:
                installed.advance(event)
        promised = installed.journal
        disk.power_off()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        disk.unmount()
        disk.power_on()
        installed = Installed(folder, 64 << 20, lambda: 1)
        assert installed.journal == promised, "a step that was durable is gone"
        loaded = installed.start()
        assert loaded is not None
        assert loaded.digest == (promised.active or one).digest
        seen.add(loaded.manifest.deployment.revision)
        if installed.journal.state is not State.IDLE:
            installed.advance(Event.WITHDRAWN)
    assert seen == {1, 2}
    device.takes(publisher.web, 2)


def test_power_cuts_find_a_journal_that_is_not_synced(disk: LoopDisk) -> None:
    """The control of the test above: without fsync the step is gone."""
    aside, path = disk.mount / "aside", disk.mount / "journal"
    path.write_bytes(b"old")
    os.sync()
    aside.write_bytes(b"new")
    aside.replace(path)
    disk.power_off()
    disk.unmount()
    disk.power_on()
    assert path.read_bytes() != b"new"


def test_a_server_that_fails_in_every_way_in_turn_costs_no_byte_twice(
    device: Device, publisher: Publisher
) -> None:
    ways: list[tuple[Answer, str]] = [
        (status(500), "status 500"),
        (status(404), "not whole"),
        (cut_after(100_000), "ended early"),
        (cut_after(150_000, reset=True), "ended early"),
        (Exchange.reset, "no answer"),
        (cut_after(200_000), "ended early"),
    ]
    with serving(publisher.web) as site:
        for answer, words in ways:
            site.rules["board.int8"] = answer
            device.refused(site.address, "TransportError", "board.int8.onnx", words)
        del site.rules["board.int8"]
        before = site.sent_bytes
        device.takes(site.address, 2)
        # What a reset takes from the receiver's kernel, unread, is sent again: up to all of it.
        assert site.sent_bytes - before < len(MODEL) - 250_000


def test_a_server_that_drips_its_metadata_is_given_up(device: Device, publisher: Publisher) -> None:
    with serving(publisher.web) as site:
        for name in ("timestamp", "snapshot", "press.json"):
            site.rules = {name: drip(0.2)}
            outcome = device.look(site.address, deadline_s=1.0)
            assert isinstance(outcome, Refused)
            assert "the time for the whole update is over" in outcome.detail
        site.rules = {"timestamp": Exchange.reset}
        device.refused(site.address, "TransportError", "timestamp.json", "no answer")
        site.rules = {}
        device.takes(site.address, 2)


def _faketime(when: str) -> list[str]:
    found = shutil.which("faketime")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("faketime is not installed (Debian: apt-get install faketime)")
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    return ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", found, "-f", when]


def test_a_clock_of_1970_takes_no_metadata_that_ran_out_and_says_so(
    tmp_path: Path, device: Device
) -> None:
    """Its clock holds nothing to have expired; what the publisher signed since does."""
    publisher = Publisher(tmp_path)
    device = Device(tmp_path / "box", publisher)
    publisher.release(1)
    clock = _faketime("@1970-01-01 00:10:00")
    assert isinstance(device.look_by_process(publisher.web, *clock), Fetched)
    publisher.resign("timestamp", signed_at(NOW + days(100)))  # the snapshot is for 90 days
    outcome = device.look_by_process(publisher.web, *clock)
    assert isinstance(outcome, Refused)
    assert "freeze" in outcome.detail
    assert "this clock says 1970-01-01" in outcome.detail


def test_a_clock_of_2099_blocks_updates_and_nothing_for_good(
    device: Device, publisher: Publisher
) -> None:
    outcome = device.look_by_process(publisher.web, *_faketime("@2099-06-01 00:00:00"))
    assert isinstance(outcome, Refused)
    assert outcome.error == "UntrustedError"
    assert "expired" in outcome.detail
    assert "this clock says 2099-06-01" in outcome.detail
    _whole(device)
    device.takes(publisher.web, 2)


def test_the_process_is_bounded_by_the_kernel(device: Device, publisher: Publisher) -> None:
    """Files as large as the store, no core, a gibibyte, ten minutes of a processor; it yields."""
    script = (
        "import msgspec, os, resource as r, sys\n"
        "from edge.deployment.fetch import limit\n"
        "from edge.deployment.fetch_messages import Request\n"
        "limit(msgspec.json.decode(sys.stdin.buffer.read(), type=Request))\n"
        "print([r.getrlimit(x) for x in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE, "
        "r.RLIMIT_CORE)], os.nice(0) >= 10)\n"
        "try:\n bytearray(2 << 30)\nexcept MemoryError:\n print('bounded')\n"
    )
    command = [*device.command()[:2], "-c", script]
    done = subprocess.run(
        command,
        input=msgspec.json.encode(device.request(publisher.web)),
        capture_output=True,
        check=True,
    )
    limits = [(1 << 30,) * 2, (600, 600), (64 << 20,) * 2, (0, 0)]
    assert done.stdout.decode().split("\n")[:2] == [f"{limits} True", "bounded"]


def test_the_process_ends_with_whoever_started_it(
    device: Device, publisher: Publisher, tmp_path: Path
) -> None:
    with serving(publisher.web, timestamp=Exchange.idle) as site:
        request = tmp_path / "request"
        request.write_bytes(msgspec.json.encode(device.request(site.address)))
        shell = f"exec 3<{request}; {' '.join(device.command())} <&3 >/dev/null & echo $!; wait"
        with subprocess.Popen(["bash", "-c", shell], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            end = time.monotonic() + 30
            while not site.asked and time.monotonic() < end:
                time.sleep(0.01)  # between two looks, until the deadline
            assert site.asked, "it looks"
            parent.kill()
        while time.monotonic() < end:
            stat = Path(f"/proc/{child}/stat")
            if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.01)  # between two looks, until the deadline
        raise AssertionError("it goes on without its parent")


def test_a_blob_that_rots_under_a_deployment_is_mended_by_the_next_look(
    device: Device, publisher: Publisher
) -> None:
    fetched = device.takes(publisher.web, 2)
    folder = device.folder / "deployments" / fetched.manifest
    (folder / "model" / "board.int8.onnx").write_bytes(MODEL[:-1])
    device.running = None  # it could not be loaded
    again = device.takes(publisher.web, 2)
    assert again.received_bytes >= len(MODEL)
    _whole(device)


def test_an_unchanged_poll_and_a_small_update_move_few_bytes(
    tmp_path: Path, publisher: Publisher
) -> None:
    fleet = Publisher(tmp_path)
    device = Device(tmp_path / "box", fleet)
    fleet.release(1, model=MODEL)
    with serving(fleet.web) as site:
        device.takes(site.address, 1)
        before = site.sent_bytes
        nothing = device.look(site.address)
        assert isinstance(nothing, Nothing)
        assert nothing.received_bytes == site.sent_bytes - before
        assert nothing.received_bytes <= 1_024
        before, guest = site.sent_bytes, random.Random(1).randbytes(50_000)
        folder = fleet.release_with_guest(2, guest, model=MODEL)
        fetched = device.takes(site.address, 2)
        assert fetched.manifest == folder
        assert 50_000 < site.sent_bytes - before <= 60_000


def test_the_daemon_carries_no_tuf() -> None:
    """It is the fetch process that does, and that is gone between two looks."""
    script = (
        "import sys, edge.cli.run, edge.daemon.running\n"
        "print(sorted({'tuf', 'securesystemslib'} & set(sys.modules)))\n"
        "import edge.deployment.fetch\n"
        "print(sorted({'tuf', 'securesystemslib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == ["[]", "['securesystemslib', 'tuf']"]
