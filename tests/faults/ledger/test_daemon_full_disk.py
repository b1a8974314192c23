"""The real daemon on a full disk: frames are reviewed, not passed, and no record is lost."""

import asyncio
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import require_mosquitto, until
from daemons import Daemon, Line, line_to
from disks import fill, small_disk

from edge.cli.main import main
from edge.ledger import reading
from edge.mqtt.brokers import LocalBroker

MIB = 1 << 20
WINDOW = 64
"""Frames that a broker sends ahead of our acknowledgements."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB, where the daemon's state lies; its log lies beside it."""
    with small_disk(tmp_path / "state", 32) as mounted:
        yield mounted


async def _until_stuck(disk: Path, line: Line, names: list[str]) -> Path:
    """Fill the disk, again when the reserve was given up, until the ledger takes nothing."""
    ballast = fill(disk)
    for _ in range(40):
        names.append(line.inspect(0))
        await line.verdict(names[-1])
        await until(lambda: bool(line.statuses), "a status")
        line.statuses.clear()
        await line.status(lambda status: bool(status["ledger"]), "the ledger's next status")
        if line.statuses[-1]["ledger"]["stuck"]:
            return ballast
        await asyncio.to_thread(fill, disk)
    pytest.fail("the ledger took records on a full disk")


def _hidden(folder: Path) -> list[Path]:
    """What was written aside, and never got its name."""
    return list(folder.glob(".*"))


def _recorded(state: Path) -> dict[str, str]:
    """Frame ids in the ledger, with the reasons of their verdicts."""
    path = reading.find(state)
    assert path is not None
    with reading.opened(path) as ledger:
        bodies = [json.loads(row.body) for row in ledger.rows()]
    return {body["frame_id"]: body["reason"] for body in bodies}


def test_a_full_disk_has_frames_reviewed_and_loses_no_record(disk: Path, tmp_path: Path) -> None:
    require_mosquitto()
    settings = ("status.interval_s=0.3", "ledger.frames.enabled=false")

    async def scenario() -> list[str]:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=settings) as daemon:
                async with line_to(broker) as line:
                    names = [line.inspect(number) for number in range(4)]
                    assert {v["verdict"] for v in await line.all_verdicts(names)} == {"pass"}
                    await line.status(lambda s: s["ledger"].get("reserve") is True, "a reserve")

                    ballast = await _until_stuck(disk, line, names)
                    stuck = line.statuses[-1]["ledger"]
                    assert "the disk is full" in stuck["trouble"]
                    await line.status(
                        lambda s: s["ledger"].get("reserve") is False, "the reserve is told as gone"
                    )
                    held = await line.play(8)
                    reviewed = await line.all_verdicts(held)
                    assert {(v["verdict"], v["reason"]) for v in reviewed} == {
                        ("review", "storage")
                    }
                    assert {line.judgements(name) for name in held} == {1}
                    assert not set(held) & set(_recorded(disk)), "nothing was committed"
                    names += held

                    ballast.unlink()
                    await line.status(
                        lambda s: s["ledger"].get("committed") == len(names), "all is recorded"
                    )
                    await line.status(
                        lambda s: (
                            s["ledger"].get("stuck") is False and s["ledger"].get("reserve") is True
                        ),
                        "it is well, and has its reserve again",
                    )
                    # Had one acknowledgement been lost, the broker's window would now be narrower;
                    # had all, nothing would come any more.
                    more = await line.play(WINDOW + 16)
                    assert "storage" not in await line.kept(more)
                    names += more
                    await line.status(
                        lambda s: s["ledger"].get("committed") == len(names), "these, too"
                    )
                    assert line.statuses[-1]["counters"].get("records_dropped", 0) == 0
                    assert await asyncio.to_thread(daemon.end) == 0
        return names

    names = asyncio.run(scenario())
    recorded = _recorded(disk)
    assert set(recorded) == set(names)
    assert list(recorded.values()).count("storage") >= 8
    assert main(["ledger", "verify", str(disk)]) == 0


def test_a_box_that_starts_on_a_full_disk_judges_and_records(disk: Path, tmp_path: Path) -> None:
    require_mosquitto()

    async def scenario() -> list[str]:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=("status.interval_s=0.3",)) as daemon:
                async with line_to(broker) as line:
                    names = [line.inspect(0)]
                    await line.verdict(names[0])
                    await line.status(lambda s: s["ledger"].get("reserve") is True, "a reserve")
                    assert await asyncio.to_thread(daemon.end) == 0
                    await line.status(lambda s: s["state"] == "offline", "it is gone")

                    fill(disk)
                    daemon.start()
                    await line.box_ready()
                    names.append(line.inspect(1))
                    assert (await line.verdict(names[1]))["reason"] != "storage"
                    await line.status(
                        lambda s: "nearly full" in s["ledger"].get("trouble", ""), "it is told"
                    )
                    assert await asyncio.to_thread(daemon.end) == 0
        return names

    names = asyncio.run(scenario())
    assert set(names) <= set(_recorded(disk)), "the ledger's reserve took it"
    assert main(["ledger", "verify", str(disk)]) == 0


def test_a_box_that_starts_with_no_room_for_its_state_is_started_again_until_there_is(
    disk: Path, tmp_path: Path
) -> None:
    require_mosquitto()

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            ballast = fill(disk)
            with Daemon(broker, tmp_path) as daemon:
                for _ in range(2):
                    # 1: systemd starts the next one. 78 would be the end, and is for what somebody
                    # must mend.
                    assert await asyncio.to_thread(daemon.ended) == 1
                    daemon.start()
                assert await asyncio.to_thread(daemon.ended) == 1
                assert daemon.log().count("No space left on device") == 3
                assert "Traceback" not in daemon.log()
                assert _hidden(disk) == [], "no attempt leaves anything behind"
                ballast.unlink()
                daemon.start()
                async with line_to(broker) as line:
                    await line.verdict(line.inspect(0))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("call", "error", "status"),
    [("flock", "EIO", 1), ("openat", "EIO", 1), ("openat", "EDQUOT", 1), ("openat", "EACCES", 78)],
)
def test_who_must_act_tells_the_status_of_a_start_that_failed(
    tmp_path: Path, call: str, error: str, status: int
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with Daemon(LocalBroker(port=1), tmp_path) as daemon:
        daemon.kill()
        # Of the daemon's own calls alone that with the name of its folder.
        trace = ["strace", "-qq", "-o", "/dev/null", "-P", str(tmp_path / "state" / "lock")]
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
        daemon._command = [*trace, *inject, *daemon._command]
        daemon.start()
        assert daemon.ended() == status, daemon.log()
        assert os.strerror(getattr(errno, error)) in daemon.log()
        assert "Traceback" not in daemon.log()


def test_a_box_whose_disk_is_read_only_says_so_and_is_well_once_it_is_not(
    disk: Path, tmp_path: Path
) -> None:
    require_mosquitto()

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            remount("ro")
            with Daemon(broker, tmp_path) as daemon:
                assert await asyncio.to_thread(daemon.ended) == 78
                assert f"storage.path: {disk} cannot be used: Read-only file system" in daemon.log()
                remount("rw")
                daemon.start()
                async with line_to(broker) as line:
                    await line.verdict(line.inspect(0))

    asyncio.run(scenario())


def test_kept_frames_make_room_for_records(disk: Path, tmp_path: Path) -> None:
    require_mosquitto()
    settings = (
        "status.interval_s=0.3",
        "ledger.frames.pass_share=1.0",
        f"ledger.frames.min_free_bytes={8 * MIB}",
    )

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=settings):
                async with line_to(broker) as line:
                    names = [line.inspect(number) for number in range(8)]
                    await line.all_verdicts(names)
                    await line.status(
                        lambda s: s["counters"].get("frames_kept") == 8, "eight frames are kept"
                    )
                    fill(disk)
                    await line.status(
                        lambda s: s["ledger"].get("frames", {}).get("files") == 0, "they went"
                    )
                    names.append(line.inspect(1))
                    await line.verdict(names[-1])
                    status = await line.status(
                        lambda s: s["counters"].get("frames_not_kept") == 1, "this one is not kept"
                    )
                    assert "records and verdicts go on" in status["ledger"]["frames"]["trouble"]
                    await line.status(
                        lambda s: s["ledger"].get("committed") == 9, "its verdict is recorded"
                    )

    asyncio.run(scenario())
